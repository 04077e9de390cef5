"""A recipe as a job: the files are what the platforms' tools read, go on where they stopped, and hold no secret."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import toolkit
from toolkit.errors import InputError
from toolkit.jobs import launch as launch_module
from toolkit.jobs.launch import Asked, Launch, launch
from toolkit.jobs.platforms import PLATFORMS
from toolkit.planning.cards import find_card
from toolkit.recipe import load

GIT = "git+https://example.org/toolkit@0123abc"
ASKED = {
    "hf-jobs": Asked("hf-jobs", "t4", repo="me/mine", source=GIT),
    "skypilot": Asked("skypilot", "t4", runs="s3://my-runs", source=GIT, secrets=("WANDB_API_KEY",)),
    "modal": Asked("modal", "t4", repo="me/mine", source=GIT),
}


def made(asked: Asked, *overrides: str) -> Launch:
    return launch(load(Path("mine.toml"), overrides), asked)


def header(script: str) -> dict[str, Any]:
    """The metadata in a script's comments, as PEP 723 says to read it."""
    match = re.search(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$", script)
    assert match
    lines = match["content"].splitlines(keepends=True)
    return tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))


@pytest.mark.parametrize("name", ASKED)
def test_recipe_and_data_go_along_and_secrets_do_not(name: str) -> None:
    found = made(ASKED[name])
    whole = "".join(file.read_text() for file in found.folder.rglob("*") if file.is_file()) + "\n".join(found.lines())
    assert "hf_secret" not in whole and found.job.secrets[0] in whole
    recipe = load(found.folder / "recipe.toml").recipe
    there = [one.source.removeprefix(f"{found.folder}/") for one in recipe.data.sources]
    assert there == ["data/chats.jsonl", "data/2-chats.jsonl", "data/folder", "builtin:tools"]
    assert (found.folder / "data/2-chats.jsonl").read_text() == Path("more/chats.jsonl").read_text()
    assert recipe.train == load(Path("mine.toml")).recipe.train


@pytest.mark.parametrize("name", ASKED)
def test_the_script_says_what_it_needs(name: str) -> None:
    told = header((made(ASKED[name]).folder / "job.py").read_text())
    assert told["requires-python"] == ">=3.12,<3.13"
    assert told["dependencies"] == [f"toolkit[gpu,gguf,serve] @ {GIT}"]
    pins = told["tool"]["uv"]["constraint-dependencies"]
    assert "torch==2.11.0" in pins and 'numpy==2.5.2; python_version >= "3.12"' in pins


def test_data_of_the_hub_need_not_be_here(place: Path) -> None:
    """Nobody has counted its chats: the time is a guess that is said, and what is trained is fitted to it."""
    (place / "mine.toml").write_text('[[data.sources]]\nsource = "org/chats"\n[train]\nbf16 = false\nfp16 = true\n')
    found = made(ASKED["modal"])
    lines = "\n".join(found.lines())
    assert "for 10,000 chats, a guess: nobody has counted those of the hub's data here; `toolkit data build`" in lines
    recipe = load(found.folder / "recipe.toml").recipe
    assert found.cut and recipe.train.max_minutes is not None and recipe.train.max_steps <= 0
    assert recipe.train.max_minutes < found.job.minutes - launch_module.START + 1
    assert found.plan.time is not None and 60 * recipe.train.max_minutes >= found.plan.time.trained
    own = made(replace(ASKED["modal"], force=True), "train.max_steps=50")
    assert not own.guessed and not own.cut and "a guess" not in "\n".join(own.lines())
    bounded = made(replace(ASKED["modal"], force=True), "train.max_minutes=30")
    assert load(bounded.folder / "recipe.toml").recipe.train.max_minutes == 30


def test_hf_jobs_command() -> None:
    found = made(replace(ASKED["hf-jobs"], timeout=2))
    (command,) = found.platform.commands(found.job, found.folder)
    assert command == (
        "hf jobs uv run --flavor t4-small --timeout 120m --secrets HF_TOKEN -v ./jobs/mine-hf-jobs:/job:ro "
        "-v hf://buckets/me/toolkit-runs:/runs --detach ./jobs/mine-hf-jobs/job.py /job /runs/mine"
    )
    assert "for $0.80" in "\n".join(found.lines()), "two hours at the price that the hub's page has for it"


def test_a_time_and_a_price_next_to_nothing_are_not_none() -> None:
    found = made(replace(ASKED["skypilot"], price=0.36))
    assert found.plan.time is not None
    none = replace(found.plan.time, training=0.0, evaluation=0.0, decoding=0.0, export=0.0)

    def told(seconds: float) -> str:
        plan = replace(found.plan, time=replace(none, training=seconds))
        return next(line for line in replace(found, plan=plan).lines() if line.startswith("predicted"))

    assert told(20.0) == "predicted  under a minute of training, under $0.01 (toolkit plan)"
    assert told(61.0) == "predicted  1 minute of training, under $0.01 (toolkit plan)"
    assert told(7200.0) == "predicted  120 minutes of training, $0.72 (toolkit plan)"


def test_sky_yaml() -> None:
    found = made(ASKED["skypilot"])
    told = yaml.safe_load((found.folder / "sky.yaml").read_text())
    assert told["resources"] == {"accelerators": "T4:1", "autostop": {"idle_minutes": 10, "down": True}}
    assert told["file_mounts"] == {"/job": ".", "/runs": {"source": "s3://my-runs", "mode": "MOUNT_CACHED"}}
    assert told["secrets"] == {"WANDB_API_KEY": None}
    assert told["run"].split()[:1] == ["timeout"] and told["run"].strip().endswith("uv run /job/job.py /job /runs/mine")
    assert f"{found.job.minutes}m" in told["run"]


def test_modal_app() -> None:
    found = made(replace(ASKED["modal"], gpus=2))
    tree = ast.parse((found.folder / "app.py").read_text())
    (train,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    (decorator,) = train.decorator_list
    assert isinstance(decorator, ast.Call)
    given = {word.arg: ast.unparse(word.value) for word in decorator.keywords}
    assert given["gpu"] == "'T4:2'" and given["timeout"] == str(60 * found.job.minutes)
    assert given["secrets"] == "[modal.Secret.from_name('hf-token', required_keys=['HF_TOKEN'])]"
    assert (found.folder / "constraints.txt").read_text().splitlines() == list(found.job.constraints)


FAKE = """
import json, os, sys
from pathlib import Path
with Path(os.environ["CALLS"]).open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(int(os.environ.get("FAILS") == sys.argv[1]))
"""


def calls(found: Launch, place: Path, run: Path, fails: str = "") -> tuple[int, list[list[str]]]:
    """(exit code, command lines) of job.py with a toolkit that only writes down what it is asked."""
    (place / "fake" / "toolkit").mkdir(parents=True, exist_ok=True)
    (place / "fake" / "toolkit" / "__main__.py").write_text(FAKE)
    log = place / "calls"
    log.write_text("")
    environment = {**os.environ, "PYTHONPATH": str(place / "fake"), "CALLS": str(log), "FAILS": fails}
    words = [sys.executable, str(found.folder / "job.py"), str(found.folder), str(run)]
    done = subprocess.run(words, env=environment)
    return done.returncode, [json.loads(line) for line in log.read_text().splitlines()]


def test_a_job_starts_goes_on_and_is_done_once(place: Path) -> None:
    found, run = made(ASKED["hf-jobs"]), place / "runs" / "mine"
    recipe = str(found.folder / "recipe.toml")
    push = ["push", str(run), "me/mine"]
    assert calls(found, place, run) == (0, [["doctor"], ["run", recipe, "--out", str(run)], push])
    run.mkdir(parents=True)  # stopped before its first checkpoint
    assert calls(found, place, run)[1][1] == ["run", recipe, "--out", str(run)]
    assert not run.exists() and [one.name.startswith("mine-stopped-") for one in run.parent.iterdir()] == [True]
    (run / "checkpoints" / "checkpoint-25").mkdir(parents=True)
    assert calls(found, place, run)[1][1] == ["run", recipe, "--resume", str(run)]
    (run / "summary.json").write_text("{}")
    assert calls(found, place, run) == (0, [["doctor"], push])
    assert calls(found, place, run, fails="doctor") == (1, [["doctor"]]), "nothing is paid for on a machine that can't"


def test_training_is_fitted_to_the_time_that_the_job_has() -> None:
    long = made(replace(ASKED["modal"], timeout=1), "train.num_train_epochs=50")
    assert long.cut and load(long.folder / "recipe.toml").recipe.train.max_minutes == 30
    assert any(line.startswith("budget ") for line in long.lines())
    own = made(replace(ASKED["modal"], timeout=1, force=True), "train.num_train_epochs=50", "train.max_minutes=10")
    assert not own.cut and load(own.folder / "recipe.toml").recipe.train.max_minutes == 10
    most = made(replace(ASKED["modal"], force=True), "train.num_train_epochs=5000")
    assert most.cut and most.job.minutes == 24 * 60, "Modal ends every job after a day"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked("hfjobs", "t4"), "hfjobs: no such platform, did you mean hf-jobs?; known: hf-jobs, skypilot, modal"),
        (Asked("modal", "t5"), "--gpu t5: unknown card, did you mean t4?"),
        (Asked("modal", "v100"), "--gpu v100: Modal has none; it has t4, l4"),
        (Asked("modal", "a10g", 5), "--gpus 5: Modal has at most 4 of a10g in one machine"),
        (Asked("modal", "t4", source=GIT, out=Path("mine.toml/x")), "mine.toml/x: can't be made: "),
        (Asked("hf-jobs", "t4", 2), "Hugging Face Jobs has no machine with 2 x t4; it has t4, l4, l4 x 4"),
        (Asked("hf-jobs", "t4", repo="mine"), "--repo mine: wanted a model repository of the hub, as YOUR-NAME/mine"),
        (Asked("hf-jobs", "t4", source=GIT), "--runs: wanted a bucket for checkpoints, as YOUR-NAME/toolkit-runs"),
        (Asked("skypilot", "t4", source=GIT), "--runs: wanted a bucket"),
        (Asked("skypilot", "t4", source=GIT, runs="My Bucket"), "--runs My Bucket: wanted a bucket's name"),
        (Asked("skypilot", "t4", source=GIT, runs="ftp://x"), "--runs ftp://x: wanted a bucket's name"),
        (Asked("modal", "t4", source=GIT, secrets=("hf_abc/def",)), "never a value"),
        (Asked("modal", "t4", source="https://x.org/me"), "--source https://x.org/me: wanted git+https://"),
        (
            Asked("modal", "t4", source="git+https://x.org/me; print"),
            "wanted git+https://ADDRESS@REVISION, the https://",
        ),
        (
            Asked("modal", "cpu", source=GIT),
            "--gpu cpu: a job is for a card, as t4",
        ),
        (Asked("modal", "t4", source=GIT, price=math.inf), "--price inf: wanted what an hour on a card costs"),
        (Asked("modal", "t4", source="toolkit"), "--source toolkit: wanted git+https://"),
        (Asked("modal", "t4", source="more"), "--source more: no pyproject.toml in it"),
        (
            Asked("modal", "t4", source=GIT, timeout=0.3),
            "--timeout 0.3: too short: installing alone may take",
        ),
        (Asked("modal", "t4", source=GIT, timeout=30), "--timeout 30: a job of Modal runs 24 hours at most"),
    ],
)
def test_what_can_not_be(asked: Asked, said: str) -> None:
    with pytest.raises(InputError) as refused:
        made(asked)
    assert said in str(refused.value) and "hf_abc" not in str(refused.value)
    assert not Path("jobs").exists()


def test_nothing_but_a_jobs_folder_is_written_over() -> None:
    mine = Path("mine")
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    for place in (mine, Path("chats.jsonl")):
        with pytest.raises(InputError, match=f"{place}: exists already, and is not a job's folder"):
            made(replace(ASKED["modal"], out=place, force=True))
    assert (mine / "thesis.txt").is_file() and Path("chats.jsonl").is_file()
    (mine / "thesis.txt").unlink()
    with pytest.raises(InputError, match="mine: exists already; --force writes it anew"):
        made(replace(ASKED["modal"], out=mine))
    for _ in range(2):
        assert (made(replace(ASKED["modal"], out=mine, force=True)).folder / "job.py").is_file()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_any_name_of_a_recipe_makes_files_that_can_be_read(platform: str) -> None:
    odd = Path('a"""b\\ {x}.toml')
    odd.write_bytes(Path("mine.toml").read_bytes())
    found = launch(load(odd), ASKED[platform])
    assert found.folder == Path(f"jobs/a-b-x-{platform}") and found.job.run == "/runs/a-b-x"
    for file in found.folder.glob("*.py"):
        ast.parse(file.read_text())


def test_a_model_in_a_folder_and_one_that_does_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"model.name: .* is a folder here; a job takes a model of the hub"):
        made(ASKED["modal"], "model.name=./more")
    with pytest.raises(InputError, match="does not fit on T4"):
        made(ASKED["modal"], "lora.r=4096")


def test_a_folder_that_is_there_stays(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("launch", "modal", "mine.toml", "--gpu", "t4", "--source", GIT)
    assert toolkit(capsys, monkeypatch, *words)[0] == 0
    Path("jobs/mine-modal/mark").touch()
    code, _, err = toolkit(capsys, monkeypatch, *words)
    assert (code, err) == (2, "error: jobs/mine-modal: exists already; --force writes it anew, --out names another\n")
    assert toolkit(capsys, monkeypatch, *words, "--force")[0] == 0 and not Path("jobs/mine-modal/mark").exists()


def test_a_checkout_without_a_public_address_is_taken_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module, "_origin", lambda: "")
    found = made(Asked("skypilot", "t4", runs="my-runs"))
    mounts = yaml.safe_load((found.folder / "sky.yaml").read_text())["file_mounts"]
    assert mounts["/toolkit"] == str(launch_module.ROOT) and mounts["/runs"]["name"] == "my-runs"
    needed = header((found.folder / "job.py").read_text())["dependencies"]
    assert needed == ["toolkit[gpu,gguf,serve] @ file:///toolkit"]
    with pytest.raises(InputError, match="this checkout has no public one"):
        made(Asked("hf-jobs", "t4", runs="me/runs"))


def test_every_card_of_a_platform_is_one_that_can_be_planned_for() -> None:
    for platform in PLATFORMS.values():
        for name, number in platform.accelerators:
            assert platform.accelerator(find_card(name), number)
