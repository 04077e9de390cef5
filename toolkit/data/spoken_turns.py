"""Turns as rows say them, before they are a chat: calls with their ids, results with the id that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.chats import Role, ToolCall, Turn, split_thought
from toolkit.data.jsontext import dumps, refuse_deep
from toolkit.data.mending import mend_arguments
from toolkit.data.notes import Remarks, RowError, shown
from toolkit.data.schemas import Tools
from toolkit.errors import did_you_mean
from toolkit.words import counted


@dataclass(frozen=True, slots=True)
class Call:
    """A call with the id by which a result may name it."""

    name: str
    arguments: dict[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One turn. `number` is its place in the row, from 1; 0 where the row has no list of turns. `answers` is the id of
    the call that a result is for, `trained` what the row says of training it, None where it says nothing."""

    role: Role
    content: str = ""
    calls: tuple[Call, ...] = ()
    name: str | None = None
    answers: str = ""
    trained: bool | None = None
    number: int = 0

    @property
    def place(self) -> str:
        """How a message about it begins."""
        return f"turn {self.number}: " if self.number else ""


def finish(turns: Sequence[Said], tools: Tools, remarks: Remarks) -> tuple[Turn, ...]:
    """A row's turns as a chat has them: what belongs together joined, results in the order of their calls.

    Raises `RowError` when nothing is to be trained, an answer is empty, or a call is not of a tool on offer.
    """
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    for said in turns:  # before they are joined, which leaves one place for several
        for call in said.calls:
            if call.name not in schemas:
                raise _unknown(said, call.name, list(schemas))
    joined = _joined(turns, remarks)
    kept = len(joined)
    while kept and joined[kept - 1].role != "assistant":
        kept -= 1
    if kept < len(joined):
        remarks["turns after the last answer are left out"] += len(joined) - kept
    joined = _in_order_of_calls(joined[:kept], remarks)
    if not joined:
        raise RowError("no assistant turn, so nothing to train on")
    chat = tuple(_turn(said, schemas, tools.padded, remarks) for said in joined)
    if not any(turn.trained for turn in chat if turn.role == "assistant"):
        raise RowError("no assistant turn is to be trained: each says so itself", cause="no turn is to be trained")
    return chat


def _joined(turns: Sequence[Said], remarks: Remarks) -> list[Said]:
    joined: list[Said] = []
    for said in turns:
        if joined and _joins(joined[-1], said):
            before = joined.pop()
            if before.content and said.content:
                remarks["assistant turns that follow each other are joined into one"] += 1
            content = "\n\n".join(part for part in (before.content, said.content) if part)
            said = replace(before, content=content, calls=before.calls + said.calls)
        joined.append(said)
    return joined


def _joins(before: Said, said: Said) -> bool:
    """Whether two assistant turns are one: what is said after a call stays after it, a thought stays at the head."""
    if before.role != "assistant" or said.role != "assistant" or (before.trained is False) != (said.trained is False):
        return False
    return not (before.calls and said.content) and not (before.content and split_thought(said.content)[0])


def _in_order_of_calls(turns: list[Said], remarks: Remarks) -> list[Said]:
    """Each run of results in the order of the calls that it answers, named after them."""
    found: list[Said] = []
    calls: tuple[Call, ...] = ()
    index = 0
    while index < len(turns):
        said = turns[index]
        if said.role != "tool":
            calls = said.calls or (calls if said.role == "assistant" else ())
            found.append(said)
            index += 1
            continue
        stop = index
        while stop < len(turns) and turns[stop].role == "tool":
            stop += 1
        found += _bound(turns[index:stop], calls, remarks)
        calls = ()
        index = stop
    return found


def _bound(results: list[Said], calls: tuple[Call, ...], remarks: Remarks) -> list[Said]:
    ids = [call.id for call in calls]
    named = [said for said in results if said.answers]
    if not calls or not named or len(set(ids)) < len(ids) or not all(ids):
        if named and len(calls) > 1:
            remarks["ids of calls and results don't tell them apart, so results are taken in their order"] += 1
        return _bound_by_name(results, calls, remarks)
    strangers = [said for said in named if said.answers not in ids]
    if strangers:
        first = strangers[0]
        text = f"a result for the call {shown(first.answers)}, but no call before it has that id"
        if len(calls) > 1 or len(results) > 1:
            near = did_you_mean(first.answers, ids)
            raise RowError(f"{first.place}{text}{near}", cause="a result for a call that there is not")
        remarks["a result names a call that there is not, and is taken for the only one before it"] += 1
        return _bound_by_name(results, calls, remarks)
    if len({said.answers for said in named}) < len(named):
        twice = next(said for index, said in enumerate(named) if said.answers in [o.answers for o in named[:index]])
        raise RowError(
            f"{twice.place}a second result for the call {shown(twice.answers)}", cause="two results for a call"
        )
    if len(named) < len(results):
        remarks["results without an id among others that have one are taken in their order"] += 1
        return _bound_by_name(results, calls, remarks)
    ordered = sorted(results, key=lambda said: ids.index(said.answers))
    if [said.answers for said in ordered] != [said.answers for said in results]:
        remarks["results that came in another order than their calls are put in that order, by id"] += 1
    by_id = {call.id: call.name for call in calls}
    for said in ordered:
        if said.name not in (None, by_id[said.answers]):
            remarks["a result's name is not that of the call that its id names; the call's is taken"] += 1
    return [replace(said, name=by_id[said.answers]) for said in ordered]


def _bound_by_name(results: list[Said], calls: tuple[Call, ...], remarks: Remarks) -> list[Said]:
    """By the tool's name where every result says it and the names are those of the calls; else as they come."""
    if calls and len(results) > len(calls):
        text = f"{counted(len(results), 'result')} for {counted(len(calls), 'call')}"
        raise RowError(f"{results[len(calls)].place}{text}", cause="more results than calls")
    wanted = [call.name for call in calls]
    names = [said.name for said in results]
    for name in names:
        if name is not None and calls and name not in wanted:
            remarks["a result is of a tool that was not called before it"] += 1
    if None in names or sorted(map(str, names)) != sorted(wanted) or names == wanted:
        return results
    remarks["results that came in another order than their calls are put in that order, by the tool's name"] += 1
    left = list(results)
    ordered = []
    for name in wanted:
        said = next(one for one in left if one.name == name)
        left.remove(said)
        ordered.append(said)
    return ordered


def _turn(said: Said, schemas: dict[str, dict[str, Any]], padded: bool, remarks: Remarks) -> Turn:
    if said.role == "user" and not said.content.strip():
        remarks["a user turn is empty"] += 1
    if said.role != "assistant":
        return Turn(said.role, said.content, name=said.name)
    if said.trained is not False and is_indented(said.content):
        remarks["white space at the beginning of an answer is not trained"] += 1
    if not said.content.strip() and not said.calls:
        raise RowError(f"{said.place}an assistant turn is empty: no text and no call")
    calls = []
    for call in said.calls:
        arguments, nulls = mend_arguments(call.arguments, schemas[call.name], padded=padded)
        if nulls:
            remarks["nulls in arguments, which Arrow fills in, are taken out"] += nulls
        what = f"{said.place}arguments of {call.name}"
        refuse_deep(arguments, dumps(arguments, what), what)
        calls.append(ToolCall(call.name, arguments))
    return Turn("assistant", said.content, tuple(calls), trained=said.trained is not False)


def is_indented(text: str) -> bool:
    """Whether white space stands before the first words of a text, on their own line: `to_messages` drops it."""
    words = text.lstrip()
    before = text[: len(text) - len(words)]
    return bool(words) and before[-1:] not in ("", "\n", "\r") and not words.startswith("<think>")


def _unknown(said: Said, name: str, offered: list[str]) -> RowError:
    hint = did_you_mean(name, offered)
    if not hint:
        hint = f"; on offer: {', '.join(map(shown, offered[:8]))}" if offered else "; the row offers no tools"
    return RowError(
        f"{said.place}calls unknown tool {shown(name)}{hint}", cause="a call to a tool that is not on offer"
    )
