"""Every engine there is, by its name. To add one, add it here."""

from __future__ import annotations

from toolkit.engines.base import Engine
from toolkit.engines.compiled import Compiled
from toolkit.engines.peft import Peft
from toolkit.engines.unsloth import Unsloth

PLAIN = Peft()  # trains all weights too
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (PLAIN, Compiled(), Unsloth())}
