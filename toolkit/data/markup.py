"""What a chat template writes around an assistant's turn, found by rendering small conversations.

Nothing is read from the template's source: what counts is what it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.rendered import written_calls
from toolkit.data.spending import LimitError
from toolkit.data.template import with_thinking
from toolkit.data.tokenizers import special_tokens
from toolkit.errors import DataError

_U1, _A1, _U2, _A2 = "quartz one", "amber two", "basalt three", "copper four"
_RESULT, _TOOL, _ABOUT, _VALUE = "granite five", "probe_slate", "Marble six", "onyx seven"
_THOUGHT = "chalk eight"
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": _TOOL,
        "description": _ABOUT,
        "parameters": {"type": "object", "properties": {"stone": {"type": "string"}}, "required": ["stone"]},
    },
}
_PROBE_CALL = {"type": "function", "function": {"name": _TOOL, "arguments": {"stone": _VALUE}}}

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Markup:
    """`header` opens an assistant's turn, which is what generation is prompted with; `end` closes it.

    `tool_role`: the template takes results as tool messages. `tools`: it describes tools and writes calls itself.
    `why_no_tools` says what the probe saw when it does not. `reasoning`: it writes the thought of an answer from a
    field of its own (`reasoning_content`), and then leaves the answer's text as it is. `json_calls`: it writes calls as
    JSON objects.
    """

    header: str
    end: str
    end_id: int
    tool_role: bool
    tools: bool
    why_no_tools: str = ""
    reasoning: bool = False
    json_calls: bool = False


def render(tokenizer: Any, messages: list[Message], **options: Any) -> str:
    """The chat template's text, as `tokenizer.apply_chat_template(messages, tokenize=False, **options)` writes it.

    `options`: `tools`, `add_generation_prompt` and whatever the template reads. Raises `DataError` when there is no
    template, when it refuses the messages, and when it loops or writes without end.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError("model.name: the tokenizer has no chat template; take the instruct version of the model")
    from toolkit.data.sandbox import render_template

    values = {"tools": None, "documents": None, "add_generation_prompt": False, **tokenizer.special_tokens_map}
    try:
        template = tokenizer.get_chat_template(None, options.get("tools"))
        return render_template(template, {**values, **options, "messages": messages})
    except LimitError:
        raise DataError(f"{_home(tokenizer)} loops or writes more than any chat needs: it is not used") from None
    except RecursionError:
        raise DataError(f"{_home(tokenizer)} calls itself without end: it is not used") from None
    except Exception as error:  # a program of somebody else's: it can raise anything
        raise DataError(f"the chat template refuses this chat: {error}") from error


def _home(tokenizer: Any) -> str:
    """The chat template, by its file where that is known."""
    folder = Path(str(getattr(tokenizer, "name_or_path", "") or ""))
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            return f"{folder / name}: the chat template"
    return "the chat template"


def probe(tokenizer: Any) -> Markup:
    """Learn a tokenizer's markup. Raises `DataError` when the template can't be understood."""
    tokenizer = with_thinking(tokenizer)
    user, answer = _message("user", _U1), _message("assistant", _A1)
    question = render(tokenizer, [user])
    prompt = render(tokenizer, [user], add_generation_prompt=True)
    if not prompt.startswith(question) or prompt == question:
        raise _puzzling("its generation prompt adds no header for the assistant")
    header = prompt[len(question) :]
    full = render(tokenizer, [user, answer])
    if not full.startswith(prompt) or _A1 not in full[len(prompt) :]:
        raise _puzzling(f"the header {header!r} of its generation prompt does not open the assistant's turn in a chat")
    rest = full[full.index(_A1, len(prompt)) + len(_A1) :]
    special = special_tokens(tokenizer)
    ends = [token for token in special if token and rest.lstrip().startswith(token)]
    if not ends:
        raise _puzzling("no special token ends the assistant's turn")
    token = max(ends, key=len)
    end = rest[: rest.index(token)] + token
    longer = render(tokenizer, [user, answer, _message("user", _U2), _message("assistant", _A2)])
    if longer.count(header) != 2 or any(f"{content}{end}" not in longer for content in (_A1, _A2)):
        raise _puzzling("in a longer chat its assistant turns look different")
    tool_role = _takes_tool_role(tokenizer, header)
    why = _why_no_tools(tokenizer, header, end)
    json_calls = not why and _writes_json_calls(tokenizer, header, end)
    return Markup(header, end, special[token], tool_role, not why, why, _takes_reasoning(tokenizer), json_calls)


def _takes_tool_role(tokenizer: Any, header: str) -> bool:
    messages = [
        _message("user", _U1),
        _message("assistant", _A1),
        _message("tool", _RESULT),
        _message("assistant", _A2),
    ]
    try:
        text = render(tokenizer, messages)
    except DataError:
        return False
    return _RESULT in text and text.count(header) == 2


def _takes_reasoning(tokenizer: Any) -> bool:
    answer = {"role": "assistant", "content": f"{_A1}</think>{_A2}", "reasoning_content": _THOUGHT}
    try:
        text = render(tokenizer, [_message("user", _U1), answer])
    except DataError:
        return False
    return _THOUGHT in text and answer["content"] in text


def _why_no_tools(tokenizer: Any, header: str, end: str) -> str:
    """What is missing when the template is handed a tool and a call, or an empty string."""
    call = {"role": "assistant", "content": "", "tool_calls": [_PROBE_CALL]}
    messages = [_message("user", _U1), call, _message("tool", _RESULT), _message("assistant", _A2)]
    try:
        text = render(tokenizer, messages, tools=[_PROBE_TOOL])
    except DataError as error:
        return str(error)
    if _TOOL not in text.split(header)[0] or _ABOUT not in text:
        return "the chat template does not describe the tools that it is given"
    turns = text.split(header)[1:]
    if len(turns) != 2 or _TOOL not in turns[0].split(end)[0] or _VALUE not in turns[0].split(end)[0]:
        return "the chat template does not write the assistant's tool calls"
    return "" if _RESULT in text else "the chat template does not write tool results"


def _writes_json_calls(tokenizer: Any, header: str, end: str) -> bool:
    call = {"role": "assistant", "content": _A1, "tool_calls": [_PROBE_CALL]}
    try:
        text = render(tokenizer, [_message("user", _U1), call], tools=[_PROBE_TOOL])
    except DataError:
        return False
    said = text.rpartition(header)[2].partition(end)[0].rpartition(_A1)[2]
    return written_calls(said) == [(_TOOL, {"stone": _VALUE})]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _puzzling(why: str) -> DataError:
    return DataError(
        f"the chat template can't be understood: {why}; "
        "toolkit needs a template that opens assistant turns with a fixed header and closes them with a special token"
    )
