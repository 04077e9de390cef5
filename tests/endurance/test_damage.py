"""Whatever is damaged in a run folder: the same weights after `--resume`, or a refusal that names the file.

`pytest -m endurance tests/endurance` (or `make test-slow`) makes 100 tries and prints what it found.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.endurance.world import FINISHED, World, is_clear
from toolkit.runs import ADAPTER

Harm = Callable[[Path, random.Random], object]


def a_byte(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content) or b"x")


def cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(max(1, len(content)))])


def block(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(max(1, len(content)))
    content[start : start + 512] = draw.randbytes(len(content[start : start + 512]))
    path.write_bytes(bytes(content))


def folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


HARMS: dict[str, Harm] = {
    "a byte": a_byte,
    "cut": cut,
    "empty": lambda path, draw: path.write_bytes(b""),
    "gone": lambda path, draw: path.unlink(),
    "zeros": lambda path, draw: path.write_bytes(bytes(path.stat().st_size)),
    "random block": block,
    "garbage after it": lambda path, draw: path.write_bytes(path.read_bytes() + draw.randbytes(99)),
    "a folder": folder,
}
# what a run that was stopped does not have yet
AFTER = ("adapter", "evaluation/after.jsonl", "summary.json", "report.html", "export", "done.json")
READERS = (
    ("report", "run", "--out", "page.html"),
    ("eval", "run", "--chats", "1", "--max-new-tokens", "2", "--no-base"),
    ("export", "run", "--out", "again", "--no-verify", "--no-merged", "--gguf", "q8_0"),
)


def damage_and_resume(world: World, draw: random.Random) -> str:
    """Damage a file, look at the run, resume it and compare. Returns how it ended."""
    shutil.rmtree(world.run, ignore_errors=True)
    shutil.rmtree(world.folder / "again", ignore_errors=True)
    shutil.copytree(world.reference, world.run)
    finished = draw.random() < 0.5
    if not finished:
        for name in AFTER:
            path = world.run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if draw.random() < 0.5:  # within training
            shutil.rmtree(world.run / "checkpoints" / "checkpoint-6")
    # one file of each folder is as likely as one of another
    folders = sorted({path.parent for path in world.run.rglob("*") if path.is_file()})
    path = draw.choice(sorted(one for one in draw.choice(folders).iterdir() if one.is_file()))
    harm = draw.choice(list(HARMS))
    told = f"{harm}: {path.relative_to(world.run)}, {'finished' if finished else 'stopped'}"
    before = path.read_bytes()
    HARMS[harm](path, draw)
    changed = not path.is_file() or path.read_bytes() != before

    for words in (("runs", "."), draw.choice(READERS)):
        looked = world.forks(*words)
        assert is_clear(looked), (told, words, looked.text)
        used = words[0] in ("eval", "export") and path in [world.run / "adapter" / name for name in ADAPTER]
        if changed and used:
            assert looked.code == 2 and path.name in looked.text, (told, words, looked.text)
    outcome = world.resume()
    assert is_clear(outcome), (told, outcome.text)
    if outcome.code == 0 or FINISHED in outcome.text:
        wrong = world.wrong()
        if wrong == "other losses" and path.name == "metrics.jsonl":
            # lines that are lost are said, and no other loss is another
            assert set(world.losses(world.run)) <= set(world.losses(world.reference)) or harm == "a byte", told
            wrong = ""
        assert not wrong, (told, wrong, outcome.text)
        return "nothing to mend" if FINISHED in outcome.text else "same weights"
    assert outcome.code == 2 and "run/" in outcome.text, (told, outcome.text)
    return "refused by name"


def tries(world: World, wanted: int, seed: int) -> Counter[str]:
    draw = random.Random(seed)
    return Counter(damage_and_resume(world, draw) for _ in range(wanted))


@pytest.mark.slow
def test_damaged_runs_end_with_the_same_weights_or_a_refusal(world: World) -> None:
    assert tries(world, 6, seed=1).total() == 6


@pytest.mark.endurance
def test_a_hundred_damaged_runs(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = tries(world, 100, seed=2)
    with capsys.disabled():
        told = ", ".join(f"{count} {how}" for how, count in found.most_common())
        print(f"\n100 damaged runs, no silent difference, no traceback: {told}")
    assert found["same weights"] > 30
