"""Which commit of a hub's data set is meant: a branch moves, and chats that are trained on must not move with it.

The hub is asked once in a process. A run keeps the answer in its recipe.toml, as `commit` beside `revision`
(`toolkit.data.pinning`), so that whatever reads its data again, to resume it or for what it held out, reads the same.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import hub
from toolkit.cache import cache_root, keep, kept
from toolkit.hashes import sha256_of_text
from toolkit.terminal import warn

if TYPE_CHECKING:
    from toolkit.recipe.schema import SourceSection

_WAIT = 10.0  # seconds for an answer
_SHOWN = 10  # characters
_looked_up: dict[tuple[str, str | None], str | None] = {}


def commit_of(spec: SourceSection) -> str | None:
    """The commit that `spec`, a data set of the hub, means: as it says itself, else by its branch or tag.

    Where the hub can't be asked, that which was last read is taken, and said; None where there is none.
    """
    if spec.commit is not None:
        return spec.commit
    if spec.revision is not None and hub.COMMIT.fullmatch(spec.revision):
        return spec.revision
    return look_up(spec.source, spec.revision)


def look_up(name: str, revision: str | None) -> str | None:
    """Where a branch or tag of a data set is on the hub, or was when it was last read; main where none is given."""
    if (name, revision) not in _looked_up:
        _looked_up[name, revision] = _asked(name, revision)
    return _looked_up[name, revision]


def forget() -> None:
    """Ask the hub again, as another process would."""
    _looked_up.clear()


def _asked(name: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi  # a second

    place = _place(name, revision)
    known = kept(place)
    branch = revision or "main"
    try:
        found = HfApi().dataset_info(name, revision=revision, timeout=_WAIT, expand=["sha"]).sha
    except hub.errors() as error:
        if known is not None:
            day = time.strftime("%Y-%m-%d", time.localtime(place.stat().st_mtime))
            told = f"the hub can't be asked where {branch} is: {hub.reason(error)}"
            warn(f"{name}: {told}; taken as it was read on {day}, at commit {known[:_SHOWN]}")
        return known
    if known not in (None, found) and found is not None:
        warn(f"{name}: {branch} has moved on the hub, from commit {known[:_SHOWN]} to {found[:_SHOWN]}")
    return found


def remember(spec: SourceSection, commit: str) -> None:
    """Keep the commit whose files are being read, for when the hub can't be asked; not an older one, of a run."""
    if _looked_up.get((spec.source, spec.revision)) == commit:
        keep(_place(spec.source, spec.revision), commit)


def _place(name: str, revision: str | None) -> Path:
    return cache_root() / "hub-data" / f"{sha256_of_text(json.dumps([name, revision]))[:16]}.commit"
