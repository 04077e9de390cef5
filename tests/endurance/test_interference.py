"""What other processes and the machine do to a run: it goes on, or stops with what was kept and the way on.

`pytest -m endurance tests/endurance` (or `make test-slow`) has it happen 80 times and prints what came of it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter

import pytest

from tests.endurance.test_kills import a_moment
from tests.endurance.world import FINISHED, World, is_clear
from toolkit.hashes import sha256_of

HARMS = ("full disk", "empty cache", "turn clock", "failed read")


def harmed(world: World, harm: str, draw: random.Random) -> str:
    """Have something happen to a run in any stage, and see it through. Returns how the run itself ended."""
    shutil.rmtree(world.run, ignore_errors=True)
    words = ("run", world.recipe, "--out", "run")
    touched = world.reads if harm == "failed read" else world.events
    at = draw.randrange(len(touched)) + 1 if harm == "failed read" else a_moment(touched, draw)
    outcome = world.forks(*words, at=at, harm=harm)
    told = f"{harm} at {at}: {touched[at - 1]}"
    assert is_clear(outcome), (told, outcome.text)
    if harm not in ("full disk", "failed read"):
        assert outcome.code == 0, (told, outcome.text)
    if outcome.code:
        why = ("space",) if harm == "full disk" else ("nput/output error", "can't be read")
        assert any(word in outcome.text for word in why) and "error: " in outcome.text, (told, outcome.text)
        begun = (world.run / "recipe.toml").is_file()
        outcome = world.resume() if begun else world.forks(*words)
        assert is_clear(outcome) and (outcome.code == 0 or FINISHED in outcome.text), (told, outcome.text)
        how = "stopped, and went on"
    else:
        how = "went on"
    if not (world.run / "report.html").is_file():
        world.resume()  # one that found no room is only said
    assert not world.wrong(), (told, world.wrong(), outcome.text)
    return f"{harm}: {how}"


def tries(world: World, wanted: int, seed: int) -> Counter[str]:
    draw = random.Random(seed)
    return Counter(harmed(world, HARMS[number % len(HARMS)], draw) for number in range(wanted))


@pytest.mark.slow
def test_runs_that_something_happens_to_end_the_same(world: World) -> None:
    assert tries(world, len(HARMS), seed=1).total() == len(HARMS)


@pytest.mark.endurance
def test_eighty_runs_that_something_happens_to(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = tries(world, 80, seed=2)
    with capsys.disabled():
        print(f"\n80 runs, none lost: {', '.join(f'{count} {how}' for how, count in found.most_common())}")


@pytest.mark.slow
def test_two_runs_that_start_at_the_same_moment_are_two_runs(world: World) -> None:
    """They make one token table and, without --out, take the same name."""
    words = ("run", world.recipe, "--no-export")
    runs, cache = world.folder / "runs", world.folder / "shared-cache"
    for folder in (runs, cache):
        shutil.rmtree(folder, ignore_errors=True)
    both = world.forks.together(words, words, cache=cache)
    assert [outcome.code for outcome in both] == [0, 0], [outcome.text for outcome in both]
    made = sorted(runs.iterdir())
    assert [path.name for path in made] == ["tiny", "tiny-2"]
    wanted = sha256_of(world.reference / "adapter" / "adapter_model.safetensors")
    assert {sha256_of(path / "adapter" / "adapter_model.safetensors") for path in made} == {wanted}
    assert len(list((cache / "tables").iterdir())) == 2  # to train on, and held out; nothing half-made

    named = world.forks.together((*words, "--out", "both"), (*words, "--out", "both"))
    assert sorted(outcome.code for outcome in named) == [0, 2]
    assert any("took this folder a moment ago" in outcome.text or "exists already" in outcome.text for outcome in named)


@pytest.mark.slow
def test_two_exports_at_the_same_moment_leave_one_that_is_whole(world: World) -> None:
    target = world.folder / "exported"
    shutil.rmtree(target, ignore_errors=True)
    words = ("export", "reference", "--gguf", "q8_0", "--no-merged", "--no-verify", "--out", target.name)
    both = world.forks.together(words, words)
    assert sorted(outcome.code for outcome in both) == [0, 2], [outcome.text for outcome in both]
    lost = next(outcome for outcome in both if outcome.code)
    # it says so as it ends, or as it begins where the other is whole by then
    told = ("name another folder with --out", "written, but never compared with the trained model")
    assert is_clear(lost) and any(text in lost.text for text in told) and "--out" in lost.text
    assert world.forks("verify", target.name, "--export").code == 0
    assert not list(world.folder.glob(".exported*"))


@pytest.mark.slow
def test_files_from_the_future_or_the_past_are_resumed_as_any(world: World) -> None:
    """A run folder that was copied, or written while the clock was wrong."""
    for moment in (0, 2**32):
        shutil.rmtree(world.run, ignore_errors=True)
        shutil.copytree(world.reference, world.run)
        for name in ("summary.json", "done.json", "adapter", "checkpoints/checkpoint-6"):
            path = world.run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (*world.run.rglob("*"), world.run, world.folder / "chats.jsonl"):
            os.utime(path, (moment, moment))
        outcome = world.resume()
        assert outcome.code == 0 and not world.wrong(), (moment, world.wrong(), outcome.text)
