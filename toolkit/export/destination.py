"""Where an export goes: a folder that appears whole, alone or (--force) in the place of an older export."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import RunError
from toolkit.exports import ExportFolder
from toolkit.files import is_held, locked, making_folder, remove, remove_unless_held, unwritable
from toolkit.words import typed

_OURS = re.compile(
    r"adapter|merged|export\.json|README\.md|Modelfile|FAILED\.txt|chat_template\.jinja|tools\.json|.*\.gguf|"
    r"export_report\.(json|md|html)"
)

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}  # POSIX: what rename says where a folder with files has the name


def followed(target: Path) -> Path:
    """The folder that a name stands for: where it leads if it is a link, as no folder can be renamed to a link's name.

    Raises `RunError` for links that lead to one another, and for a name that no folder can have.
    """
    try:
        target.lstat()
        folder = target.resolve() if target.is_symlink() else target
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return target  # `require_free` says what stands in the way
    except (OSError, RuntimeError) as error:  # Python before 3.13 has the second for links that lead to one another
        why = getattr(error, "strerror", None) or "a link that leads to itself"
        raise RunError(f"{target}: can't be made, {why}; name another folder with --out") from None
    if folder.is_symlink():
        raise RunError(f"{target}: can't be made, a link that leads to itself; name another folder with --out")
    return folder


def require_free(target: Path, *, force: bool) -> None:
    """Raise `RunError` unless an export can go to `target`: what stands in the way, and the commands that go on.

    With `force` an older export may be there, finished or not; files of the user's own never.
    """
    if target.exists() and not target.is_dir():  # /dev/null is no file to Python
        raise RunError(f"{target}: is a file; name a folder with --out")
    if not (target.exists() or unwritable(target.parent)):
        _bring_back(target)
    if target.is_dir() and (names := sorted(path.name for path in target.iterdir())):
        if foreign := [name for name in names if not _OURS.fullmatch(name)]:
            raise RunError(f"{target}: holds {foreign[0]}, which no export wrote; name another folder with --out")
        if not force:
            raise RunError(f"{target}: {_state(target)}")
        if is_held(target):
            raise _busy(target)
    if why := unwritable(target.parent):  # it is made there, to take its name at the end
        raise RunError(f"{target}: can't be made, {why}; name another folder with --out")


@contextlib.contextmanager
def being_compared(target: Path) -> Iterator[None]:
    """Hold an export's folder while its files are compared, so that no other export takes their place meanwhile.

    Raises `RunError` where another command holds it.
    """
    with locked(target) as mine:
        if not mine:
            raise _busy(target)
        yield


def _busy(target: Path) -> RunError:
    return RunError(
        f"{target}: another command compares or replaces its files just now; wait for it, or name another folder "
        "with --out"
    )


def _state(target: Path) -> str:
    again = "--force makes it anew, --out names another folder"
    folder = ExportFolder(target)
    try:
        record = folder.record()
    except RunError as error:
        why = (
            "no export.json" if not folder.record_path.is_file() else str(error).removeprefix(f"{folder.record_path}: ")
        )
        return f"a half-made export ({why}); {again}"
    for file in record.files:
        path = target / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            return f"a half-made export ({file.name} is not there whole); {again}"
    verify = typed("export", "--verify-only", target)
    if record.status == "unverified" and any(file.kind == "gguf" for file in record.files):
        return f"written, but never compared with the trained model: {verify} goes on; {again}"
    done = "exported already" + (f", and its check {record.status}" if record.status != "unverified" else "")
    return f"{done}; {verify} compares its files again, {again}"


@contextlib.contextmanager
def new_folder(target: Path, *, replace: bool) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends well, and goes away when it fails.

    With `replace` a folder that is there already goes only once the new one stands in its place; without it, raises
    `RunError` when another export took the name meanwhile. What killed exports have left beside `target` goes first.
    """
    with making_folder(target) as work:
        remove_unless_held(_old(target))
        yield work
        work.chmod(0o755)
        if replace:
            _replace(target, work)
        else:
            _take(target, work)


def _take(target: Path, work: Path) -> None:
    """Give `work` the name, which may stand for an empty folder; the system lets one of two do it."""
    try:
        work.rename(target)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        raise RunError(
            f"{target}: another export was finished there a moment ago; name another folder with --out"
        ) from None


def _replace(target: Path, work: Path) -> None:
    old = _old(target)
    with contextlib.ExitStack() as held:
        try:
            if not held.enter_context(locked(target)):  # so that nobody takes it for what a killed export has left
                raise _busy(target)
            target.rename(old)
        except OSError as error:  # none was there, or another export stands between these two steps
            if error.errno not in {errno.ENOENT, *_TAKEN}:
                raise
        try:
            _take(target, work)
        except BaseException:
            with contextlib.suppress(OSError):
                old.rename(target)
            raise
        remove(old)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _bring_back(target: Path) -> None:
    """Undo a replacement that was killed between its two steps."""
    with contextlib.suppress(FileNotFoundError):
        if not target.exists() and not is_held(_old(target)):
            _old(target).rename(target)
