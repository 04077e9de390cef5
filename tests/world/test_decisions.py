"""Chats in which a result decides, and what the assistant writes before the call that it decides."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from toolkit.chats import Chat, Turn
from toolkit.errors import DataError
from toolkit.evaluation.answer_kinds import asks, refuses
from toolkit.world import DOMAINS, World, chats, finding, former, invented, joining
from toolkit.world.catalog import Catalog
from toolkit.world.draft import Draft
from toolkit.world.language import plain, spoken
from toolkit.world.paraphrase import _words, held_words
from toolkit.world.rationale import compared, denied, wordings
from toolkit.world.shelf import display
from toolkit.world.shelf.alternatives import alternatives
from toolkit.world.shelf.chains import frames
from toolkit.world.shelf.display import Display
from toolkit.world.spec import Unsuitable
from toolkit.world.values import tables

_OURS = (
    *("previous_elsewhere", "empty", "none", "closer", "closest_with", "either_act", "either_set"),
    *("linked_set", "first_set", "either_whose"),
)
_TESTS = ("above", "below", "none", "empty")
VALUE = r"(-?[\d.:-]*\d)"
SIDES = {
    "above": 1, "more than": 1, "over": 1, "higher than": 1, "greater than": 1, "larger than": 1, "at least": 1,
    "after": 1, "later than": 1, "below": -1, "less than": -1, "under": -1, "lower than": -1, "smaller than": -1,
    "before": -1, "earlier than": -1,
}  # fmt: skip
ORDER = re.compile(rf"so {VALUE} ([<=>]) {VALUE}")
CLAIM = re.compile(
    rf"{ORDER.pattern}[.,] (?:it|that) (?:is|comes|does) (not )?(?:come )?({'|'.join(SIDES)}) {VALUE}", re.IGNORECASE
)
DIGITS = re.compile(r"\b(?:\d \d (?:less|more|same)(?:, )?)+|\d and \d digits")


@pytest.fixture(scope="module")
def decided() -> list[Chat]:
    return list(chats(700, seed=31, decisions=1.0, rationales=True))


def reasons(chat: Chat) -> list[tuple[int, Turn]]:
    return [(index, turn) for index, turn in enumerate(chat.turns) if turn.tool_calls and turn.content]


def bare(chat: Chat) -> Chat:
    """Without what rationales add: words beside calls, and how the first question or refusal begins."""
    turns = [replace(turn, content="") if turn.tool_calls else turn for turn in chat.turns]
    first = next(index for index, turn in enumerate(turns) if turn.role == "assistant")
    begins = {"clarify": r"One thing is missing: [^.]+\. ", "refuse": r"(Sorry, )?no\b\W*"}.get(chat.kind, r"\b\B")
    turns[first] = replace(turns[first], content=re.sub(f"^{begins}", "", turns[first].content, flags=re.IGNORECASE))
    return replace(chat, turns=tuple(turns))


@pytest.mark.parametrize("options", [{"size": 400}, {"size": 200, "decisions": 0.5}, {"kinds": {"multi_step": 1}}])
def test_with_rationales_chats_are_the_same_but_for_them(options: dict[str, Any]) -> None:
    options = {"size": 200, "seed": 32, **options}
    without, having = list(chats(**options)), list(chats(**options, rationales=True))
    assert not any(reasons(chat) for chat in without)
    assert [bare(chat) for chat in having] == [bare(chat) for chat in without]
    assert sum(bool(reasons(chat)) for chat in having) > 4


def test_with_rationales_questions_say_what_is_missing_and_refusals_begin_with_no() -> None:
    starts: dict[str, set[str]] = {}
    for chat in chats(600, seed=35, kinds={"clarify": 2, "refuse": 1, "irrelevance": 1}, rationales=True):
        answer = next(turn.content for turn in chat.turns if turn.role == "assistant")
        starts.setdefault(chat.kind, set()).add(re.split(r"\W", answer)[0])
        if chat.kind == "clarify":
            assert asks(answer) and not refuses(answer) and spoken(chat.meta["missing"]) in answer.split(".")[0]
        elif chat.kind == "refuse":
            assert refuses(answer) and answer[0].isupper() and not re.search(r"(?i)^no\W+(sorry|no)\b", answer)
    assert starts["clarify"] == {"One"} and starts["refuse"] == {"No"}
    assert len(starts["irrelevance"]) > 5


def test_every_chat_in_which_a_result_decides_says_by_what(decided: list[Chat]) -> None:
    ways = Counter(chat.meta["chain"] for chat in decided)
    assert min(ways[f"shelf {way}"] for way in ("decided", "outweighed", "asked", "together")) > 7
    assert min(ways[f"invented {way}"] for way in ("above", "below", "higher", "before", "empty", "none", "closer")) > 1
    assert min(ways[f"invented {way}"] for way in ("previous", "either", "closest_with")) > 5
    assert min(ways[way] for way in ("joined looked up", "joined kept", "found or not")) > 10
    for chat in decided:
        asked = chat.meta["chain"] == "shelf asked"
        assert chat.kind == ("parallel" if asked else "multi_step")
        found = reasons(chat)
        assert len(found) == (0 if asked else 1), chat.where
        for index, turn in found:
            assert chat.turns[index - 1].role == "tool" and "{" not in turn.content and len(turn.content) < 400


def number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def test_what_is_claimed_of_two_values_is_so(decided: list[Chat]) -> None:
    claims: Counter[tuple[str, bool]] = Counter()
    orders: Counter[str] = Counter()
    for chat in decided:
        for _, turn in reasons(chat):
            for left, order, right in ORDER.findall(turn.content):
                values = number(left), number(right)
                assert order == ("<" if values[0] < values[1] else ">" if values[0] > values[1] else "="), turn.content
                orders[order] += 1
            for left, _, right, no, side, bound in CLAIM.findall(turn.content):
                above = number(left) >= number(right) if side == "at least" else number(left) > number(right)
                holds = above if SIDES[side] > 0 else number(left) < number(right)
                assert right == bound and holds == (not no), turn.content
                claims[side, bool(no)] += 1
    assert min(orders["<"], orders[">"]) > 100
    assert sum(claims.values()) > 100 and sum(count for (_, no), count in claims.items() if no) > 40


@pytest.mark.parametrize(
    ("one", "other", "steps"),
    [
        (54.7, 59, "2 and 2 digits before the point: same, 5 5 same, 4 9 less, so 54.7 < 59"),
        (54.0, 54.5, "2 and 2 digits before the point: same, 5 5 same, 4 4 same, 0 5 less, so 54 < 54.5"),
        (493, 98, "3 and 2 digits: more, so 493 > 98"),
        (8.25, "60", "1 and 2 digits before the point: less, so 8.25 < 60"),
        (50, 50, "2 and 2 digits: same, 5 5 same, 0 0 same, so 50 = 50"),
        (-3, 10, "only -3 is below 0, so -3 < 10"),
        (2, -2, "only -2 is below 0, so 2 > -2"),
        (-12, -3, "both are below 0, 2 and 1 digits: more, so -12 < -3"),
        ("06:15", "06:30", "0 0 same, 6 6 same, 1 3 less, so 06:15 < 06:30"),
        (
            "2027-05-12",
            "2027-05-08",
            "2 2 same, 0 0 same, 2 2 same, 7 7 same, 0 0 same, 5 5 same, 1 0 more, so 2027-05-12 > 2027-05-08",
        ),
    ],
)
def test_two_values_are_compared_digit_by_digit(one: Any, other: Any, steps: str) -> None:
    assert compared(one, other) == steps


@pytest.mark.parametrize("other", ["06:15", "low", "2027-05-08", "3 h"])
def test_what_is_no_number_time_or_day_is_not_compared(other: str) -> None:
    with pytest.raises(ValueError, match="can't be compared"):
        compared(7, other)


def test_what_is_said_before_is_what_results_and_the_user_said(decided: list[Chat]) -> None:
    """Each number of a rationale stands in the chat before it, but for the steps of a comparison."""
    for chat in decided:
        for index, turn in reasons(chat):
            before = " ".join(item.content for item in chat.turns[:index]).casefold()
            said = re.sub(r"\d\d:\d\d", "", DIGITS.sub("", turn.content))  # times are said in several ways
            for one in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", said):
                known = {one, f"{one}.0"}
                assert any(item in before for item in known) or one == "0", (turn.content, before)


def test_a_name_is_put_behind_a_folder_that_was_said(decided: list[Chat]) -> None:
    """Neither the user nor a result says the whole; one part is a result's, or the name that a file had."""
    seen: Counter[str] = Counter()
    for chat in decided:
        if not chat.meta["chain"].startswith("joined"):
            continue
        (index, turn), *_ = reasons(chat)
        before = [item.content for item in chat.turns[:index]]
        user = next(item.content for item in chat.turns if item.role == "user")
        whole = next(str(item) for item in turn.tool_calls[0].arguments.values() if f'"{item}"' in turn.content)
        assert not any(whole in text for text in before), chat.where
        folder, name = whole.rsplit("/", 1)
        result = chat.turns[index - 1].content
        stem = name if name in result else name.rsplit(".", 1)[0]
        if "beside" in chat.meta["chain"]:
            assert folder in result and folder not in user and name in user, (whole, user, result)
        else:
            assert folder in user and stem in result, (whole, user, result)
        seen[chat.meta["chain"]] += 1
    assert len(seen) == 7


def says(text: str, way: str, key: str) -> bool:
    """Whether the text has one of the way's wordings."""
    lines = (re.sub(r"\\{.*?\\}", ".+", re.escape(line)) for line in wordings()[way][key])
    return any(re.fullmatch(line, text, re.DOTALL) for line in lines)


def test_one_request_is_for_nothing_found_and_another_for_something(decided: list[Chat]) -> None:
    for chain, way, least in (("found or not", "empty", 5), ("invented none", "zero", 0)):
        ways: Counter[bool] = Counter()
        for chat in decided:
            if chat.meta["chain"] == chain:
                ((index, turn),) = reasons(chat)
                result = json.loads(chat.turns[index - 1].content)
                # what is told beside it is never 0 or empty
                found = all(item for item in result.values() if not isinstance(item, str))
                assert says(turn.content, way, "no" if found else "yes"), (turn.content, result)
                ways[found] += 1
        assert len(ways) == 2 and min(ways.values()) > least


def test_what_was_before_is_told_beside_what_is_new(decided: list[Chat]) -> None:
    """The former value can't be told by its place in the result, nor by its being the only one."""
    places: Counter[str] = Counter()
    beside = total = 0
    for chat in decided:
        if chat.meta["chain"] == "invented previous" or chat.meta["chain"].endswith(("as_it_was", "as_they_were")):
            ((index, turn),) = reasons(chat)
            values = list(json.loads(chat.turns[index - 1].content).values())
            passed = list(turn.tool_calls[0].arguments.values())
            news = [item for item in chat.turns[index - 2].tool_calls[0].arguments.values() if item not in passed]
            (was,) = [place for place, item in enumerate(values) if item in passed and item not in news][:1]
            places["first" if was == 0 else "last" if was == len(values) - 1 else "between"] += 1
            total += 1
            beside += any(item in values for item in news)
    assert total > 25 and beside > 0.7 * total and min(places.values()) > 3 and len(places) == 3


def test_a_former_value_is_passed_to_tools_about_other_things(decided: list[Chat]) -> None:
    """Neither the request nor anything but that result has it; at times it is 0."""
    seen: Counter[str] = Counter()
    for chat in decided:
        if chat.meta["chain"] not in ("shelf former", "former invented"):
            continue
        ((index, turn),) = reasons(chat)
        first, last = chat.turns[index - 2].tool_calls[0], turn.tool_calls[0]
        result = json.loads(chat.turns[index - 1].content)
        new = first.arguments.values()
        was = [item for item in result.values() if item in last.arguments.values() and item not in new]
        assert first.name != last.name and was, (first, last, result)
        seen[chat.meta["chain"]] += 1
        seen["0"] += 0 in was
    assert min(seen[key] for key in ("shelf former", "former invented")) > 8 and seen["0"] > 1


def test_one_of_several_numbers_is_the_one_that_was_asked_for(decided: list[Chat]) -> None:
    """Where a result tells numbers of one kind side by side, what is compared is the one of the request's word."""
    words = {other: key for key, others in tables()["figures"].items() for other in (key, *others.split(", "))}
    firsts: Counter[bool] = Counter()
    for chat in decided:
        if chat.meta["chain"] not in ("invented above", "invented either", "invented none"):
            continue
        ((index, turn),) = reasons(chat)
        result = json.loads(chat.turns[index - 1].content)
        told = {key: word for word in words.values() for key in result if re.search(rf"(^|_){word}(_|$)", key)}
        said = re.search(rf"[Tt]he ({'|'.join(sorted(words, key=len, reverse=True))}) \w+", turn.content)
        if len(told) < 2 or said is None:
            continue
        (key,) = [key for key, word in told.items() if word == words[said[1]]]
        assert re.search(rf"(?<![\d.]){re.escape(f'{result[key]:g}')}(?!\d)", turn.content), (turn.content, result)
        firsts[key == next(iter(told))] += 1
    assert min(firsts[True], firsts[False]) > 2


def test_no_number_of_several_has_the_name_of_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    # one "target" of the figures and another of the ids met in one of some 50,000 such chats, and ended the table
    names = ("id", "ref", "key", "target", "identifier")
    monkeypatch.setitem(tables(), "figures", dict.fromkeys(names, "other"))
    for chat in chats(300, seed=8, decisions=1.0, rationales=True):
        for tool in chat.meta.get("aliases", {}).values():
            told = tool.get("result", {})
            assert all(
                told[name] == f"@{name}" for name in tool.get("parameters", {}).get("properties", {}) if name in told
            )


def test_a_tool_of_the_shelf_takes_no_invented_tools_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names say nothing on both sides, there are few of them."""
    monkeypatch.setattr(display, "_OPAQUE", 1.0)
    for module in (display, invented):
        monkeypatch.setattr(module, "opaque", lambda r, taken: r.choice([x for x in "abcdefghi" if x not in taken]))
    unsuitable = 0
    for seed in range(600):
        draft = Draft(Random(seed), World(seed), Catalog("train", DOMAINS, 8))
        try:
            flags = former.former(draft)
        except Unsuitable as reason:
            unsuitable += str(reason) == "one name for two tools"
            continue
        assert len(set(flags["offer"])) == len(flags["offer"])
        calls = [call for turn in draft.turns for call in turn.tool_calls]
        world = World(seed, draft.world.aliases)
        results = [turn.content for turn in draft.turns if turn.role == "tool"]
        assert [world.call(call.name, call.arguments) for call in calls] == results
    assert unsuitable > 10


def test_an_id_that_was_found_is_passed_where_it_may_be_left_out() -> None:
    found: Counter[str] = Counter()
    for chat in chats(1000, seed=34, kinds={"multi_step": 1}):
        tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in chat.tools}
        calls = [call for turn in chat.turns for call in turn.tool_calls]
        if chat.meta.get("chain") in ("invented first_set", "invented linked", "invented first"):
            last = calls[1]
            least = [name for name in last.arguments if name not in tools[last.name]["required"]]
            found[chat.meta["chain"]] += any(
                "if left out" in tools[last.name]["properties"][name]["description"] for name in least
            )
    assert len(found) == 3 and min(found.values()) > 1


def test_one_of_two_that_differ_in_one_place_is_taken(decided: list[Chat]) -> None:
    """Which of two ids is for which outcome is read from the request's words."""
    taken: Counter[tuple[bool, bool]] = Counter()
    for chat in decided:
        if chat.meta["chain"] != "invented either" or "{_id}" in chat.meta["templates"][-1]:
            continue
        ((_, turn),) = reasons(chat)
        source = re.escape(chat.meta["templates"][-1].rstrip("."))
        source = re.sub(r"\\{_([xy])\\}", r"(?P<\1>[\\w/-]+)", source)
        user = next(item.content for item in chat.turns if item.role == "user")
        said = re.search(re.sub(r"\\{.*?\\}", ".+?", source), user, re.IGNORECASE)
        if said is None:
            continue  # a typo
        compares = "digits" in turn.content
        some = not compares and re.search(r"\b(any|some|more than zero)\b", chat.meta["templates"][-1]) is not None
        none = any(says(turn.content, way, "yes") for way in ("zero", "empty"))
        holds = " is not " not in turn.content if compares else none != some
        (item,) = {str(item) for item in turn.tool_calls[0].arguments.values()} & {said["x"], said["y"]}
        assert item == said["x" if holds else "y"], (user, turn)
        taken[holds, some] += 1
    # as often the first as the second, for something as for nothing: else the place alone would tell
    assert len(taken) == 4 and min(taken.values()) > 5, taken


def test_the_second_request_has_another_value_in_one_place() -> None:
    seen = 0
    for seed in range(400):
        show = Display(Draft(Random(seed), World(seed), Catalog("train", (), 8)), repeats=True)
        try:
            one, other = alternatives(show)
        except Unsuitable:
            continue
        if other.instead:
            x, y = other.instead
            assert plain(one.filled.pieces).replace(x, y) == plain(other.filled.pieces) and x != y
            ours, theirs = one.filled.arguments, other.filled.arguments
            assert ours.keys() == theirs.keys() and sum(ours[key] != theirs[key] for key in ours) == 1
            seen += 1
    assert seen > 40


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
    nested = [entry for key in ("kept", "beside") for entry in joining.table()[key].values()]
    entries = (*joining.table().values(), *nested)
    shelf = [
        line for part in ("decide", "outweigh", "pass", "remark") for lines in frames(part).values() for line in lines
    ]
    joined = [line for entry in entries for key in ("say", "ending", "find", "path") for line in entry.get(key, ())]
    invented = [line for key in (*_OURS, *(f"test_{way}" for way in _TESTS)) for line in tables()["say"][key]]
    figures = [text for word, others in tables()["figures"].items() for text in (word, others)]
    for line in (*invented, *figures, *joined, *shelf, *finding.lines(), *finding.lines("instead")):
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
