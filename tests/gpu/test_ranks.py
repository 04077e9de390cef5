"""Two cards train what one does: losses, going on, and an end in a line, with NCCL and each engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tiny import write_gpu_recipe
from toolkit.engines.base import is_installed
from toolkit.runs import RunFolder
from toolkit.training import checkpoints

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]

# of a loss, over all updates: bfloat16 products, whose sums are cut in other places
TOLERANCE = 0.002
UPDATES = 50
PACKED = {"micro_batch": 1024}
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "peft, padded": {"train": {"engine": "peft"}},
    "peft, NF4, packed": {"model": {"load_in_4bit": True}, "train": {"engine": "peft", **PACKED}},
    "compiled, recorded": {"train": {"engine": "compiled", "gradient_checkpointing": False, **PACKED}},
    "unsloth, packed": {"train": {"engine": "unsloth", "gradient_checkpointing": False, **PACKED}},
    "unsloth, NF4, packed": {"model": {"load_in_4bit": True}, "train": {"engine": "unsloth", **PACKED}},
}
NEEDS = {"unsloth": "unsloth", "NF4": "bitsandbytes"}


def recipe_of(folder: Path, kind: str) -> Path:
    sections = KINDS[kind]
    train = {"max_steps": UPDATES, "save_steps": 10, "learning_rate": 2e-4, **sections["train"]}
    evaluation = {"holdout": 9, "eval_steps": 25, "generate": 6, "max_new_tokens": 16, "early_stopping_patience": 0}
    lora = {"lora_dropout": 0.0, "r": 8}
    return write_gpu_recipe(folder, 400, model=sections.get("model", {}), lora=lora, train=train, eval=evaluation)


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "toolkit", "run", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def finish(process: subprocess.Popen[str], seconds: float = 500) -> tuple[str, str]:
    try:
        return process.communicate(timeout=seconds)
    finally:
        process.kill()


def run(*words: str) -> str:
    process = start(*words)
    out, err = finish(process)
    assert process.returncode == 0, err
    return out


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()] if folder.metrics.is_file() else []


def after(folder: RunFolder, count: int, process: subprocess.Popen[str], then: Callable[[], object]) -> None:
    """Do something once there are `count` rows."""
    until = time.monotonic() + 400
    while len(rows(folder)) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    then()


def assert_near(folder: RunFolder, other: RunFolder) -> None:
    mine, theirs = rows(folder), rows(other)
    assert [row["update"] for row in mine] == [row["update"] for row in theirs]
    for row, its in zip(mine, theirs, strict=True):
        assert row.get("real_tokens") == its.get("real_tokens")
        for name in ("loss", "eval_loss"):
            if name in row:
                assert row[name] == pytest.approx(its[name], rel=TOLERANCE), (name, row["update"])


@pytest.mark.parametrize("kind", KINDS)
def test_two_cards_train_what_one_does(tmp_path: Path, kind: str) -> None:
    for word, package in NEEDS.items():
        if word in kind and not is_installed(package):
            pytest.skip(f"needs {package}")
    recipe, one, two = str(recipe_of(tmp_path, kind)), RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    run(recipe, "--out", str(one.path))
    said = run(recipe, "--out", str(two.path), "--gpus", "2")
    assert "ranks      2 processes, one on each GPU" in said
    assert_near(two, one)
    if "recorded" in kind:
        replayed, _, counted = said.partition("graphs     ")[2].rpartition("graphs     ")[2].partition(" of ")
        assert int(replayed.split()[-1].replace(",", "")) > 0, (replayed, counted)
    shared = json.loads(two.summary.read_text())["shared_updates"]
    assert 0.5 < shared["balance"] <= 1 and 0 < shared["summing"] < shared["update"] and shared["waiting"] >= 0
    seconds = [round(sum(row["seconds"] for row in rows(f)[-20:] if "seconds" in row), 3) for f in (one, two)]
    print(kind, seconds, shared)


def first_gradients(folder: RunFolder) -> Any:
    """All gradients of update 1, laid end to end: what Adam's first moment holds after it, up to a factor."""
    last = folder.last_checkpoint()
    assert last is not None and checkpoints.read(last).update == 1
    state = torch.load(last / "optimizer.pt", map_location="cpu", weights_only=True)["state"]
    return torch.cat([state[number]["exp_avg"].flatten().double() for number in sorted(state)])


@pytest.mark.parametrize("kind", ["peft, padded", "compiled, recorded", "unsloth, packed"])
def test_gradients_of_two_cards_are_those_of_one(tmp_path: Path, kind: str) -> None:
    if "unsloth" in kind and not is_installed("unsloth"):
        pytest.skip("needs unsloth")
    recipe, one, two = str(recipe_of(tmp_path, kind)), RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    few = ("--set", "train.max_steps=1", "--set", "train.save_steps=1", "--set", "eval.generate=0")
    run(recipe, "--out", str(one.path), *few)
    run(recipe, "--out", str(two.path), "--gpus", "2", *few)
    mine, theirs = first_gradients(two), first_gradients(one)
    cosine = float(mine @ theirs / (mine.norm() * theirs.norm()))
    print(kind, "gradients' cosine", cosine, "ratio of norms", float(mine.norm() / theirs.norm()))
    assert cosine > 0.999 and float(mine.norm() / theirs.norm()) == pytest.approx(1, rel=0.01)


def test_stopped_on_two_cards_it_goes_on_with_one(tmp_path: Path) -> None:
    recipe = str(recipe_of(tmp_path, "peft, padded"))
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    run(recipe, "--out", str(whole.path), "--gpus", "2")
    process = start(recipe, "--out", str(stopped.path), "--gpus", "2")
    after(stopped, 12, process, lambda: process.send_signal(signal.SIGINT))
    _, err = finish(process, 60)
    assert process.returncode == 130 and err.count("saved; go on with:") == 1 and "Traceback" not in err, err
    last = stopped.last_checkpoint()
    assert last is not None and 0 < checkpoints.read(last).update < UPDATES
    run(recipe, "--resume", str(stopped.path))
    assert_near(stopped, whole)


def test_a_killed_rank_ends_the_run_within_a_minute_and_it_goes_on(tmp_path: Path) -> None:
    recipe, folder = str(recipe_of(tmp_path, "peft, padded")), RunFolder(tmp_path / "killed")
    whole = RunFolder(tmp_path / "whole")
    process = start(recipe, "--out", str(folder.path), "--gpus", "2")

    def kill_second() -> None:
        ranks = [child for child in psutil.Process(process.pid).children() if "toolkit" in " ".join(child.cmdline())]
        max(ranks, key=lambda child: child.pid).kill()

    after(folder, 15, process, kill_second)
    began = time.monotonic()
    _, err = finish(process, 60)
    assert process.returncode == 1 and time.monotonic() - began < 60 and "Traceback" not in err, err
    assert "rank 1 (process " in err and "SIGKILL" in err and "kept: " in err
    last = folder.last_checkpoint()
    assert last is not None and checkpoints.read(last).update >= 10
    run(recipe, "--resume", str(folder.path), "--gpus", "2")
    run(recipe, "--out", str(whole.path), "--gpus", "2")
    assert_near(folder, whole)


def test_more_ranks_than_cards_are_refused(tmp_path: Path) -> None:
    recipe, count = recipe_of(tmp_path, "peft, padded"), torch.cuda.device_count()
    process = start(str(recipe), "--gpus", str(count + 1))
    _, err = finish(process, 120)
    assert process.returncode == 2 and err.count("error: ") == 1 and f"wanted --gpus {count} at most" in err
