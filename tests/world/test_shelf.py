"""The shelf's tools: they work as they are written down, are near to nothing held out, and make chats as promised."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from toolkit.chats import Chat
from toolkit.evaluation.answer_kinds import asks, lacks_means, refuses
from toolkit.world import TOOLS, World, chats
from toolkit.world.catalog import Catalog
from toolkit.world.disguise import bare, held_names
from toolkit.world.draft import Draft
from toolkit.world.facts import _facts
from toolkit.world.framing import framing
from toolkit.world.language import fill, parse, phrases, said, shown, wording
from toolkit.world.paraphrase import _literal, _sources, _words, held_words
from toolkit.world.shelf.chains import frames, links, written
from toolkit.world.shelf.display import Display
from toolkit.world.shelf.entry import Entry, fields, serves, shelf
from toolkit.world.shelf.kinds import _lacking, _sparing
from toolkit.world.shelf.running import parameters
from toolkit.world.shelf.values import draw, schema

# words of held-out tools' names that say what those are about
HELD_SUBJECTS = re.compile(
    r"\b(base64|hash|prime factor|common divisor|sunrise|sunset|pollen|crow flies|nearest city|loan|volume of music"
    r"|sleep timer|coupon|free time|invite|archive|due date|blinds|ping|certificate|environment variable|directory"
    r"|flight status|git|columns?|delete rows?|vet|pets?|tyres?|cabin air|library|workouts?|steps taken|pulse|moon|uv"
    r"|soil|sprinkler)\b"
)
SIZE = 250
NOT_VERBS = frozenset(
    ("a", "an", "and", "at", "by", "for", "from", "how", "if", "in", "is", "it", "just", "my", "new", "no")
) | {
    *("on", "the", "there", "to", "what", "when", "where", "who", "with"),
}


def requests(entry: Entry) -> Iterator[tuple[str, str]]:
    """(argument that it lacks or "", template)."""
    yield from (("", line) for line in entry.say)
    yield from ((param, line) for param, ask in entry.ask.items() for line in ask.lines)


def said_words(line: str) -> set[str]:
    return _words(re.sub(r"\{[^}]*\}", "", line.split(" @")[0]))


DECIDED = ("shelf decided", "shelf outweighed", "shelf about the one", "shelf together")
MORE = r"is above|is more than|is over|is higher than|is greater than|is after|is later than|comes after"
LESS = r"is below|is less than|is under|is lower than|is smaller than|is before|is earlier than|comes before"

SWAPPED = re.compile(r",? (?:take|do so with|use) (?P<y>.+?) (?:in place of|instead of|for) (?P<x>.+?)(?:[.,?!]|$)")


def test_there_are_many_tools_and_many_ways_to_ask() -> None:
    assert len(shelf()) >= SIZE and len(fields()) >= 6
    for entry in shelf().values():
        assert len(entry.say) >= 6 and len(entry.names) >= 3 and len(entry.answers) >= 2, entry.name
        assert set(entry.ask) == set(entry.required), entry.name
        assert all(len(ask.lines) >= 2 and len(ask.questions) >= 2 for ask in entry.ask.values()), entry.name
        assert all(other in shelf() for other in entry.rivals), entry.name
    used = Counter(line for entry in shelf().values() for line in entry.say)
    assert [line for line, count in used.items() if count > 1] == []


def test_requests_mostly_do_not_say_what_the_tool_is_called() -> None:
    """Most have none of the longer words of the name."""
    foreign = total = 0
    for entry in shelf().values():
        own = {word for word in entry.name.split("_") if len(word) > 3}
        foreign += sum(not said_words(line) & own for line in entry.say)
        total += len(entry.say)
    assert foreign > 0.7 * total, foreign / total


def test_templates_ask_for_what_the_call_needs() -> None:
    for entry in shelf().values():
        for lacks, line in requests(entry):
            template = parse(line)
            assert set(entry.required) - template.arguments == ({lacks} if lacks else set()), (entry.name, line)
            assert template.arguments <= set(entry.params), (entry.name, line)
            assert line.count("{") == line.count("}") == len(template.slots), line
            for key, value in template.fixed.items():
                kind = entry.params[key].schema
                assert value in kind["enum"] if "enum" in kind else kind["type"] == "boolean" and value is True, line
            if template.imperative:
                assert re.split(r"[\s,:]", line)[0] not in NOT_VERBS, (entry.name, line)
            else:
                assert line.split(" @")[0].endswith((".", "?", "!", "}")), (entry.name, line)
        assert any(parse(line).imperative for line in entry.say), entry.name
        assert not entry.several or entry.many in entry.required
        assert all(entry.many in parse(line).slots for line in entry.several), entry.name


def test_nothing_on_the_shelf_is_held_out() -> None:
    """Neither names, descriptions, parameters nor requests are those of unseen tools or of held-out phrasings."""
    unseen = [tool for tool in TOOLS.values() if not tool.trained]
    descriptions = {tool.description.rstrip(".").casefold() for tool in unseen}
    held = [
        source
        for table in (phrases(), _facts(), wording())
        for key in ("held", "test")
        for source in _sources(table, key)
    ]
    known = {_literal(source).rstrip(".?! ") for source in held}
    known |= {_literal(source).rstrip(".?! ") for tool in unseen for source in _sources(phrases()[tool.name], "say")}
    names: Counter[str] = Counter()
    for entry in shelf().values():
        names.update(entry.names)
        assert not {bare(name) for name in entry.names} & (held_names() | {bare(name) for name in TOOLS}), entry.name
        assert not any(about.rstrip(".").casefold() in descriptions for about in entry.about), entry.name
        assert entry.does not in {phrases()[tool.name]["does"] for tool in unseen}, entry.name
        assert all(tool.parameters != parameters(entry) for tool in unseen if tool.parameters["properties"])
        text = " ".join((*entry.names, *entry.about, entry.does)).replace("_", " ").casefold()
        assert not HELD_SUBJECTS.search(text), (entry.name, HELD_SUBJECTS.search(text))
        for _, line in requests(entry):
            assert _literal(line).rstrip(".?! ") not in known, line
            assert not said_words(line) & held_words(), (entry.name, said_words(line) & held_words(), line)
    assert [name for name, count in names.items() if count > 1] == []
    for chain in written():
        assert not any(said_words(line) & held_words() for line in chain.say), chain.name
    for part in ("link", "decide", "outweigh", "together"):
        for words in frames(part).values():
            assert not set().union(*map(said_words, words)) & held_words(), part
    nouns = {result.noun for entry in shelf().values() for result in entry.result if result.gives}
    assert "" not in nouns and not {word for noun in nouns for word in _words(noun)} & held_words()


@pytest.mark.parametrize("field", fields())
def test_every_request_can_be_filled_run_and_answered(field: str) -> None:
    for name in fields()[field].names:
        entry = shelf()[name]
        for seed in range(2):
            r, world = Random(seed), World(seed)
            show = Display(Draft(r, world, Catalog("train", (), 8)))
            for lacks, line in requests(entry):
                slots = show.slots(entry, parse(line).slots)
                request = fill(line, slots)
                tool = show.show(entry, list(request.arguments))
                shown_name, arguments = tool.call(request.arguments)
                result = json.loads(world.call(shown_name, arguments))
                assert ("error" in result) == bool(lacks), (entry.name, line, result)
                if not lacks:
                    assert set(result) == {one.name for one in entry.result}
                    assert result == json.loads(World(seed, world.aliases).call(shown_name, arguments))
                    for pick in range(len(entry.answers)):
                        text = show.answer(entry, pick, request.arguments, slots, result)
                        assert text and "{" not in text
                assert "error" in json.loads(world.call(shown_name, {**arguments, "nonsense": 1}))
                show.shown.clear()
                show.d.invented.clear()  # the same tool again, not two of one name


def test_kinds_of_values_fit_their_schemas() -> None:
    for kind in sorted({param.kind for entry in shelf().values() for param in entry.params.values()}):
        shape = schema(kind)
        for seed in range(4):
            value: Any = said(draw(kind, Random(seed), World(seed))).value
            if "enum" in shape:
                assert value in shape["enum"]
            types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
            assert isinstance(value, types[shape["type"]]), (kind, value)  # type: ignore[arg-type]


def test_enums_are_often_said_otherwise_and_asks_are_tempting() -> None:
    every, tempting = _lacking()
    assert len(tempting) > 0.25 * len(every) and len(_sparing()) > 60


def test_chains_link_what_fits() -> None:
    assert len(links()) > 100 and len({(first.name, second.name) for first, _, second, _ in links()}) > 100
    for first, result, second, param in links():
        assert result.gives in param.takes and not serves(first.name, second.name)
    for chain in written():
        slots = {raw.strip("{}") for step in chain.steps for raw in step.arguments.values() if raw.startswith("{")}
        for line in chain.say:
            assert set(parse(line).slots) == slots, (chain.name, line)
        for position, step in enumerate(chain.steps):
            assert set(step.entry.required) <= set(step.arguments) <= set(step.entry.params), chain.name
            taken = [re.fullmatch(r"(\d)\.(\w+)", raw) for raw in step.arguments.values()]
            assert position == 0 or any(taken), chain.name
            for match in filter(None, taken):
                before = chain.steps[int(match[1]) - 1]
                told = {result.name for result in before.entry.result} | {before.each}
                assert int(match[1]) <= position and match[2] in told, chain.name


def test_what_is_worked_out_is_right() -> None:
    calls: dict[str, tuple[dict[str, Any], str, Any]] = {
        "roman_numeral": ({"number": 1994}, "roman", "MCMXCIV"),
        "to_morse": ({"text": "so & be :)"}, "code", "... --- / -... ."),
        "spell_for_phone": ({"text": "Ox 7"}, "spelled", "Oscar Xray 7"),
        "write_in_base": ({"number": 500, "base": "16"}, "digits", "1F4"),
        "tip_amount": ({"bill": 40}, "total", 44),
        "tiles_needed": ({"area": 2, "edge": 20}, "tiles", 56),
        "plural_of": ({"noun": "ox"}, "plural", "oxen"),
    }
    for name, (arguments, field, expected) in calls.items():
        alias = {"shelf": name, "params": {key: key for key in shelf()[name].params}}
        assert json.loads(World(1, {"x": alias}).call("x", arguments))[field] == expected
    for name, argument in (("plural_of", {"noun": "yak"}), ("to_morse", {"text": ":)"})):
        alias = {"shelf": name, "params": {key: key for key in argument}}
        assert "error" in json.loads(World(1, {"x": alias}).call("x", argument))


@pytest.fixture(scope="module")
def train() -> list[Chat]:
    return [chat for chat in chats(3000, seed=21) if chat.meta.get("shelf")]


def behind(chat: Chat, name: str) -> str | None:
    return chat.meta["aliases"].get(name, {}).get("shelf") if "aliases" in chat.meta else None


def test_most_of_the_shelf_comes_and_in_every_kind(train: list[Chat]) -> None:
    assert {chat.kind for chat in train} == {"single", "parallel", "multi_step", "clarify", "irrelevance"}
    called = {behind(chat, call.name) for chat in train for turn in chat.turns for call in turn.tool_calls}
    assert len(called & shelf().keys()) > 0.9 * len(shelf())


def test_one_pattern_is_served_with_its_tool_and_declined_without(train: list[Chat]) -> None:
    served: set[str] = set()
    declined: set[str] = set()
    for chat in train:
        (declined if chat.kind == "irrelevance" else served).update(chat.meta["templates"])
    assert len(served & declined) > 12
    by_line = {line: entry.name for entry in shelf().values() for line in entry.say}
    for chat in train:
        if chat.kind == "irrelevance":
            wanted = by_line[chat.meta["templates"][0]]
            offered = [behind(chat, tool["function"]["name"]) for tool in chat.tools]
            assert not any(name and serves(name, wanted) for name in offered), chat.where


def test_a_chains_second_call_can_not_be_made_from_the_request(train: list[Chat]) -> None:
    found = [chat for chat in train if chat.kind == "multi_step" and chat.meta["chain"] not in DECIDED]
    found = [chat for chat in found if not chat.meta["chain"].startswith("joined")]  # passed with more around it
    assert len(found) > 100
    for chat in found:
        user = next(turn.content for turn in chat.turns if turn.role == "user")
        calls = [turn.tool_calls for turn in chat.turns if turn.tool_calls]
        results = [turn.content for turn in chat.turns if turn.role == "tool"]
        if len(calls[0]) == 2:  # two are compared, and the next call is about one of them
            assert len(calls) == 2 and any(value in user for value in map(str, calls[1][0].arguments.values()))
            continue
        assert all(len(made) == 1 for made in calls) and len(calls) == len(results)
        for before, made in zip(results, calls[1:], strict=False):
            values = [str(value) for value in made[0].arguments.values()]
            assert any(
                value in before and not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", user) for value in values
            ), (chat.where, values)


def test_a_result_decides_which_request_is_served() -> None:
    """The bound, the result and the words between them, read again from the chat."""
    holds: Counter[bool] = Counter()
    swapped: Counter[bool] = Counter()
    for chat in chats(3200, kinds={"multi_step": 1}):
        if chat.meta.get("chain") != "shelf decided":
            continue
        user = next(turn.content for turn in chat.turns if turn.role == "user")
        found = re.search(rf"(?:({MORE})|({LESS}))(?= -?\d)", user)  # "the time it is over" is a noun
        if found is None:
            continue  # misspelt
        bound = re.match(r"[-\d.:]*\d", user[found.end() :].lstrip())
        results = [json.loads(turn.content) for turn in chat.turns if turn.role == "tool"]
        served = [turn.tool_calls[0] for turn in chat.turns if turn.tool_calls][1]
        assert bound is not None and len(results) == 2
        text = bound[0]
        values = list(results[0].values())
        if re.fullmatch(r"-?[\d.]+", text):
            above = {value > float(text) for value in values if isinstance(value, (int, float))}
        else:
            above = {value > text for value in values if isinstance(value, str) and len(value) == len(text)}
        if len(above) != 1:
            continue  # another field of the result lies on the other side
        true = above.pop() == bool(found[1])
        holds[true] += 1
        words = [str(value) for value in served.arguments.values()]
        after = user[found.end() :]
        cut = re.search(r"otherwise|if not|or else|if it's not so|if it does not turn out so", after)
        if cut is None or re.search("depend", user, re.IGNORECASE):
            continue
        first, second = after[: cut.start()], after[cut.end() :]
        if other := SWAPPED.match(second):  # one value of the first request for another, which is all that is said
            x, y = (text.strip('"') for text in other.group("x", "y"))
            if (x in words) != (y in words):
                assert (x in words) == true, (user, served)
                swapped[true] += 1
            continue
        # small numbers are also said in words, and short codes are parts of others
        words = [value for value in words if value not in map(str, range(20)) and (value.isdigit() or len(value) > 2)]
        said = [value for value in words if (value in first) != (value in second)]
        if said and after.count(said[0]) == 1 and " to know that" not in after.casefold():
            # where the second names nothing but its one value, all others are the first's
            assert any(value in second for value in said) != true, (user, served)
    assert holds[True] > 25 and holds[False] > 25 and min(swapped[True], swapped[False]) >= 2


def test_a_result_is_put_behind_the_words_that_were_said() -> None:
    seen = 0
    for chat in chats(1500, kinds={"multi_step": 1}):
        if chat.meta.get("chain") == "shelf together":
            user = next(turn.content for turn in chat.turns if turn.role == "user")
            results = [json.loads(turn.content) for turn in chat.turns if turn.role == "tool"]
            served = [turn.tool_calls[0] for turn in chat.turns if turn.tool_calls][1]
            texts = [value for value in served.arguments.values() if isinstance(value, str)]
            ends = tuple(shown(value) for value in results[0].values())
            whole = next(text for text in texts if text.endswith(ends))
            assert whole not in user
            seen += 1
    assert seen > 20


def test_most_answers_that_no_tool_fits_do_not_name_what_was_asked() -> None:
    known = {text for entry in phrases().values() for text in [entry.get("does")] if text}
    known |= {entry.does for entry in shelf().values()}
    bare_, all_ = 0, 0
    for chat in chats(1500, seed=22, kinds={"irrelevance": 1}):
        if "invented" in chat.meta:
            continue
        text = chat.turns[-1].content.split("What I can do")[0].split("I could")[0]
        if "tool" in text or "here" in text:
            all_ += 1
            bare_ += not any(does in text for does in known)
    assert all_ > 500 and 0.55 < bare_ / all_ < 0.85


@pytest.mark.parametrize("count", [500, pytest.param(2500, marks=pytest.mark.slow)])
def test_answers_that_no_tool_fits_are_told_from_refusals_and_questions(count: int) -> None:
    """As the evaluation tells them, in a model that has learnt them."""
    made = {framing(Random(seed), "no_tool") for seed in range(count)}
    assert len(made) > 0.4 * count
    for text in made:
        assert lacks_means(text) and not refuses(text) and not asks(text), text
    for entry in shelf().values():
        for question in (question for ask in entry.ask.values() for question in ask.questions):
            assert asks(question) and not refuses(question) and not lacks_means(question), question
