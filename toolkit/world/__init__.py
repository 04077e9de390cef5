"""The built-in chats: tool calling in a small simulated world, written for this project."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from toolkit.world import tools as _tools  # noqa: F401  (fills the register)
from toolkit.world.catalog import DOMAINS, MIX, SPLITS, TEST_MIX, TEST_SIZE, TRAINING_MIX
from toolkit.world.generate import chats
from toolkit.world.spec import TOOLS, Tool
from toolkit.world.world import World

__all__ = [
    "DOMAINS",
    "MIX",
    "SPLITS",
    "TEST_MIX",
    "TEST_SIZE",
    "TOOLS",
    "TRAINING_MIX",
    "Tool",
    "World",
    "chats",
    "either_way",
    "fingerprint",
]


def either_way(name: str) -> tuple[str, ...]:
    """Two arguments of a built-in tool that mean the same when they are exchanged; none for any other tool."""
    return TOOLS[name].either_way if name in TOOLS else ()


@cache
def fingerprint() -> str:
    """A hash over this package's own source files: chats of one fingerprint and one set of arguments are the same."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".toml"):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()
