"""Executed evaluation of built-in chats: the model's calls run in the chat's simulated world.

The model gets the system turn and the first user turn. What it calls is run, the results go back to it, and so on until
it answers in words; then the chat's next user turn follows. In the end two things are compared with a replay of the
chat's own calls: the world's final state, and the calls that were made. A chat succeeds when both agree:

- For each user turn the expected calls were made in their order (calls of one assistant turn in any order, and then it
  does not matter whether the model makes them at once or one by one). So a chain in the wrong order fails.
- Nothing else was called, except calls that came back as an error, in a chat that has no errors itself and for a user
  turn that wants calls: a mistake that the model saw and mended costs it steps, not the chat.
- The world's state is the same, and the model was done within the step limit.

What the model says in words is not judged here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.call_parsing import parse
from toolkit.errors import DataError, Problem
from toolkit.evaluation.evaluate import Prompter, as_text
from toolkit.evaluation.results import Evaluation, Row
from toolkit.evaluation.wanted import ThisCall, all_accepted
from toolkit.inference.decode import Decoder
from toolkit.inference.meter import Meter
from toolkit.world import World

__all__ = ["evaluate_executed"]


@dataclass(frozen=True, slots=True)
class Made:
    """One call that was run: in which user turn and assistant turn (counted from 0), and whether it was an error."""

    user_turn: int
    step: int
    call: ToolCall
    error: bool


@dataclass(slots=True)
class _Episode:
    """A chat as it unfolds with the model's own turns."""

    chat: Chat
    world: World
    waiting: list[Turn]  # user turns still to come
    turns: list[Turn]
    steps: int = 0
    asked: int = 0
    made: list[Made] = field(default_factory=list)
    problems: dict[str, None] = field(default_factory=dict)
    new_tokens: int = 0
    stopped: bool = True
    open: bool = True
    in_time: bool = True
    readable: bool = True

    @classmethod
    def of(cls, chat: Chat) -> _Episode:
        users = [turn for turn in chat.turns if turn.role == "user"]
        system = [turn for turn in chat.turns[:1] if turn.role == "system"]
        return cls(chat, World(chat.meta["world"], chat.meta.get("aliases")), users[1:], [*system, users[0]])

    def prompted(self) -> Chat:
        """The conversation so far, with room for the assistant's next turn as its last."""
        return Chat((*self.turns, Turn("assistant")), self.chat.tools, self.chat.kind, where=self.chat.where)

    def take(self, text: str, call_format: str, max_steps: int) -> None:
        """Go on with what the model wrote: run its calls, or let the user speak."""
        self.steps += 1
        parsed = parse(text, call_format, self.chat.tools)
        self.problems.update(dict.fromkeys(parsed.problems))
        # What is fed back is the turn as it was read, in the call format's own writing.
        self.turns.append(Turn("assistant", parsed.text, parsed.calls))
        for call in parsed.calls:
            result = self._run(call)
            self.turns.append(Turn("tool", result, name=call.name))
            self.made.append(Made(self.asked, self.steps, call, _is_error(result)))
        if parsed.has_call and not parsed.calls:
            self.open = self.readable = False  # nothing can be run, and nobody would answer
        elif not parsed.calls:
            self.open = bool(self.waiting)
            if self.waiting:
                self.turns.append(self.waiting.pop(0))
                self.asked += 1
        if self.open and self.steps >= max_steps:
            self.open = self.in_time = False

    def _run(self, call: ToolCall) -> str:
        if call.name not in (tool["function"]["name"] for tool in self.chat.tools):
            return json.dumps({"error": f"unknown tool: {call.name}"})
        return self.world.call(call.name, call.arguments)


def evaluate_executed(
    decoder: Decoder,
    renderer: Prompter,
    chats: Sequence[Chat],
    *,
    call_format: str,
    max_steps: int = 12,
    one_by_one: bool = False,
) -> Evaluation:
    """Let the model work through each built-in chat in its world, all chats step by step in batches; a row a chat.

    `max_steps` is the most assistant turns in a chat. `one_by_one` ends a chat before the next begins and shows how
    many are done: for a decoder that keeps what it has read of a chat. Measures: `correct` (all that follows), `state`,
    `calls`, `in_time`. Raises `DataError` for chats that have no simulated world.
    """
    foreign = [Problem(chat.where, "no simulated world, so its calls can't be run") for chat in chats if not _has(chat)]
    if foreign:
        raise DataError(foreign)
    started = time.perf_counter()
    episodes = [_Episode.of(chat) for chat in chats]

    def finish(some: Sequence[_Episode]) -> None:
        while running := [episode for episode in some if episode.open]:
            prompted = [episode.prompted() for episode in running]
            made = decoder([renderer.prompt(chat, len(chat.turns) - 1) for chat in prompted])
            for episode, one in zip(running, made, strict=True):
                episode.new_tokens += one.new_tokens
                episode.stopped = episode.stopped and one.stopped
                episode.take(one.text, call_format, max_steps)

    if one_by_one:
        with Meter(len(episodes), shown=True) as meter:
            for episode in episodes:
                finish([episode])
                meter.one_done(episode.new_tokens)
    else:
        finish(episodes)
    settings = {
        "executed": True,
        "call_format": call_format,
        "max_steps": max_steps,
        **decoder.settings,
        "seconds": round(time.perf_counter() - started, 2),
    }
    return Evaluation([_row(episode, call_format) for episode in episodes], settings)


def replay(chat: Chat) -> tuple[list[Made], dict[str, Any]]:
    """The chat's own calls, run in a fresh world, and the state that they leave."""
    world = World(chat.meta["world"], chat.meta.get("aliases"))
    made: list[Made] = []
    asked = -1
    for step, turn in enumerate(chat.turns):
        asked += turn.role == "user"
        for call in turn.tool_calls:
            made.append(Made(asked, step, call, _is_error(world.call(call.name, call.arguments))))
    return made, world.state()


def as_expected(expected: Sequence[Made], made: Sequence[Made]) -> bool:
    """Whether the calls made are the expected ones in their order; see the module for what that allows."""
    failing = any(one.error for one in expected)
    calling = {one.user_turn for one in expected}
    rest = [one for one in made if failing or not one.error or one.user_turn not in calling]
    for (user_turn, _), group in groupby(expected, key=lambda one: (one.user_turn, one.step)):
        wanted = [one.call for one in group]
        taken, rest = rest[: len(wanted)], rest[len(wanted) :]
        if any(one.user_turn != user_turn for one in taken) or not _accepted(wanted, taken):
            return False
    return not rest


def _accepted(wanted: Sequence[ToolCall], taken: Sequence[Made]) -> bool:
    return all_accepted([ThisCall.of_world(call) for call in wanted], [one.call for one in taken])


def _row(episode: _Episode, call_format: str) -> Row:
    chat = episode.chat
    expected, state = replay(chat)
    scores: dict[str, bool | float | None] = {
        "state": episode.world.state() == state,
        "calls": episode.readable and as_expected(expected, episode.made),
        "in_time": episode.in_time,
    }
    scores = {"correct": all(scores.values()), **scores}
    return Row(
        where=chat.where,
        turn=next((index for index, turn in enumerate(chat.turns) if turn.role == "assistant"), len(chat.turns)),
        kind=chat.kind,
        split=str(chat.meta.get("split", "")),
        source=chat.source,
        user=next(turn.content for turn in chat.turns if turn.role == "user"),
        expected=transcript(chat.turns, call_format),
        generated=transcript(episode.turns, call_format),
        expected_calls=[asdict(one.call) for one in expected],
        generated_calls=[asdict(one.call) for one in episode.made],
        problems=list(episode.problems),
        scores=scores,
        new_tokens=episode.new_tokens,
        stopped=episode.stopped,
    )


def transcript(turns: Sequence[Turn], call_format: str) -> str:
    """What is said and called from the first assistant turn on, a turn a paragraph."""
    first = next((index for index, turn in enumerate(turns) if turn.role == "assistant"), len(turns))
    return "\n\n".join(
        f"{turn.name or 'tool'}: {turn.content}"
        if turn.role == "tool"
        else f"{turn.role}: {as_text(turn.content, turn.tool_calls, call_format)}"
        for turn in turns[first:]
    )


def _is_error(result: str) -> bool:
    value = json.loads(result)
    return isinstance(value, dict) and "error" in value


def _has(chat: Chat) -> bool:
    return isinstance(chat.meta.get("world"), int) and any(turn.role == "user" for turn in chat.turns)
