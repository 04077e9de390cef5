"""What a user should know of a GGUF before it answers: whether it is known to be the trained model."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import RunError
from toolkit.export.layout import ExportFolder
from toolkit.export.verify.report import VerifyReport


def standing(path: Path) -> str:
    """A line on a GGUF that did not pass a verification, with the next step; empty for one that did."""
    folder = ExportFolder(path.parent)
    if not folder.record_path.is_file():
        return "unverified: no export.json beside the file says what it was made from"
    record = folder.record()
    again = f"toolkit export {folder.path} --verify-only"
    file = next((one for one in record.files if one.name == path.name), None)
    if file is None or file.bytes != path.stat().st_size:
        return f"unverified: not the file that {folder.record_path} tells of; export it again"
    failed = _failures(folder, path.name)
    if record.status == "failed" or failed:
        return f"FAILED its verification, so it is not the trained model: {failed or 'see the report'}; again: {again}"
    if record.status == "unverified":
        return f"unverified: not compared with the trained model; do it: {again}"
    return ""


def _failures(folder: ExportFolder, name: str) -> str:
    """The checks that failed for a file, or for all files, by name."""
    try:
        report = VerifyReport.load(folder.path)
    except RunError:
        return ""
    return ", ".join(dict.fromkeys(check.name for check in report.failures if check.file in (None, name)))
