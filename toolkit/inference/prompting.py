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
from toolkit.data.special_text import kept_as_text, pattern_of
from toolkit.data.template import ChatTemplate, Rendering, rendering_of
from toolkit.errors import ModelError
from toolkit.exports import ExportFolder
from toolkit.gguf_raw import RawGguf, read_raw
from toolkit.inference.gguf_check import TEMPLATE, check_gguf, read_key
from toolkit.inference.named_models import columns_of, renderer_of, settle
from toolkit.inference.standing import export_again

_NEVER_TEXT = (2, 3)  # types of tokens: unknown, control
_DAY = re.compile(r"""set date_string = ["']([^"']*)["']""")


@dataclass(frozen=True, slots=True)
class Prompting:
    """template: the file's own. special: finds its control tokens in a text. renderer: what writes the prompts where
    that template can't."""

    template: str
    rendering: Rendering
    special: re.Pattern[str]
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
        """Messages and tools for the file's template; control tokens in their text stay text. Raises `ModelError` when
        it can't be given tools."""
        if tools and "tools" not in self.template:
            raise ModelError(
                "the chat template in this file knows no tools, so none can be offered; export a model that was "
                "trained to call tools"
            )
        chat = kept_as_text(Chat(tuple(turns), tuple(tools)), self.special)
        return to_messages(chat, call_ids="tool_call_id" in self.template)

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
    check_gguf(path)
    header = read_raw(path)
    template = str(read_key(header, TEMPLATE) or "")
    folder = ExportFolder(path.parent)
    record = folder.record() if folder.record_path.is_file() else None
    if not template:
        again = f"export it again: {export_again(record)}" if record else "take a chat (instruct) model"
        raise ModelError(f"{path}: no chat template in it, so no chat can be put to it; {again}")
    kept = ChatTemplate.read(folder.path, Rendering.of(record.data)) if record and record.data else None
    special = _special(header)
    if kept is None or kept.text is not None:
        return Prompting(template, rendering_of(template), special)
    return Prompting(template, kept.rendering, special, renderer_of(settle(columns_of([str(path)]))[0]))


def _special(header: RawGguf) -> re.Pattern[str]:
    """Finds what llama.cpp takes for control tokens: those that the file says, and those whose look or use makes
    llama.cpp say so of a file that does not."""
    tokens: list[str] = [str(token) for token in read_key(header, "tokenizer.ggml.tokens") or ()]
    types: list[int] = read_key(header, "tokenizer.ggml.token_type") or []
    found = [token for token, kind in zip(tokens, types, strict=False) if kind in _NEVER_TEXT]
    found += [token for token in tokens if token.startswith("<|") and token.endswith("|>")]
    named = [read_key(header, f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos", "eot", "eom")]
    named = [tokens[number] for number in named if isinstance(number, int) and 0 <= number < len(tokens)]
    found += [token for token in named if token.startswith(("<", "["))]
    return pattern_of(found)
