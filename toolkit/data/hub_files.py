"""Data sets of the hub, file by file: each is fetched when its rows are wanted, kept in the hub's cache, and read as a
local file is, a row at a time.

Which files a configuration and a split have, `datasets` says. Rows of other kinds of files, and splits as
`train[:1000]`, are read by `datasets` itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub
from toolkit.cache import cache_root, keep, kept
from toolkit.chats import BUILTIN
from toolkit.data.commits import commit_of, remember
from toolkit.data.readers import KINDS, PACKED, Placed, kind_of
from toolkit.environment import torch_unsaid
from toolkit.errors import DataError, did_you_mean
from toolkit.hashes import sha256_of_text
from toolkit.machine import is_short
from toolkit.progress import without_bars

if TYPE_CHECKING:
    from toolkit.recipe.schema import SourceSection

_URL = re.compile(r"hf://datasets/(?P<repo>[^/]+/[^/@]+)@(?P<commit>[^/]+)/(?P<name>.+)")
_PLAIN_SPLIT = re.compile(r"[\w.-]+")
_OPTIONS = {"field": None, "sep": ",", "delimiter": None, "names": None, "column_names": None, "skiprows": None}
"""What a data set may say of how its files are read, with the values that our readers take for granted."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of each split, as they lie in a commit; `plain`: whether our readers read them as `datasets` would."""

    commit: str
    splits: Mapping[str, Sequence[str]]
    plain: bool = True


def hub_files(spec: SourceSection) -> Iterator[tuple[str, Path | Iterator[Placed]]]:
    """(name, local file, or rows that `datasets` reads) of what a source names on the hub, one after the other.

    Raises `DataError` with the reason for what can't be fetched, and with the nearest name for a configuration or a
    split that is not there.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    files = _found(spec)
    if not files.plain or not _PLAIN_SPLIT.fullmatch(spec.split):
        yield f"{spec.source}:{spec.split}", _rows(spec)
        return
    if spec.split not in files.splits:
        near = did_you_mean(spec.split, files.splits)
        raise DataError(f'{spec.source}: no split "{spec.split}"{near or f"; there is {_listed(files.splits)}"}')
    for name in files.splits[spec.split]:
        yield f"{spec.source}/{name}", _fetched(spec, files.commit, name)


def _found(spec: SourceSection) -> Files:
    """Asked of the hub, or remembered where it can't be reached."""
    commit = commit_of(spec)
    asked = json.dumps([spec.source, spec.config, commit or spec.revision])
    place = cache_root() / "hub-data" / f"{sha256_of_text(asked)[:16]}.json"
    try:
        files = _ask(spec)
    except DataError:
        raise
    except Exception as error:  # datasets raises a dozen unrelated types, all of which mean that there is no data
        if is_short(error):
            raise
        if isinstance(error, hub.errors()) and (known := kept(place)) is not None:
            return Files(**json.loads(known))
        raise DataError(_unreachable(spec, error)) from error
    keep(place, json.dumps(asdict(files)))
    if commit is not None:
        remember(spec, commit)
    return files


def _ask(spec: SourceSection) -> Files:
    import datasets

    try:
        with without_bars(), torch_unsaid():
            builder: Any = datasets.load_dataset_builder(spec.source, spec.config, revision=_revision(spec))
    except ValueError as error:
        names = re.findall(r"'([^']+)'", str(error).partition("[")[2].partition("]")[0])
        if "Config name is missing" in str(error):
            raise DataError(f"{spec.source}: config has to be given, one of {_listed(names)}") from None
        if "BuilderConfig" in str(error) and "not found" in str(error):
            near = did_you_mean(spec.config or "", names) or f"; there is {_listed(names)}"
            raise DataError(f"{spec.source}: no config {json.dumps(spec.config)}{near}") from None
        raise
    commit, plain = "", all(getattr(builder.config, key, usual) == usual for key, usual in _OPTIONS.items())
    splits: dict[str, list[str]] = {}
    for split, urls in (builder.config.data_files or {}).items():
        for url in urls:
            match = _URL.fullmatch(str(url))
            plain = plain and match is not None and kind_of(Path(match["name"])) is not None
            if match is not None:
                commit = match["commit"]
                splits.setdefault(str(split), []).append(match["name"])
    return Files(commit, splits, plain and bool(splits))


def _revision(spec: SourceSection) -> str | None:
    return commit_of(spec) or spec.revision


def _fetched(spec: SourceSection, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(spec.source, name, repo_type="dataset", revision=commit))
    except hub.errors() as error:
        raise DataError(f"{spec.source}/{name}: can't be fetched from the hub: {hub.reason(error)}") from error
    if wrong := hub.remove_damaged([path]):
        raise DataError(f"{spec.source}: {wrong}")
    return path


def _rows(spec: SourceSection) -> Iterator[Placed]:
    """Rows as `datasets` reads them."""
    import datasets

    try:
        with torch_unsaid():
            rows: Any = datasets.load_dataset(spec.source, spec.config, split=spec.split, revision=_revision(spec))
    except Exception as error:  # as above
        if is_short(error):
            raise
        raise DataError(_unreachable(spec, error)) from error
    yield from enumerate(rows, 1)


def _unreachable(spec: SourceSection, error: Exception) -> str:
    if "is a gated dataset" in str(error):  # in the words of datasets, which drops the error that it came from
        return f"{spec.source}: {hub.GATED}"
    why = hub.reason(error).rstrip(".")
    return (
        f"{spec.source}: the data set can't be loaded from the hub: {why}. It needs network and the "
        f'right name, config, split ("{spec.split}") and revision; without network give a local {" or ".join(KINDS)} '
        f"file (plain, {' or '.join(PACKED)}) or {BUILTIN}"
    )


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    shown = list(names)[:10]
    return ", ".join(json.dumps(name) for name in shown) + (", ..." if len(names) > 10 else "")
