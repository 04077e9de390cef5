"""Every engine there is, by its name. To add one, add it here."""

from __future__ import annotations

import platform

from toolkit import __version__
from toolkit.engines.base import Engine
from toolkit.engines.compiled import Compiled
from toolkit.engines.peft import Peft
from toolkit.engines.unsloth import Unsloth
from toolkit.versions import installed

PLAIN = Peft()  # trains all weights too
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (PLAIN, Compiled(), Unsloth())}


def versions() -> dict[str, str]:
    """Installed versions of what decides a run's result."""
    names = dict.fromkeys(name for engine in ENGINES.values() for name in engine.distributions)
    return {"toolkit": __version__, "python": platform.python_version(), **installed(names)}
