"""Which versions of packages are installed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata


@cache  # what is read to know it is a page of text each
def version_of(name: str) -> str | None:
    """The version of an installed distribution; None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def every() -> dict[str, str]:
    """The version of every distribution that is installed, by its name."""
    found = {one.name: one.version for one in metadata.distributions() if one.name}
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def installed(names: Iterable[str]) -> dict[str, str]:
    """The version of each distribution, in the order given; those that are not there are left out."""
    return {name: version for name in names if (version := version_of(name)) is not None}
