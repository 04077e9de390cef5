"""A checkpoint that is not whole, byte for byte, is passed over for the one before it, and said to be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from toolkit.manifest import NAME
from toolkit.recipe import dump
from toolkit.recipe.schema import Recipe
from toolkit.records import write_json
from toolkit.runs import RunFolder
from toolkit.training import checkpoints
from toolkit.training.checkpoints import BEST, SAVED, carried, drop_old, newest_whole, writing


def put(folder: RunFolder, update: int, *, best: bool = False) -> Path:
    """What a trainer leaves, written as a run's trainer writes it."""
    if best:
        save_file({"a": torch.full((3,), float(update))}, folder.checkpoints / BEST)
    target = folder.checkpoints / f"checkpoint-{update}"
    with writing(target, carried(folder, lambda: dump(Recipe()), lambda: {"measured": update})) as above:
        work = above / target.name
        work.mkdir()
        save_file({"a": torch.arange(20.0) + update}, work / "adapter_model.safetensors")
        (work / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({"state": torch.arange(50.0) + update, "of": name}, work / name)
        (work / "trainer_state.json").write_text(json.dumps({"global_step": update}))
    return target


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path / "run", dump(Recipe()))
    write_json(run.environment, {"engine": "peft"})
    run.checkpoints.mkdir()
    put(run, 2)
    put(run, 4, best=True)
    return run


def test_the_newest_and_what_it_carries(folder: RunFolder) -> None:
    found, passed = newest_whole(folder)
    assert found is not None and not passed
    assert (found.path.name, found.update, found.note) == ("checkpoint-4", 4, "")
    assert found.progress == {"measured": 4}
    assert found.saved["recipe"] == dump(Recipe()) and found.saved["environment"] == {"engine": "peft"}
    assert (found.path / BEST).read_bytes() == (folder.checkpoints / BEST).read_bytes()
    assert not (folder.checkpoints / "checkpoint-2" / BEST).exists()
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [BEST, "checkpoint-2", "checkpoint-4"]
    put(folder, 10)
    drop_old(folder.checkpoints, 2)
    assert [path.name for path in folder.all_checkpoints()] == ["checkpoint-4", "checkpoint-10"]


def flip(path: Path, place: int) -> None:
    content = path.read_bytes()
    place %= len(content)
    path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])


FILES = ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", SAVED]
HARMS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"garbage"),
    "first byte": lambda path: flip(path, 0),
    "a byte": lambda path: flip(path, path.stat().st_size // 2),
    "last byte": lambda path: flip(path, -1),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", [*FILES, BEST, NAME])
def test_damage_of_any_kind_to_any_file(folder: RunFolder, name: str, harm: str) -> None:
    newest = folder.checkpoints / "checkpoint-4"
    HARMS[harm](newest / name)
    found, passed = newest_whole(folder)
    if (name, harm) == (NAME, "gone"):
        assert found is not None and found.path == newest and "no manifest" in found.note
        return
    assert found is not None and found.path.name == "checkpoint-2"
    assert [path for path, _ in passed] == [newest]
    assert passed[0][1].startswith(f"{name}: ")


def test_a_file_too_many(folder: RunFolder) -> None:
    """The trainer would load whole weights from a file of that name."""
    (folder.checkpoints / "checkpoint-4" / "model.safetensors").write_bytes(b"weights")
    found, passed = newest_whole(folder)
    assert found is not None and found.update == 2
    assert passed[0][1] == "model.safetensors: not written with the others"


def test_a_checkpoint_under_another_number(folder: RunFolder) -> None:
    shutil.copytree(folder.checkpoints / "checkpoint-2", folder.checkpoints / "checkpoint-9")
    found, passed = newest_whole(folder)
    assert found is not None and found.update == 4
    assert passed[0][1] == "trainer_state.json: of update 2, not of 9"


def test_none_is_whole(folder: RunFolder) -> None:
    for path in folder.all_checkpoints():
        (path / "optimizer.pt").unlink()
    found, passed = newest_whole(folder)
    assert found is None and [path.name for path, _ in passed] == ["checkpoint-4", "checkpoint-2"]


def without_manifests(folder: RunFolder) -> None:
    """As checkpoints were before they had one."""
    for path in folder.all_checkpoints():
        for name in (NAME, SAVED, BEST):
            (path / name).unlink(missing_ok=True)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_an_old_checkpoint_is_checked_as_far_as_its_form_tells(folder: RunFolder, name: str, harm: str) -> None:
    without_manifests(folder)
    found, passed = newest_whole(folder)
    assert found is not None and found.update == 4 and found.saved == {} and not passed
    assert "only its structure was checked" in found.note
    HARMS[harm](folder.checkpoints / "checkpoint-4" / name)
    found, passed = newest_whole(folder)
    if name == "adapter_model.safetensors" and harm in ("a byte", "last byte"):
        assert found is not None and found.update == 4, "nothing in such a file tells of it, hence the note"
        return
    assert found is not None and found.update == 2
    assert passed[0][1].startswith(f"{name}: ")


def test_a_checkpoint_that_fails_halfway_leaves_the_one_of_its_name(folder: RunFolder) -> None:
    before = {path.name: path.read_bytes() for path in (folder.checkpoints / "checkpoint-4").iterdir()}
    with pytest.raises(OSError, match="disk"), writing(folder.checkpoints / "checkpoint-4", lambda work: None) as above:
        (above / "checkpoint-4").mkdir()
        (above / "checkpoint-4" / "optimizer.pt").write_bytes(b"half")
        raise OSError("disk")
    assert {path.name: path.read_bytes() for path in (folder.checkpoints / "checkpoint-4").iterdir()} == before
    assert not (folder.checkpoints / checkpoints.PART).exists()
