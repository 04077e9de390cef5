"""How a GGUF is prompted: what its own template takes, and what is to be said about the file before it is used."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.data.calls import CallFormat, Messages, to_messages
from toolkit.data.chats import Chat, Turn
from toolkit.errors import ModelError
from toolkit.evaluation.columns import Rendering
from toolkit.export.ggufraw import read_raw
from toolkit.export.layout import ExportFolder
from toolkit.inference.gguf import require_gguf

TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True, slots=True)
class Prompting:
    """template: the file's own. options: what goes to it beside messages and tools. notes: what users should know."""

    template: str
    rendering: Rendering
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def call_format(self) -> CallFormat:
        return self.rendering.call_format

    def given(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> Messages:
        """Messages and tools for the template."""
        chat = Chat(tuple(turns), tuple(tools))
        native = self.rendering.call_format == "native"
        return to_messages(chat, self.rendering.call_format, self.rendering.tool_prompt, tool_role=native)


def prompting_of(path: Path) -> Prompting:
    """Of a GGUF file. Raises `ModelError` when it has no template."""
    template = template_in(path)
    if not template:
        raise ModelError(f"{path}: has no chat template; take the instruct version of the model")
    folder = ExportFolder(path.parent)
    record = folder.record() if folder.record_path.is_file() else None
    if record is not None and record.data is not None:
        rendering = Rendering.of(record.data)
    else:
        rendering = Rendering("native" if "tools" in template else "json", "signature", "template")
    options = {"enable_thinking": False} if rendering.thinking == "split" else {}
    return Prompting(template, rendering, options)


def template_in(path: Path) -> str:
    """The chat template in a GGUF, empty where it has none. Raises `ModelError` when the file can't be read."""
    require_gguf(path)
    try:
        return read_raw(path).text(TEMPLATE)
    except KeyError:
        return ""
    except (ValueError, OverflowError, MemoryError, struct.error) as error:
        raise ModelError(f"{path}: not a readable GGUF ({error})") from None
