"""What `toolkit launch` writes, read by the platforms' own tools. Optional: `.ci/launch-tools` installs them.

TOOLKIT_LAUNCH_TOOLS   a folder with two environments: clouds (skypilot, modal) and hub (huggingface_hub's `hf`)

Nothing is started, and nothing is sent: homes are empty, and there is no login.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.jobs.test_launch import ASKED, made
from toolkit.jobs.launch import Launch

TOOLS = os.environ.get("TOOLKIT_LAUNCH_TOOLS")
pytestmark = pytest.mark.skipif(not TOOLS, reason="no launch tools installed beside; see .ci/launch-tools")

SKY = """
import jsonschema, sky, yaml
from sky.utils import schemas
told = yaml.safe_load(open("sky.yaml"))
jsonschema.validate(told, schemas.get_task_schema())
jsonschema.validate(told["resources"], schemas.get_resources_schema())
for mount in told["file_mounts"].values():
    if isinstance(mount, dict):
        jsonschema.validate(mount, schemas.get_storage_schema())
task = sky.Task.from_yaml("sky.yaml")
(resources,) = task.resources
print(task.name, resources.accelerators, sorted(told["secrets"]), sep="\\n")
"""
MODAL = """
import warnings
warnings.simplefilter("ignore")
import app
print(app.app.name, sorted(app.app.registered_functions), sorted(app.app.registered_entrypoints), sep="\\n")
"""


def said(environment: str, words: list[str], folder: Path, home: Path) -> list[str]:
    """The lines that a command of one of the environments prints, run in `folder`."""
    assert TOOLS is not None
    program = Path(TOOLS) / environment / "bin" / words[0]
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_HOME", "PYTHON"))}
    done = subprocess.run(
        [str(program), *words[1:]], cwd=folder, env={**kept, "HOME": str(home)}, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout.strip().splitlines()


def with_two(name: str) -> Iterator[Launch]:
    """A job on one card, and then, in the same folder, one on two with the toolkit's own folder."""
    yield made(ASKED[name])
    yield made(replace(ASKED[name], gpus=2, source=None, force=True))


def test_skypilot_takes_the_task(tmp_path: Path) -> None:
    for gpus, found in enumerate(with_two("skypilot"), 1):
        lines = said("clouds", ["python", "-c", SKY], found.folder, tmp_path / "home")
        assert lines[-3:] == ["mine", str({"T4": gpus}), "['WANDB_API_KEY']"]


def test_modal_builds_the_app(tmp_path: Path) -> None:
    for found in with_two("modal"):
        lines = said("clouds", ["python", "-c", MODAL], found.folder, tmp_path / "home")
        assert lines[-3:] == ["toolkit-mine", "['train']", "['main']"]


def test_hf_takes_the_command(tmp_path: Path) -> None:
    found = made(replace(ASKED["hf-jobs"], timeout=2))
    (command,) = found.platform.commands(found.job, found.folder)
    words = shlex.split(command)
    assert words[:4] == ["hf", "jobs", "uv", "run"]
    told = {}
    lines = said("hub", [*words[:4], "--dry-run", *words[4:]], tmp_path, tmp_path / "home")
    for line in lines:
        name, _, value = line.strip().partition(" ")
        told[name] = value.strip()
    assert told["script"] == "./jobs/mine-hf-jobs/job.py" and told["args"] == "/job /runs/mine"
    assert (told["flavor"], told["timeout"]) == ("t4-small", "120m") and told["secrets"].startswith("HF_TOKEN")
    assert "hf_secret" not in json.dumps(lines)
