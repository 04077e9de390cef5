"""Hashes that say whether a token table still fits. Nothing heavy is imported: `toolkit plan` asks this first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cache import remembered_sha256
from toolkit.chats import BUILTIN
from toolkit.data.commits import commit_of
from toolkit.data.held_out import Part, divided, sources_of
from toolkit.data.sources import local_files, named_files
from toolkit.data.tokenizers import tokenizer_key
from toolkit.errors import DataError
from toolkit.hashes import sha256_of, sha256_of_text
from toolkit.versions import installed

if TYPE_CHECKING:
    from toolkit.data.template import ChatTemplate
    from toolkit.recipe.schema import Recipe, SourceSection

LIBRARIES = ("transformers", "tokenizers", "jinja2")  # that turn chats into tokens
_BUILTIN_OPTIONS = ("split", "size", "seed", "domains", "kinds", "max_tools", "decisions", "rationales", "purposes")


def digest(value: Any) -> str:
    """16 hex digits of anything that JSON can write."""
    return sha256_of_text(json.dumps(value, sort_keys=True))[:16]


def data_key(sources: Sequence[SourceSection]) -> str:
    """What the sources hold: the content of local files, the built-in generator and its options, name, split and
    commit of hub data, which the hub is asked for. Raises `DataError` for missing files."""
    return digest([_source_key(source) for source in sources])


def source_files(sources: Sequence[SourceSection]) -> dict[str, str]:
    """SHA-256 of each local file that the sources name, by that name. Raises `DataError` for missing files."""
    found = (named for source in sources for named in (named_files(source) or {}).items())
    return {str(Path(name).expanduser()): file_hash(path) for name, path in found}


def table_key(recipe: Recipe, folder: Path, part: Part, template: ChatTemplate | None = None) -> str:
    """Everything that decides what is in a token table: data, tokenizer and template, settings, code, versions.

    Of the data only what the part is read from, and of the held-out chats their number only where it divides that: a
    recipe that is measured on other chats has the table of its training chats already.
    The template's text is made from the tokenizer's files, the settings and our own templates, which are all here;
    another `template` than that one counts with its own text.
    """
    found = installed(LIBRARIES)
    settings = {
        "part": part,
        "call_format": recipe.data.call_format,
        "tool_prompt": recipe.data.tool_prompt,
        "thinking": recipe.data.thinking,
        **({"template": template.text} if template is not None else {}),
        "max_length": recipe.train.max_length,
        **({"holdout": recipe.eval.holdout} if divided(recipe) else {}),
    }
    return digest(
        [
            data_key(sources_of(recipe, part)),
            tokenizer_key(folder),
            settings,
            code_key(),
            [found.get(package, "") for package in LIBRARIES],
        ]
    )


def code_key() -> str:
    """Hash of the modules and templates that can change a table: a stale one is worse than one made anew."""
    here = Path(__file__).parent
    files = [here.parent / "chats.py", *sorted(here.glob("*.py")), *sorted((here / "templates").glob("*.jinja"))]
    return digest([sha256_of(file) for file in files])


def file_hash(path: Path) -> str:
    """Hash of a file's content. Remembered by path, size and time of change, so a big file is read once."""
    path = path.resolve()
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    return remembered_sha256(path)


def _source_key(source: SourceSection) -> dict[str, Any]:
    common: dict[str, Any] = {"format": source.format, "weight": source.weight, "limit": source.limit}
    if columns := source.columns.model_dump(exclude_none=True):
        common["columns"] = columns
    if source.source == BUILTIN:
        from toolkit.world import fingerprint

        options = {name: getattr(source, name) for name in _BUILTIN_OPTIONS}
        return {**common, **options, "builtin": fingerprint()}
    if files := local_files(source.place):
        return {**common, "files": [[file.name, file_hash(file)] for file in files]}
    if source.config is not None:
        common["config"] = source.config
    at = {"commit": commit} if (commit := commit_of(source)) is not None else {"revision": source.revision}
    return {**common, "hub": source.source, "split": source.split, **at}
