"""What a job is, whoever runs it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from toolkit.planning.cards import Card

JOB = "/job"  # where job.py, the recipe and its data stand on the other machine
RUNS = "/runs"  # what stays when the machine is gone
SOURCE = "/toolkit"  # the toolkit's own code, where it is not fetched
EXTRAS = "gpu,gguf,serve"
PYTHON = "3.12"
TOKEN = "HF_TOKEN"
JOB_FILE = "job.py"
MADE_BY = "By `toolkit launch`."  # by which a job's folder is known for one


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job gets the toolkit from: `address` for pip (git+https://...), or a `folder` that is taken along."""

    address: str = ""
    folder: str = ""

    @property
    def requirement(self) -> str:
        return f"toolkit[{EXTRAS}] @ {self.address or f'file://{SOURCE}'}"


@dataclass(frozen=True, slots=True)
class Job:
    """A job. `minutes`: after which it is ended; `runs`: a place of the platform for checkpoints; `repo`: where the
    result is pushed; `secrets`: names of environment variables, never values; `constraints`: lines for pip."""

    name: str
    card: Card
    gpus: int
    minutes: int
    runs: str
    repo: str | None
    secrets: tuple[str, ...]
    source: Source
    constraints: tuple[str, ...]

    @property
    def run(self) -> str:
        """The run folder, on the other machine."""
        return f"{RUNS}/{self.name}"

    @property
    def command(self) -> list[str]:
        """What trains there."""
        return [f"{JOB}/job.py", JOB, self.run]

    def script(self) -> str:
        """job.py: with what it needs in its head (PEP 723), so that `uv run` installs it."""
        pins = "".join(f"#   {json.dumps(line)},\n" for line in self.constraints)
        return _SCRIPT.format(
            python=f">={PYTHON},<{PYTHON.partition('.')[0]}.{int(PYTHON.partition('.')[2]) + 1}",
            requirement=json.dumps(self.source.requirement),
            constraints=f"# [tool.uv]\n# constraint-dependencies = [\n{pins}# ]\n" if pins else "",
            name=self.name,
            gpus=self.gpus,
            repo=json.dumps(self.repo) if self.repo else "None",
        )


_SCRIPT = '''\
# /// script
# requires-python = "{python}"
# dependencies = [{requirement}]
{constraints}# ///
"""Train {name}, or go on where an earlier try stopped: job.py FOLDER-OF-THE-RECIPE RUN. By `toolkit launch`."""

import subprocess
import sys
from pathlib import Path

RECIPE, RUN = Path(sys.argv[1]) / "recipe.toml", Path(sys.argv[2])
GPUS = {gpus}
REPO = {repo}


def toolkit(*words):
    done = subprocess.run([sys.executable, "-m", "toolkit", *map(str, words)])
    if done.returncode:
        sys.exit(done.returncode)


toolkit("doctor")
if not (RUN / "summary.json").is_file():
    if any(RUN.glob("checkpoints/checkpoint-*")):
        where = ["--resume", RUN]
    else:
        if RUN.exists():  # stopped before its first checkpoint
            RUN.rename(RUN.with_name(f"{{RUN.name}}-stopped-{{RUN.stat().st_mtime:.0f}}"))
        where = ["--out", RUN]
    toolkit("run", RECIPE, *where, *(["--gpus", GPUS] if GPUS > 1 else []))
if REPO:
    toolkit("push", RUN, REPO)
'''
