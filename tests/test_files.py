"""Files and folders appear whole or not at all, and what a killed process left of them goes away."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from toolkit.cache import keep, kept
from toolkit.files import clear_all_leftovers, clear_leftovers, is_held, locked, set_aside, whole_folder, write_text

WRITER = """
import sys, time
from pathlib import Path
from toolkit.files import whole_folder
with whole_folder(Path(sys.argv[1])) as work:
    (work / "half").write_text("half")
    print(flush=True)
    time.sleep(60)
"""


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_what_a_killed_process_left_goes_away_and_what_is_being_written_stays(tmp_path: Path) -> None:
    target = tmp_path / "made"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    clear_leftovers(target)
    assert len(hidden(tmp_path)) == 1, "it is at work"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    (tmp_path / ".made.settings").mkdir()
    with whole_folder(target) as work:
        assert sorted(hidden(tmp_path)) == sorted([work.name, ".made.settings"])
        (work / "all").write_text("all")
    assert hidden(tmp_path) == [".made.settings"] and [path.name for path in target.iterdir()] == ["all"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_that_can_not_be_written_leaves_the_one_before(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "x"
    write_text(path, "before", durable=durable)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800", durable=durable)
    assert path.read_text() == "before" and hidden(tmp_path) == []


def test_a_new_file_takes_no_other_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file system knows no hard links."""

    def refused(*paths: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    for place in (tmp_path / "linked", tmp_path / "copied"):
        write_text(place / "x", "first", durable=True, new=True)
        with pytest.raises(FileExistsError):
            write_text(place / "x", "second", new=True)
        assert [path.read_text() for path in place.iterdir()] == ["first"]
        monkeypatch.setattr(os, "link", refused)


def test_a_file_that_is_taken_for_a_leftover_as_it_is_begun_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the moments at which it is there and at which it is held."""
    made, mkstemp = list[str](), tempfile.mkstemp

    def watched(**where: Any) -> tuple[int, str]:
        handle, name = mkstemp(**where)
        if not made:
            clear_leftovers(tmp_path / "x")
        made.append(name)
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", watched)
    write_text(tmp_path / "x", "text", new=True)
    assert (tmp_path / "x").read_text() == "text" and len(made) == 2 and hidden(tmp_path) == []


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with locked(tmp_path) as mine:
        assert mine and is_held(tmp_path)
        with locked(tmp_path) as another:
            assert not another
    assert not is_held(tmp_path)


def test_what_is_kept_is_read_only_as_it_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "x"
    assert kept(path) is None
    keep(path, "text\nwith ä\n")
    assert kept(path) == "text\nwith ä\n"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kept(path) is None, place
    path.write_bytes(whole[:-1])
    assert kept(path) is None


def test_what_is_damaged_is_kept_under_another_name(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "file").write_text(text)
        assert set_aside(tmp_path / "x") == tmp_path / "damaged-x"
    assert (tmp_path / "damaged-x" / "file").read_text() == "second"


def test_what_killed_processes_were_writing_in_a_folder_goes_and_what_is_at_work_stays(tmp_path: Path) -> None:
    for name in (".export.json.making-1", ".x.making-2", "mine", ".hidden"):
        (tmp_path / name).write_text("half")
    with locked(tmp_path / ".x.making-2"):
        clear_all_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".x.making-2", "mine", ".hidden"}
