"""What a chat template writes around an assistant's turn, found by rendering small conversations.

Nothing is read from the template's source: what counts is what it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.data.call_forms import FORMS
from toolkit.data.call_parsing import parse
from toolkit.data.calls import with_call_ids
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
    JSON objects. `form`: the call format of `toolkit.data.call_parsing` that reads its calls, None where none does.

    `by_turns`: no fixed header opens the turns, so where one begins is found by rendering the chat up to it; `header`
    is then what there is of one. `call_ids`: calls have to have ids of nine characters. `call_end`: closes a turn of
    calls, where another token does: FunctionGemma's open the results, after which the answer goes on in the same turn.
    """

    header: str
    end: str
    end_id: int
    tool_role: bool
    tools: bool
    why_no_tools: str = ""
    reasoning: bool = False
    json_calls: bool = False
    form: str | None = None
    by_turns: bool = False
    call_ids: bool = False
    call_end: str = ""
    call_end_id: int | None = None

    def closing(self, *, calls: bool) -> str:
        """What closes an answer with calls, or without."""
        return self.call_end if calls and self.call_end else self.end

    @property
    def closes(self) -> dict[int, str]:
        """The tokens that close an answer, by id."""
        return {self.end_id: self.end, **({self.call_end_id: self.call_end} if self.call_end_id is not None else {})}


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
        raise DataError(_failure(tokenizer, error)) from error


def _failure(tokenizer: Any, error: Exception) -> str:
    """What is said of a template that failed: of its own words about a chat those, else the file, and the line of what
    is no Jinja."""
    from jinja2.exceptions import TemplateError, TemplateSyntaxError

    if isinstance(error, TemplateSyntaxError):
        return f"{_home(tokenizer, error.lineno)} is no valid Jinja: {error.message}"
    home = "the chat template" if type(error) is TemplateError else _home(tokenizer)
    return f"{home} refuses this chat: {error}"


def _home(tokenizer: Any, line: int = 0) -> str:
    """The chat template, by its file where that is known, and a line of it."""
    folder = Path(str(getattr(tokenizer, "name_or_path", "") or ""))
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            if line and name.endswith(".jinja"):
                return f"{folder / name}:{line}: the chat template"
            return f"{folder / name}: {f'line {line} of ' if line else ''}the chat template"
    return f"{f'line {line} of ' if line else ''}the chat template"


def probe(tokenizer: Any) -> Markup:
    """Learn a tokenizer's markup. Raises `DataError` when the template can't be understood."""
    tokenizer = with_thinking(tokenizer)
    user, answer = _message("user", _U1), _message("assistant", _A1)
    prompt = render(tokenizer, [user], add_generation_prompt=True)
    full = render(tokenizer, [user, answer])
    special = special_tokens(tokenizer)
    header = _header(render(tokenizer, [user]), prompt, special)
    if not full.startswith(prompt) or _A1 not in full[len(prompt) :]:
        raise _puzzling(f"the header {header!r} of its generation prompt does not open the assistant's turn in a chat")
    rest = full[full.index(_A1, len(prompt)) + len(_A1) :]
    ends = [token for token in special if token and rest.lstrip().startswith(token)]
    if not ends:
        raise _puzzling("no special token ends the assistant's turn")
    token = max(ends, key=len)
    end = rest[: rest.index(token)] + token
    more = [user, answer, _message("user", _U2)]
    longer = render(tokenizer, [*more, _message("assistant", _A2)])
    by_turns = not header or longer.count(header) != 2 or any(f"{one}{end}" not in longer for one in (_A1, _A2))
    if by_turns and f"{_A2}{end}" not in _after(tokenizer, more, longer):
        raise _puzzling("in a longer chat its assistant turns look different")
    found = Markup(header, end, special[token], tool_role=False, tools=False, by_turns=by_turns)
    found = replace(found, tool_role=_takes_tool_role(tokenizer, found), reasoning=_takes_reasoning(tokenizer))
    why = _why_no_tools(tokenizer, found)
    for other in (replace(found, call_ids=True), _with_open_calls(tokenizer, found)) if why else ():
        if not _why_no_tools(tokenizer, other):
            found, why = other, ""
            break
    if why:
        return replace(found, why_no_tools=why)
    form, json_calls = _call_form(tokenizer, found)
    return replace(found, tools=True, form=form, json_calls=json_calls)


def _header(question: str, prompt: str, special: Mapping[str, int]) -> str:
    """What a generation prompt has that a question alone has not: from the place where they part, or the special token
    there, on."""
    place = next((at for at, both in enumerate(zip(question, prompt, strict=False)) if both[0] != both[1]), None)
    if place is None:
        return prompt[len(question) :]
    begun = [at for token in special if token for at in _places(prompt, token) if at < place < at + len(token)]
    return prompt[min(begun, default=place) :]


def _places(text: str, token: str) -> Iterator[int]:
    at = text.find(token)
    while at >= 0:
        yield at
        at = text.find(token, at + 1)


def _after(tokenizer: Any, before: list[Message], text: str, **options: Any) -> str:
    """What a chat's text has behind the prompt that the messages before its end make; empty where it is no prefix."""
    try:
        prompt = render(tokenizer, before, add_generation_prompt=True, **options)
    except DataError:
        return ""
    return text[len(prompt) :] if text.startswith(prompt) else ""


def _takes_tool_role(tokenizer: Any, found: Markup) -> bool:
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
    if found.by_turns:
        return _RESULT in text and _A2 in _after(tokenizer, messages[:3], text)
    return _RESULT in text and text.count(found.header) == 2


def _takes_reasoning(tokenizer: Any) -> bool:
    answer = {"role": "assistant", "content": f"{_A1}</think>{_A2}", "reasoning_content": _THOUGHT}
    try:
        text = render(tokenizer, [_message("user", _U1), answer])
    except DataError:
        return False
    return _THOUGHT in text and answer["content"] in text


def _why_no_tools(tokenizer: Any, found: Markup) -> str:
    """What is missing when the template is handed a tool and a call, or an empty string."""
    call = {"role": "assistant", "content": "", "tool_calls": [_PROBE_CALL]}
    messages = [_message("user", _U1), call, _message("tool", _RESULT), _message("assistant", _A2)]
    if found.call_ids:
        messages = with_call_ids(messages)
    header, end = found.header, found.end
    try:
        text = render(tokenizer, messages, tools=[_PROBE_TOOL])
        asked = render(tokenizer, messages[:1], tools=[_PROBE_TOOL], add_generation_prompt=True)
        if found.by_turns:
            called = render(tokenizer, messages[:2], tools=[_PROBE_TOOL])
            parts = ((messages[:1], called), (messages[:3], text))
            turns = [_after(tokenizer, before, whole, tools=[_PROBE_TOOL]) for before, whole in parts]
            turns = [turn for turn in turns if turn]
        else:
            asked, turns = text.split(header)[0], text.split(header)[1:]
    except DataError as error:
        return str(error)
    if _TOOL not in asked or _ABOUT not in text:
        return "the chat template does not describe the tools that it is given"
    if len(turns) != 2 or _TOOL not in turns[0].split(end)[0] or _VALUE not in turns[0].split(end)[0]:
        return "the chat template does not write the assistant's tool calls"
    return "" if _RESULT in text else "the chat template does not write tool results"


def _with_open_calls(tokenizer: Any, found: Markup) -> Markup:
    """The same for a template that closes calls by a token of their own and writes no header before the answer to their
    results; `found` itself where it does not."""
    if found.by_turns:
        return found
    messages = [_message("user", _U1), {"role": "assistant", "content": "", "tool_calls": [_PROBE_CALL]}]
    try:
        called = render(tokenizer, messages, tools=[_PROBE_TOOL])
    except DataError:
        return found
    turn = _after(tokenizer, messages[:1], called, tools=[_PROBE_TOOL]).rstrip()
    ends = [(token, number) for token, number in special_tokens(tokenizer).items() if token and turn.endswith(token)]
    if found.end in turn or not ends:
        return found
    token, number = max(ends, key=lambda end: len(end[0]))
    other = replace(found, by_turns=True, call_end=token, call_end_id=number)
    return replace(other, tool_role=_takes_tool_role(tokenizer, other))


def _call_form(tokenizer: Any, found: Markup) -> tuple[str | None, bool]:
    """Which call format reads a call with text as the template writes it, and whether it is a JSON object there."""
    call = {"role": "assistant", "content": _A1, "tool_calls": [_PROBE_CALL]}
    said = _called(tokenizer, found, call)
    json_calls = written_calls(said.rpartition(_A1)[2]) == [(_TOOL, {"stone": _VALUE})]
    if _VALUE not in said:  # it writes a call only where there is no text
        said = _called(tokenizer, found, {**call, "content": ""})
    for form in (*FORMS, "hermes", "llama"):
        parsed = parse(said, form, [_PROBE_TOOL])
        if parsed.in_format and [(one.name, one.arguments) for one in parsed.calls] == [(_TOOL, {"stone": _VALUE})]:
            return form, json_calls
    return None, json_calls


def _called(tokenizer: Any, found: Markup, call: Message) -> str:
    """An assistant's turn with a call, between its header and its end; empty where it can't be rendered."""
    messages = [_message("user", _U1), call]
    if found.call_ids:
        messages = with_call_ids(messages)
    try:
        text = render(tokenizer, messages, tools=[_PROBE_TOOL])
    except DataError:
        return ""
    if found.by_turns:
        turn = _after(tokenizer, messages[:1], text, tools=[_PROBE_TOOL])
    else:
        turn = text.rpartition(found.header)[2]
    return turn.partition(found.closing(calls=True))[0]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _puzzling(why: str) -> DataError:
    return DataError(
        f"the chat template can't be understood: {why}; "
        "toolkit needs a template whose prompt begins what it writes of the answer, and that closes an answer with a "
        "special token"
    )
