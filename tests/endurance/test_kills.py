"""A run that is killed at any moment is not lost: `--resume` ends with the same weights, losses and export.

`pytest -m endurance tests/endurance` (or `make test-slow`) kills 200 of them, 50 by each of four seeds, and prints what
it found. Half are killed at a moment of time, half as they touch a file, of each stage as often. Each try has random
numbers of its own, so that one can be made again alone: `kills(world, 1, seed, before=TRY - 1)`.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.endurance.world import FINISHED, World, is_clear


def stage(world: World, text: str) -> str:
    """Where a run was when it was killed, by what it had left and printed."""
    run = world.run
    if not (run / "recipe.toml").is_file():
        return "start-up" if "chats      " in text or "engine     " not in text else "table"
    if any((run / "checkpoints" / ".part").glob("*")):
        return "checkpoint"
    if (run / "done.json").is_file():
        return "end"
    if (run / "summary.json").is_file():
        making = any(run.glob(".export*")) or (run / "export").is_dir() or "report     " in text
        return "export" if making else "report"
    if (run / ".adapter.part").is_dir():
        return "adapter"
    if (run / "adapter").is_dir():
        return "summary"
    lines = text.splitlines()
    if lines and lines[-1].startswith("decoding"):
        return "evaluation"
    return "training"


TOUCHED = {  # by what is in a path, the first that fits; all others are of the start-up
    "table": "/tables/",
    "checkpoint": "/checkpoints",
    "evaluation": "/evaluation",
    "training": "metrics.jsonl",
    "adapter": "adapter.part",
    "summary": "summary.json",
    "report": "report.html",
    "export": "export",
    "end": "done.json",
}


def a_moment(events: list[str], draw: random.Random) -> int:
    """The number of an event, counted from 1: of any stage that has some, then of any of its events."""
    stages: dict[str, list[int]] = {}
    for number, path in enumerate(events, 1):
        told = next((name for name, part in TOUCHED.items() if part in f"/{path}"), "start-up")
        stages.setdefault(told, []).append(number)
    return draw.choice(stages[draw.choice(sorted(stages))])


def kill_and_resume(world: World, draw: random.Random) -> str:
    """Kill a run once or more at random moments, resume it until it ends, and compare. Returns the stage."""
    shutil.rmtree(world.run, ignore_errors=True)
    fresh = world.folder / "fresh-cache" if draw.random() < 0.25 else None
    if fresh is not None:
        shutil.rmtree(fresh, ignore_errors=True)
    words = ("run", world.recipe, "--out", "run")
    if draw.random() < 0.5:
        killed = world.forks(*words, at=a_moment(world.fresh if fresh else world.events, draw), cache=fresh)
    else:
        killed = world.forks(*words, die_after=draw.uniform(0.01, world.seconds), cache=fresh)
    if killed.code != -9:
        assert killed.code == 0, killed.text
        return ""  # it was done before
    where = stage(world, killed.text)
    if not (world.run / "recipe.toml").is_file():
        outcome = world.forks(*words, cache=fresh)
    else:
        if draw.random() < 0.25:
            world.resume(at=a_moment(world.events, draw))
        outcome = world.resume()
    assert outcome.code == 0 or FINISHED in outcome.text, (where, outcome.text)
    assert is_clear(outcome), (where, outcome.text)
    assert not world.wrong(), (where, world.wrong(), outcome.text)
    assert FINISHED in world.resume().text, where
    left = [*world.run.rglob(".*"), *world.run.rglob("*.part")]
    assert not left, (where, left)
    return where


def kills(world: World, wanted: int, seed: int, before: int = 0) -> Counter[str]:
    """Kill `wanted` runs, by the tries after the first ones `before`; how many of each stage there were."""
    found: Counter[str] = Counter()
    for number in itertools.count(before + 1):
        if where := kill_and_resume(world, random.Random(f"{seed} {number}")):
            found[where] += 1
        if found.total() == wanted:
            return found
    raise AssertionError("unreachable")


@pytest.mark.slow
def test_killed_runs_are_resumed(world: World) -> None:
    assert kills(world, 1, seed=1).total() == 1


@pytest.mark.endurance
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_fifty_killed_runs_are_resumed(world: World, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    found = kills(world, 50, seed)
    with capsys.disabled():
        told = ", ".join(f"{count} in {where}" for where, count in found.most_common())
        print(f"\n50 kills, none of the runs lost, all with the same weights, losses and GGUF: {told}")
    assert {"training", "checkpoint", "export"} <= set(found)


@pytest.mark.slow
def test_the_stage_is_told_by_what_is_left(world: World, tmp_path: Path) -> None:
    """As the figures go by it."""
    shutil.rmtree(world.run, ignore_errors=True)
    assert stage(world, "") == "start-up"
    shutil.copytree(world.reference, world.run)
    told = [stage(world, "")]
    for name in ("done.json", "summary.json", "adapter"):
        path = world.run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        told.append(stage(world, "update 6/6"))
    assert told == ["end", "export", "summary", "training"]
