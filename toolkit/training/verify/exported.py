"""`toolkit verify --export`: the files of an export, read again and held to the hashes in its record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from toolkit.errors import RunError
from toolkit.exports import ExportFolder
from toolkit.hashes import sha256_of
from toolkit.manifest import listed
from toolkit.progress import Bar
from toolkit.runs import ADAPTER, RunFolder, beside
from toolkit.training.verify.run import keep_record
from toolkit.words import counted, typed

COMPARED = {
    "passed": ", and were compared with the trained model",
    "failed": "; their comparison with the trained model has failed",
    "unverified": "; they were never compared with the trained model",
}


@dataclass(frozen=True, slots=True)
class Looked:
    """A file, and what is wrong with it, or nothing."""

    name: str
    wrong: str = ""


def export_of(path: Path) -> tuple[ExportFolder, RunFolder | None]:
    """The export that is meant by an export folder, or a run folder with one in export/; and that run.

    Raises `RunError` where there is none.
    """
    for folder, run in ((path, path.parent), (path / "export", path)):
        if (folder / "export.json").is_file():
            return ExportFolder(folder), RunFolder(run) if (run / "recipe.toml").is_file() else None
    if not path.exists():
        raise RunError(f"{path}: no such folder{beside(path)}")
    elsewhere = sorted(found.parent.name for found in path.glob("*/export.json"))
    if elsewhere:
        raise RunError(f"{path / 'export'}: no export here; wanted one of {', '.join(elsewhere)}")
    raise RunError(f"{path}: no export here (no export.json); make one with: {typed('export', path, '--gguf', 'q8_0')}")


def look(export: ExportFolder, run: RunFolder | None, console: Console) -> Iterator[Looked]:
    """Every file of an export's record, and its adapter, one by one."""
    record = export.record()
    total = sum(file.bytes for file in record.files)
    with Bar(console, "bytes read", total, amount="share") as bar:
        for file in record.files:
            yield Looked(file.name, _wrong(export.path / file.name, file.bytes, file.sha256))
            bar.advance(file.bytes)
    for name, digest in record.beside.items():
        yield Looked(name, _wrong(export.path / name, None, digest))
    theirs = export.adapter / ADAPTER[1]
    made = listed(run.adapter).get(ADAPTER[1]) if run is not None else None
    if theirs.is_file() and made is not None:
        found = sha256_of(theirs)
        other = f"of another adapter than {run.adapter if run else ''} (SHA-256 {made} wanted, {found} found)"
        yield Looked(f"{export.adapter.name}/{ADAPTER[1]}", "" if found == made else other)


def _wrong(path: Path, size: int | None, wanted: str) -> str:
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            return f"{found:,} bytes, {size:,} were written"
        digest = sha256_of(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"can't be read: {(error.strerror or str(error)).lower()}"
    return "" if digest == wanted else f"changed since it was written (SHA-256 {wanted} wanted, {digest} found)"


def verify_files(path: Path, console: Console) -> tuple[bool, str]:
    """Check the files of an export, and write what was found into the run's verification.json where it is a run's.

    Returns whether all are as written, and a sentence. Raises `RunError` where there is no export.
    """
    export, run = export_of(path)
    status = export.record().status
    console.print(f"verifying  {export.path}: its files against export.json", markup=False)
    found = []
    for looked in look(export, run, console):
        mark, what = ("DIFFERENT", f": {looked.wrong}") if looked.wrong else ("same", "")
        console.print(f"{mark:<10} {looked.name}{what}", markup=False)
        found.append(looked)
    if not found:
        raise RunError(f"{export.record_path}: names no files")
    wrong = [file for file in found if file.wrong]
    told = f"{counted(len(found), 'file')} of {export.path}"
    if wrong:
        said = f"not what was exported: {export.path / wrong[0].name}: {wrong[0].wrong}"
        said += f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    else:
        said = f"verified: {told} {'is' if len(found) == 1 else 'are'} as written"
        said += COMPARED[status]
    if run is not None:
        record = {
            "verified": datetime.now(UTC).isoformat(timespec="seconds"),
            "folder": export.path.name,
            "verdict": "different" if wrong else "equal",
            "sentence": said,
            "files": [{"name": file.name, "wrong": file.wrong} for file in found],
        }
        keep_record(run, "export", record, console)
    return not wrong, said
