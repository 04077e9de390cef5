"""Where an export may go, and that an older one is there until the new one is."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.export.shapes import adapter, base_model
from toolkit.errors import RunError
from toolkit.export.destination import being_compared, new_folder, require_free
from toolkit.export.export import export
from toolkit.exports import ExportFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder that was never compared."""
    root = tmp_path_factory.mktemp("place")
    adapter(root / "adapter", base_model(root / "base"))
    return export(root / "adapter", gguf=["q8_0"], out=root / "out", merged=False, verify=False).path


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "out"))


def set_status(folder: Path, status: str) -> None:
    path = folder / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": status}))


def refusal(folder: Path) -> str:
    with pytest.raises(RunError) as caught:
        require_free(folder, force=False)
    told = str(caught.value)
    assert told.startswith(f"{folder}: ") and "\n" not in told
    return told.removeprefix(f"{folder}: ")


def test_a_finished_export_names_both_ways_on(folder: Path) -> None:
    again = f"toolkit export --verify-only {folder}"
    assert refusal(folder).startswith(f"written, but never compared with the trained model: {again} goes on; --force ")
    for status in ("passed", "failed"):
        set_status(folder, status)
        assert refusal(folder) == (
            f"exported already, and its check {status}; {again} compares its files again, "
            "--force makes it anew, --out names another folder"
        )
    require_free(folder, force=True)


def test_a_half_made_one_names_the_way_on(folder: Path) -> None:
    gguf = ExportFolder(folder).ggufs()[0]
    gguf.write_bytes(gguf.read_bytes()[:1000])
    assert refusal(folder).startswith(f"a half-made export ({gguf.name} is not there whole); --force makes it anew")
    gguf.unlink()
    assert refusal(folder).startswith(f"a half-made export ({gguf.name} is not there whole)")
    (folder / "export.json").write_text("{")
    assert refusal(folder).startswith("a half-made export (can't be read")
    (folder / "export.json").unlink()
    assert refusal(folder).startswith("a half-made export (no export.json); --force makes it anew")
    require_free(folder, force=True)


def test_files_of_others_are_never_replaced(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(RunError, match=r"holds notes\.txt, which no export wrote; name another folder with --out"):
            require_free(folder, force=force)
    with pytest.raises(RunError, match="is a file; name a folder with --out"):
        require_free(folder / "notes.txt", force=True)
    require_free(tmp_path / "new", force=False)
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "empty", force=False)


def test_a_place_where_no_folder_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is merged."""
    (tmp_path / "file").write_text("")
    assert refusal(Path("/dev/null")) == "is a file; name a folder with --out"
    why = f"can't be made, {tmp_path}/file is a file; name another folder with --out"
    assert refusal(tmp_path / "file" / "out") == refusal(tmp_path / "file" / "deep" / "out") == why
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    for name in ("out", "new/out"):
        assert refusal(tmp_path / name) == f"can't be made, {tmp_path} can't be written; name another folder with --out"


def test_the_old_one_stays_until_the_new_one_is_whole(folder: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(folder, replace=True) as work:
        (work / "half").write_text("")
        raise RuntimeError
    assert (folder / "export.json").is_file() and [path.name for path in folder.parent.iterdir()] == ["out"]
    with new_folder(folder, replace=True) as work:
        (work / "whole").write_text("")
        assert (folder / "export.json").is_file()
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_a_replacement_that_fails_or_is_killed_between_its_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = folder.with_name(".out.old")
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name.startswith(".out.making-"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="No space"), new_folder(folder, replace=True):
        pass
    assert (folder / "export.json").is_file() and not old.exists()
    monkeypatch.undo()
    folder.rename(old)  # killed here
    with pytest.raises(RunError, match="never compared"):
        require_free(folder, force=False)
    assert (folder / "export.json").is_file() and not old.exists()


def test_a_replacement_at_work_is_not_undone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another export looks at the place between its two steps."""
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        if self.name.startswith(".out.making-"):
            require_free(folder, force=False)
            assert not folder.exists() and folder.with_name(".out.old").is_dir()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    with new_folder(folder, replace=True) as work:
        (work / "whole").write_text("")
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_cleared_and_one_at_work_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".out.making-abcdefgh"
    left.mkdir()
    mine = tmp_path / ".out.settings"
    mine.mkdir()
    with new_folder(tmp_path / "out", replace=False) as first:
        assert not left.exists() and mine.exists()
        with new_folder(tmp_path / "out", replace=False) as second:
            assert first.is_dir()
            (second / "export.json").write_text("{}")
        with (
            pytest.raises(RunError, match="another export was finished there"),
            new_folder(tmp_path / "out", replace=False),
        ):
            pass
        (first / "x").write_text("")
        (tmp_path / "out" / "export.json").unlink()  # an empty folder is no export
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


@pytest.mark.parametrize("replace", [False, True])
def test_of_exports_that_end_at_the_same_moment_one_gets_the_name_and_is_whole(tmp_path: Path, replace: bool) -> None:
    def export(target: Path, name: str, ready: threading.Barrier) -> str:
        try:
            with new_folder(target, replace=replace) as work:
                (work / "export.json").write_text(name)
                ready.wait()
        except RunError as error:
            assert "another" in str(error) and "name another folder with --out" in str(error)
            return ""
        return name

    with ThreadPoolExecutor(2) as pool:
        for number in range(200):
            target, ready = tmp_path / f"out{number}", threading.Barrier(2, timeout=300)
            if replace:
                target.mkdir()
                (target / "export.json").write_text("old")
            done = [one.result() for one in [pool.submit(export, target, name, ready) for name in ("one", "two")]]
            assert (target / "export.json").read_text() in set(done) - {""}, done
            assert replace or "" in done, done
            assert [path.name for path in tmp_path.glob(f"*{target.name}*")] == [target.name]
            shutil.rmtree(target)


def test_files_that_are_compared_are_not_replaced_meanwhile(folder: Path) -> None:
    busy = "another command compares or replaces its files just now"
    with being_compared(folder):
        with pytest.raises(RunError, match=busy):
            require_free(folder, force=True)
        with pytest.raises(RunError, match=busy), new_folder(folder, replace=True) as work:
            (work / "new").write_text("")
        with pytest.raises(RunError, match=busy), being_compared(folder):
            pass
    assert (folder / "export.json").is_file() and [path.name for path in folder.parent.iterdir()] == ["out"]
    require_free(folder, force=True)


def test_a_link_is_followed(finished: Path, tmp_path: Path) -> None:
    """To an empty folder, to none yet and to an older export, which stays where it is."""
    source = finished.parent / "adapter"
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        link = tmp_path / f"{name}-link"
        link.symlink_to(name)
        for force in (False, True):
            export(source, gguf=["q8_0"], out=link, merged=False, verify=False, force=force)
            assert link.is_symlink() and (tmp_path / name / "export.json").is_file()


def test_names_that_no_folder_can_have_are_told_before_any_work(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, told in (("loop", "a link that leads to itself"), ("x" * 300, "File name too long")):
        with pytest.raises(RunError, match=f"{name}: can't be made, {told}; name another folder with --out"):
            export(finished.parent / "adapter", gguf=["q8_0"], out=tmp_path / name, verify=False)
