"""The model hub: what was fetched is what it says it is, and its errors are one line.

huggingface_hub compares sizes of what it fetches, and no hashes; it names each file in its cache by the hash that the
hub gave: SHA-256 of large files, git's of small ones.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from toolkit.cache import remembered_sha256
from toolkit.errors import first_line
from toolkit.files import remove

LOGIN = "`hf auth login` or HF_TOKEN"
GATED = f"it is gated: accept its licence on the hub, and log in by {LOGIN}"
COMMIT = re.compile(r"[0-9a-f]{40}")
_PIECE = 1 << 20
_REPOSITORY = re.compile(r"models--[^/]+--[^/]+|datasets--[^/]+--[^/]+")


def errors() -> tuple[type[Exception], ...]:
    """All that huggingface_hub raises where the hub, the network or an answer is at fault; a RuntimeError where one of
    several uploads fails."""
    import httpx

    return (OSError, ValueError, RuntimeError, httpx.HTTPError)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of huggingface_hub."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def reason(error: BaseException) -> str:
    """Why the hub did not do what was asked, and what helps, in one line."""
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    for one in _chain(error):
        status = status_of(one)
        if isinstance(one, GatedRepoError):
            return GATED
        if isinstance(one, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set"
        if status == 401:
            return f"the hub knows no such token, or none was given: {LOGIN}"
        if status == 403:
            return f"the token may not do that; log in by {LOGIN} with one that may"
        if status == 429:
            return f"too many requests, says the hub (429); try again later, more are allowed with a token ({LOGIN})"
        if status is not None and status >= 500:
            return f"the hub fails ({status}); try again later"
    return first_line(error).split(". ")[0][:200]


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def remove_damaged(files: Iterable[Path]) -> str | None:
    """Compare files of the hub's cache with the hashes that they are named by, and remove the first that differs, so
    that it is fetched again; says which it was. Files that are not named so pass."""
    for file in files:
        stored = file.resolve()
        wanted = stored.name
        if stored.parent.name != "blobs" or not _REPOSITORY.fullmatch(stored.parent.parent.name):
            continue
        if re.fullmatch(r"[0-9a-f]{64}", wanted):
            found = remembered_sha256(stored)
        elif COMMIT.fullmatch(wanted):
            found = git_hash(stored)
        else:
            continue
        if found != wanted:
            remove(file)
            remove(stored)
            return (
                f"{file.name} has the hash {found[:16]}..., the hub says {wanted[:16]}...; it was removed, so try again"
            )
    return None


def git_hash(path: Path) -> str:
    """What git calls a file's content: SHA-1 over its length and bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            digest.update(data)
    return digest.hexdigest()


def git_hash_of(data: bytes) -> str:
    """`git_hash` of bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
