"""Compares a generated turn with the turn a chat expects, one measure at a time.

A measure is None where it does not apply, so that its rate counts only the turns it is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from toolkit.chats import Chat, ToolCall
from toolkit.data.call_parsing import Parsed
from toolkit.data.schema_checks import UncheckedError, checker
from toolkit.evaluation.answer_kinds import asks, lacks_means, refuses
from toolkit.evaluation.wanted import Wanted, all_accepted, alternatives

Expected = Literal["call", "clarify", "refuse", "irrelevance", "relevance", "answer"]
CALL_KINDS = ("single", "parallel", "multi_step")


@dataclass(frozen=True, slots=True)
class Score:
    """What one generated turn got right.

    correct: for calls `exact`; for clarify `clarified`; for refuse `refused`; for irrelevance and answers no call; for
        relevance, where some call is right but none is listed, any readable call of an offered tool.
    has_call: a call was made or attempted. valid_json, in_format: see `Parsed`; None without a call.
    schema_valid: every call names an offered tool and its arguments fit the schema, none unknown. None without a
        readable call, or when the schema itself can't be used.
    invented_tool: some call names a tool that is not on offer. None without a readable call.
    name_correct: the tools called are the expected ones, each as often. None where no call is expected.
    argument_recall, argument_precision: share of the expected arguments found, and of the generated ones expected, name
        and value, within calls of the right tool. None where no call is expected (precision: where none was made).
    exact: strictly valid JSON that says the expected calls, in any order; numbers compare by value (1 is 1.0), and the
        id of a JSON-RPC request is the client's to choose (see `wanted`).
    exact_but_case: the same where case and outer spaces of the arguments' texts do not count (see `same_but_case`).
        True wherever `exact` is; for BFCL's questions, whose own rules ignore both already, it is `exact`.
    abstained: no call on an irrelevance turn. clarified: no call on a clarify turn, and the text asks.
    refused: no call on a refuse turn, and the text refuses.
    over_refusal: a call is expected, and there is none but a text that refuses or says that it can't.
    """

    correct: bool
    has_call: bool
    valid_json: bool | None = None
    in_format: bool | None = None
    schema_valid: bool | None = None
    invented_tool: bool | None = None
    name_correct: bool | None = None
    argument_recall: float | None = None
    argument_precision: float | None = None
    exact: bool | None = None
    exact_but_case: bool | None = None
    abstained: bool | None = None
    clarified: bool | None = None
    refused: bool | None = None
    over_refusal: bool | None = None

    def as_dict(self) -> dict[str, bool | float | None]:
        return asdict(self)


def expectation(chat: Chat, turn: int) -> Expected:
    """What assistant turn `turn` of a chat should do. A chat's kind is about its first answer: an assistant turn after
    tool results, or a later one, that makes no call is a plain answer."""
    if chat.turns[turn].tool_calls:
        return "call"
    judged = turn in chat.meta.get("judged", ())
    first = judged or not any(earlier.role == "assistant" for earlier in chat.turns[:turn])
    if first and chat.kind in ("clarify", "refuse", "irrelevance", "relevance"):
        return chat.kind  # type: ignore[return-value]
    return "answer"


def kind_of(chat: Chat, turn: int) -> str:
    """Under which kind a turn is counted: the chat's own where the turn is what that kind is about, else `single` or
    `parallel` by its number of calls, or `answer`."""
    expected = expectation(chat, turn)
    if expected != "call":
        return expected
    if chat.kind in CALL_KINDS:
        return chat.kind
    return "parallel" if len(chat.turns[turn].tool_calls) > 1 else "single"


def score(chat: Chat, turn: int, parsed: Parsed) -> Score:
    """Compare a generated turn, read by a parser, with assistant turn `turn` (an index into chat.turns)."""
    calls, text = parsed.calls, parsed.text
    offered = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in chat.tools}
    common: dict[str, Any] = {
        "has_call": parsed.has_call,
        "valid_json": parsed.valid_json if parsed.has_call else None,
        "in_format": parsed.in_format if parsed.has_call else None,
        "schema_valid": schema_valid(calls, offered) if calls else None,
        "invented_tool": any(call.name not in offered for call in calls) if calls else None,
    }
    expected = expectation(chat, turn)
    silent = not parsed.has_call
    if expected == "call":
        accepted = alternatives(chat, turn)
        exact = parsed.valid_json and any(all_accepted(option, calls) for option in accepted)
        overlap = max((_overlap(option, calls) for option in accepted), key=lambda found: found[0])
        names = Counter(call.name for call in calls)
        return Score(
            correct=exact,
            exact=exact,
            exact_but_case=parsed.valid_json and any(all_accepted(option, calls, but_case=True) for option in accepted),
            name_correct=any(Counter(call.name for call in option) == names for option in accepted),
            argument_recall=overlap[0],
            argument_precision=overlap[1],
            over_refusal=silent and (refuses(text) or lacks_means(text)),
            **common,
        )
    if expected == "clarify":
        clarified = silent and asks(text) and not refuses(text)
        return Score(correct=clarified, clarified=clarified, **common)
    if expected == "refuse":
        refused = silent and refuses(text)
        return Score(correct=refused, refused=refused, **common)
    if expected == "relevance":
        return Score(correct=bool(calls) and all(call.name in offered for call in calls), **common)
    return Score(correct=silent, abstained=silent if expected == "irrelevance" else None, **common)


def _overlap(expected: Sequence[Wanted], generated: Sequence[ToolCall]) -> tuple[float, float | None]:
    """Recall and precision of arguments, with calls of one tool paired so that most arguments agree."""
    shared = sorted(
        (
            (one.right(call), -i, -j)
            for i, one in enumerate(expected)
            for j, call in enumerate(generated)
            if one.name == call.name
        ),
        reverse=True,
    )
    paired_i: set[int] = set()
    paired_j: set[int] = set()
    found = right = 0
    for count, i, j in shared:
        if i not in paired_i and j not in paired_j:
            paired_i.add(i)
            paired_j.add(j)
            right += count
            found += expected[-i].found(generated[-j])
    wanted = sum(one.needed for one in expected)
    made = sum(len(call.arguments) for call in generated)
    # Calls without arguments: all is found when the tools themselves are.
    recall = found / wanted if wanted else float(len(paired_i) == len(expected))
    if not generated:
        return recall, None
    return recall, right / made if made else float(len(paired_j) == len(generated))


def schema_valid(calls: Sequence[ToolCall], offered: Mapping[str, dict[str, Any]]) -> bool | None:
    """Whether every call fits its tool's parameters ({name: JSON schema}); None when a schema can't be used."""
    verdicts = [_fits(offered[call.name], call.arguments) if call.name in offered else False for call in calls]
    return False if False in verdicts else None if None in verdicts else True


def _fits(schema: dict[str, Any], arguments: dict[str, Any]) -> bool | None:
    try:
        held = checker(schema)
        known = schema.get("properties") or {}
        closed = known and not schema.get("additionalProperties") and not schema.get("patternProperties")
        if closed and not arguments.keys() <= known.keys():
            return False
        return held.fits(arguments)
    except UncheckedError:  # of the schema, not of the call
        return None
