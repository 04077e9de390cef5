"""What a user should know of a GGUF before it answers: whether it is known to be the trained model."""

from __future__ import annotations

from pathlib import Path

from toolkit.data.template import ChatTemplate
from toolkit.errors import RunError
from toolkit.export_report import VerifyReport
from toolkit.exports import ExportFolder, ExportRecord
from toolkit.words import typed


def standing(path: Path, template: str) -> list[str]:
    """Lines on a GGUF, each with the next step: that it did not pass a verification, and that the chat template in it
    is not the one that its run was trained with. Empty where all is well."""
    folder = ExportFolder(path.parent)
    if not folder.record_path.is_file():
        return ["unverified: no export.json beside the file says what it was made from"]
    record = folder.record()
    kept = ChatTemplate.read(folder.path)
    notes = [_verified(path, folder, record)]
    if kept is not None and kept.text != template:
        notes.append(
            "the chat template in the file is not the one that its run was trained with, so prompts are other than in "
            f"training; export it again: {export_again(record)}"
        )
    return [note for note in notes if note]


def export_again(record: ExportRecord) -> str:
    """The command that makes an export's files anew."""
    types = ",".join(file.type.lower() for file in record.files if file.kind == "gguf")
    return typed("export", record.run or record.adapter or record.base.name, "--gguf", types, "--force")


def _verified(path: Path, folder: ExportFolder, record: ExportRecord) -> str:
    again = typed("export", folder.path, "--verify-only")
    file = next((one for one in record.files if one.name == path.name), None)
    if file is None or file.bytes != path.stat().st_size:
        return f"unverified: not the file that {folder.record_path} tells of; export it again: {export_again(record)}"
    if failed := _failures(folder, path.name, record):
        return f"FAILED its verification, so it is not shown to be the trained model: {failed}; again: {again}"
    if record.status == "unverified":
        return f"unverified: not compared with the trained model; do it: {again}"
    return ""


def _failures(folder: ExportFolder, name: str, record: ExportRecord) -> str:
    """The checks that failed for a file, or for all files, by name; none where only another file's failed."""
    try:
        report = VerifyReport.load(folder.path)
    except RunError:
        return "its report can't be read" if record.status == "failed" else ""
    return ", ".join(dict.fromkeys(check.name for check in report.failures if check.file in (None, name)))
