"""Chats in which a result decides, and what the assistant writes before the call that it decides."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from toolkit.chats import Chat, Turn
from toolkit.errors import DataError
from toolkit.world import World, chats
from toolkit.world.paraphrase import _words, held_words
from toolkit.world.rationale import denied, wordings
from toolkit.world.values import tables

VALUE = r"(-?[\d.:-]*\d)"
SIDES = {
    "above": 1, "more than": 1, "over": 1, "higher than": 1, "greater than": 1, "larger than": 1, "at least": 1,
    "after": 1, "later than": 1, "below": -1, "less than": -1, "under": -1, "lower than": -1, "smaller than": -1,
    "before": -1, "earlier than": -1,
}  # fmt: skip
CLAIM = re.compile(rf"{VALUE} (?:is|comes|does) (not )?(?:come )?({'|'.join(SIDES)}) {VALUE}")


@pytest.fixture(scope="module")
def decided() -> list[Chat]:
    return list(chats(700, seed=31, decisions=1.0, rationales=True))


def reasons(chat: Chat) -> list[tuple[int, Turn]]:
    return [(index, turn) for index, turn in enumerate(chat.turns) if turn.tool_calls and turn.content]


def bare(chat: Chat) -> Chat:
    return replace(chat, turns=tuple(replace(turn, content="") if turn.tool_calls else turn for turn in chat.turns))


@pytest.mark.parametrize("options", [{"size": 400}, {"size": 200, "decisions": 0.5}, {"kinds": {"multi_step": 1}}])
def test_with_rationales_chats_are_the_same_but_for_them(options: dict[str, Any]) -> None:
    options = {"size": 200, "seed": 32, **options}
    without, having = list(chats(**options)), list(chats(**options, rationales=True))
    assert not any(reasons(chat) for chat in without)
    assert [bare(chat) for chat in having] == without
    assert sum(bool(reasons(chat)) for chat in having) > 4


def test_every_chat_in_which_a_result_decides_says_by_what(decided: list[Chat]) -> None:
    ways = Counter(chat.meta["chain"] for chat in decided)
    assert min(ways[f"shelf {way}"] for way in ("decided", "outweighed", "asked", "together")) > 20
    assert min(ways[f"invented {way}"] for way in ("above", "below", "higher", "before", "noted", "empty")) > 3
    for chat in decided:
        asked = chat.meta["chain"] == "shelf asked"
        assert chat.kind == ("parallel" if asked else "multi_step")
        found = reasons(chat)
        assert len(found) == (0 if asked else 1), chat.where
        for index, turn in found:
            assert chat.turns[index - 1].role == "tool" and "{" not in turn.content and len(turn.content) < 400


def test_what_is_claimed_of_two_values_is_so(decided: list[Chat]) -> None:
    claims: Counter[tuple[str, bool]] = Counter()
    for chat in decided:
        for text in (*(turn.content for _, turn in reasons(chat)), chat.turns[-1].content):
            for left, no, side, right in CLAIM.findall(text):
                try:
                    found: Any = (float(left), float(right))
                except ValueError:
                    found = (left, right)
                above = found[0] >= found[1] if side == "at least" else found[0] > found[1]
                assert (above if SIDES[side] > 0 else found[0] < found[1]) == (not no), text
                claims[side, bool(no)] += 1
    assert sum(claims.values()) > 150 and sum(count for (_, no), count in claims.items() if no) > 50


def test_what_is_said_before_is_what_results_and_the_user_said(decided: list[Chat]) -> None:
    """Each number of a rationale stands in the chat before it."""
    for chat in decided:
        for index, turn in reasons(chat):
            before = " ".join(item.content for item in chat.turns[:index]).casefold()
            said = re.sub(r"\d\d:\d\d", "", turn.content)  # times are said in several ways
            for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", said):
                known = {number, f"{number}.0"}
                assert any(one in before for one in known) or number == "0", (turn.content, before)


def test_empty_lists_come_and_worlds_run_them_again(decided: list[Chat]) -> None:
    sizes: Counter[bool] = Counter()
    for chat in decided:
        world = World(chat.meta["world"], chat.meta.get("aliases"))
        for call in (call for turn in chat.turns for call in turn.tool_calls):
            result = next(turn for turn in chat.turns if turn.role == "tool" and turn.name == call.name)
            again = world.call(call.name, call.arguments)
            if chat.meta["chain"] == "invented empty":
                assert again == result.content
                sizes[bool(json.loads(again).get("ids", True))] += "ids" in again
    assert sizes[True] > 2 and sizes[False] > 2


def test_the_share_is_kept_and_the_kinds_share_the_rest() -> None:
    made = list(chats(800, seed=33, decisions=0.25, kinds={"single": 3, "refuse": 1}))
    counts = Counter(chat.kind for chat in made)
    assert counts["single"] == 450 and counts["refuse"] == 150
    assert counts["multi_step"] + counts["parallel"] == 200


def test_nobody_asks_in_words_that_only_held_out_phrasings_have() -> None:
    for line in tables()["say"]["empty"]:
        assert not _words(re.sub(r"\{[^}]*\}", "", line)) & held_words(), line


def test_wordings_come_in_many_forms_and_opposites_are_opposite() -> None:
    for table in wordings().values():
        assert all(len(set(options)) == len(options) >= 3 for options in table.values())
    assert denied("is above 5") == "is not above 5" and denied("comes after 10:00") == "does not come after 10:00"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decisions": 1.5}, "share from 0 to 1, not 1.5"),
        ({"decisions": -0.1}, "share from 0 to 1"),
        ({"decisions": True}, "share from 0 to 1"),
        ({"purposes": 2}, "purposes must be a share"),
        ({"purposes": 0.6, "decisions": 0.6}, "decisions = 0.6 and purposes = 0.6 are 1.2, wanted at most 1 together"),
        ({"purposes": 0.1, "split": "phrasing"}, "purposes: only for training chats over all domains"),
        ({"decisions": 0.1, "split": "tools"}, "decisions: only for training chats over all domains"),
        ({"rationales": True, "domains": ("home",)}, "rationales: only for training"),
        ({"rationales": True, "max_tools": 2}, "max_tools of at least 4"),
        ({"decisions": 0.1, "test": True, "split": "tools"}, "decisions: only for training"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        list(chats(5, **arguments))
