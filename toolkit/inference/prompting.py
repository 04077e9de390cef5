"""How a GGUF is prompted: by its own template, or as an older export of ours was trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.chats import Chat, Turn
from toolkit.data.call_forms import form_in
from toolkit.data.calls import Messages, to_messages
from toolkit.data.render import Renderer
from toolkit.data.template import ChatTemplate, Rendering, rendering_of
from toolkit.errors import ModelError
from toolkit.exports import ExportFolder
from toolkit.gguf_raw import read_raw
from toolkit.inference.gguf_check import check_gguf
from toolkit.inference.named_models import columns_of, renderer_of, settle
from toolkit.inference.standing import export_again

TEMPLATE = "tokenizer.chat_template"
_DAY = re.compile(r"""set date_string = ["']([^"']*)["']""")


@dataclass(frozen=True, slots=True)
class Prompting:
    """template: the file's own. renderer: what writes the prompts where that template can't."""

    template: str
    rendering: Rendering
    renderer: Renderer | None = None

    @property
    def call_format(self) -> str:
        """What reads the calls (`toolkit.data.call_parsing`)."""
        if self.renderer is not None:
            return self.renderer.call_form
        return form_in(self.template) if self.rendering.call_format == "native" else self.rendering.call_format

    @property
    def options(self) -> dict[str, Any]:
        """What the template is told so that llama.cpp writes what training wrote."""
        return trained_date(self.template) if self.renderer is None else {}

    def given(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> Messages:
        """Messages and tools for the file's template. Raises `ModelError` when it can't be given tools."""
        if tools and "tools" not in self.template:
            raise ModelError(
                "the chat template in this file knows no tools, so none can be offered; export a model that was "
                "trained to call tools"
            )
        return to_messages(Chat(tuple(turns), tuple(tools)), call_ids="tool_call_id" in self.template)

    def rendered(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        """The prompt that `renderer` writes. Raises `DataError`."""
        assert self.renderer is not None
        return self.renderer.prompt(Chat((*turns, Turn("assistant")), tuple(tools), where="chat"), len(turns))


def trained_date(template: str) -> dict[str, str]:
    """The day that Llama 3.1's template writes unless it is told another, which llama.cpp does: today."""
    day = _DAY.search(template)
    return {"date_string": day[1]} if day and "strftime_now" not in template else {}


def prompting_of(path: Path) -> Prompting:
    """Of a GGUF file. Raises `ModelError` when it can't be read or has no template."""
    template = template_in(path)
    folder = ExportFolder(path.parent)
    record = folder.record() if folder.record_path.is_file() else None
    if not template:
        again = f"export it again: {export_again(record)}" if record else "take a chat (instruct) model"
        raise ModelError(f"{path}: no chat template in it, so no chat can be put to it; {again}")
    kept = ChatTemplate.read(folder.path, Rendering.of(record.data)) if record and record.data else None
    if kept is None or kept.text is not None:
        return Prompting(template, rendering_of(template))

    return Prompting(template, kept.rendering, renderer_of(settle(columns_of([str(path)]))[0]))


def template_in(path: Path) -> str:
    """The chat template in a GGUF, empty where it has none. Raises `ModelError` when the file can't be read."""
    check_gguf(path)
    return str(read_raw(path).value(TEMPLATE) or "")
