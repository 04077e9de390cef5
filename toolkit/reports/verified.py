"""The section of a report about the last `toolkit verify`: of the first updates, and of the exported files."""

from __future__ import annotations

from typing import Any

from toolkit.errors import InputError
from toolkit.pages.page import table
from toolkit.records import read_object
from toolkit.reports.extras import Extra
from toolkit.runs import RunFolder

TITLE = "Verification"


def sections(folder: RunFolder) -> list[Extra]:
    """One section, or none where the run was never verified."""
    try:
        record = read_object(folder.verification)
        parts = [_training(record["training"])] if "training" in record else []
        parts += [_files(record["export"])] if "export" in record else []
    except InputError as error:
        return [Extra(TITLE, [f"Can't be read: {error}"], [])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [Extra(TITLE, [f"Can't be read: {error!r}"], [])]
    if not parts:
        return []
    return [
        Extra(TITLE, [line for part in parts for line in part.sentences], [t for part in parts for t in part.tables])
    ]


def _training(record: dict[str, Any]) -> Extra:
    sentences = [
        f"{record['verified']}: {record['sentence']}.",
        f"Wanted: {record['wanted']}.",
        *(f"Not as it was: {one['name']}: {one['then']} then, {one['now']} now." for one in record["differences"]),
    ]
    body = [
        [f"{one['update']:,}", str(one["name"]), f"{one['then']:.9g}", f"{one['now']:.9g}"] for one in record["numbers"]
    ]
    return Extra(TITLE, sentences, [table(["update", "number", "then", "now"], body)] if body else [])


def _files(record: dict[str, Any]) -> Extra:
    body = [[str(one["name"]), str(one["wrong"]) or "as written"] for one in record["files"]]
    return Extra(
        TITLE,
        [f"{record['verified']}, files of {record['folder']}/: {record['sentence']}."],
        [table(["file", "what was found"], body, words=True)],
    )
