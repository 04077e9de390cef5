"""The built-in chats keep their promises: replayable, derivable, unique, held out, deterministic."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from toolkit.chats import Chat
from toolkit.data.sources import load_chats
from toolkit.errors import DataError
from toolkit.recipe.schema import SourceSection
from toolkit.world import DOMAINS, MIX, SPLITS, TOOLS, TRAINING_MIX, World, chats, fingerprint
from toolkit.world.language import parse, phrases
from toolkit.world.shelf.entry import shelf
from toolkit.world.shelf.values import choices

SAMPLE = 1500


@pytest.fixture(scope="module")
def sample() -> list[Chat]:
    """Some of every split and kind, and the test set."""
    trained = [*chats(SAMPLE), *chats(SAMPLE, split="phrasing"), *chats(SAMPLE, split="tools")]
    return [*trained, *(chat for split in SPLITS[1:] for chat in chats(500, split=split, test=True))]


@pytest.fixture(scope="module")
def full() -> list[Chat]:
    """The whole default training set."""
    return list(chats())


@pytest.fixture(scope="module", params=["its beginning", pytest.param("all of it", marks=pytest.mark.endurance)])
def train(request: pytest.FixtureRequest, sample: list[Chat]) -> list[Chat]:
    """The default training set."""
    return sample[:SAMPLE] if request.param == "its beginning" else request.getfixturevalue("full")


def user_texts(chat: Chat) -> list[str]:
    return [turn.content for turn in chat.turns if turn.role == "user"]


def offered(chat: Chat) -> set[str]:
    return {tool["function"]["name"] for tool in chat.tools}


def called(chat: Chat) -> list[str]:
    return [call.name for turn in chat.turns for call in turn.tool_calls]


def behind(chat: Chat, names: Iterable[str]) -> list[str]:
    """The built-in tools behind names that a chat shows; invented ones have none."""
    aliases = chat.meta.get("aliases", {})
    tools = [aliases[name].get("tool") if name in aliases else name for name in names]
    return [name for name in tools if name is not None]


def digest(items: Iterator[Chat]) -> str:
    return hashlib.sha256("\n".join(map(repr, items)).encode()).hexdigest()


def test_every_tool_result_is_what_the_tool_returns(sample: list[Chat]) -> None:
    assert {chat.kind for chat in sample} == set(MIX)
    for chat in sample:
        world = World(chat.meta["world"], chat.meta.get("aliases"))
        results: list[tuple[str, str]] = []
        for turn in chat.turns:
            if turn.role == "assistant":
                assert not results, "results stand before the next assistant turn"
                results = [(call.name, world.call(call.name, call.arguments)) for call in turn.tool_calls]
            elif turn.role == "tool":
                assert (turn.name, turn.content) == results.pop(0), chat.where
        assert not results


def test_calls_fit_the_schemas_on_offer(sample: list[Chat]) -> None:
    for chat in sample:
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in chat.tools}
        assert len(schemas) == len(chat.tools) <= 8
        assert chat.meta["tools_used"] == list(dict.fromkeys(called(chat)))
        for turn in chat.turns:
            for call in turn.tool_calls:
                schema = {**schemas[call.name], "additionalProperties": False}
                jsonschema.Draft202012Validator(schema).validate(call.arguments)
                order = list(schema["properties"])
                assert list(call.arguments) == sorted(call.arguments, key=order.index)


def test_turns_are_well_formed(sample: list[Chat]) -> None:
    for chat in sample:
        roles = [turn.role for turn in chat.turns]
        assert roles.count("system") <= 1 and "system" not in roles[1:]
        assert chat.turns[-1].role == "assistant" and chat.turns[-1].content
        for before, turn in zip(chat.turns, chat.turns[1:], strict=False):
            if turn.role == "user":
                assert before.role in ("system", "assistant") and not before.tool_calls
            if turn.role == "tool":
                assert before.role in ("assistant", "tool") and (before.tool_calls or before.role == "tool")
        for turn in chat.turns:
            assert bool(turn.content) != bool(turn.tool_calls)
            assert turn.content == turn.content.strip()
            if turn.role in ("system", "user"):
                assert not re.search(r"\{_?[a-z]\w*\}", turn.content), turn.content
                assert "  " not in turn.content
        assert chat.source in ("builtin:tools", "builtin:test") and chat.where.startswith(f"{chat.source}#")
        json.dumps(chat.meta)


WORDS = dict(
    zip(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), range(1, 11), strict=True)
)
SAID = {
    "sha256": "SHA-256",
    "sha1": "SHA-1",
    "md5": "MD5",
    "driving": "car",
    "walking": "foot",
    "cycling": "bike",
    "transit": "public transport",
    "co2": "CO2",
}
# what the shelf's enums are called, as the words that users have for each
SHELF_SAID: dict[str, set[str]] = {}
for kind in {param.kind.removeprefix("list ") for entry in shelf().values() for param in entry.params.values()}:
    if kind.startswith(("one of ", "any of ")):
        for value, ways in choices(kind.split(" of ", 1)[1]).items():
            SHELF_SAID.setdefault(value, set()).update(ways)
DATE, CLOCK = re.compile(r"\d{4}-\d\d-\d\d"), re.compile(r"\d\d:\d\d")
DAYS = re.compile(r"today|tomorrow|yesterday|\b[A-Z][a-z]+day\b|\b\d+ [A-Z][a-z]+\b|\b[A-Z][a-z]+ \d+\b")
# arguments that the words describe rather than spell out, by chain and parameter
DESCRIBED = {("coupon_or_return", "reason"), ("heat_by_weather", "temperature"), ("charge_some_more", "limit")}


def slipped(word: str, meant: str) -> bool:
    """Whether the word lacks one letter of what was meant, or has two of them swapped."""
    swaps = (meant[:i] + meant[i + 1] + meant[i] + meant[i + 2 :] for i in range(len(meant) - 1))
    return word in {meant[:i] + meant[i + 1 :] for i in range(len(meant))} | set(swaps)


def follows(value: Any, text: str, system: str) -> bool:
    """Whether a careful reader finds the value in the chat so far."""
    if isinstance(value, list):
        return all(follows(item, text, system) for item in value)
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        if value in text or (value in SAID and SAID[value] in text):
            return True
        if any(way in text for way in SHELF_SAID.get(value, ())):
            return True
        if DATE.fullmatch(value):
            # said without a year, it takes the date in the system turn
            return bool(DAYS.search(text)) and (bool(DATE.search(system)) or value[:4] in text)
        if CLOCK.fullmatch(value):
            return bool(re.search(r"\d (am|pm)\b", text))
        # a slip of the fingers in a template's word such as "temperature", which names a choice
        if re.fullmatch(r"[a-z]{5,}", value) and any(slipped(word, value) for word in re.findall(r"\w+", text)):
            return True
        name, ending = Path(value).stem, Path(value).suffix
        if ending and "/" not in value and name in text and ending in text:  # the one found, the other said
            return True
        head, slash, tail = value.rpartition("/")
        return bool(slash) and all(follows(part, text, system) or part in text for part in (head, tail))
    lowered = text.lower()
    return bool(re.search(rf"(?<![\w.]){re.escape(str(value))}(?!\w|\.\d)", text)) or any(
        number == value and re.search(rf"\b{word}\b", lowered) for word, number in WORDS.items()
    )


def own_name(chat: Chat, tool: str, name: str) -> str:
    """The parameter's name in the built-in tool behind an alias."""
    params: dict[str, str] = chat.meta.get("aliases", {}).get(tool, {}).get("params", {})
    return params.get(name, name)


def test_arguments_follow_from_the_words(sample: list[Chat]) -> None:
    checked = 0
    for chat in sample:
        implied = [item for source in chat.meta["templates"] for item in parse(source).fixed.items()]
        system = chat.turns[0].content if chat.turns[0].role == "system" else ""
        text = ""
        for turn in chat.turns:
            for call in turn.tool_calls:
                for name, value in call.arguments.items():
                    name = own_name(chat, call.name, name)
                    if (name, value) in implied or (chat.meta.get("chain"), name) in DESCRIBED:
                        continue
                    if chat.meta.get("chain") == "invented noted" and isinstance(value, str) and value not in text:
                        # the user's words with N for a number, which a result told
                        (number,) = re.findall(r"\d(?:[\d,.]*\d)?", value)
                        assert value.replace(number, "N") in text and number.replace(",", "") in text
                        continue
                    put = re.fullmatch(r"([A-Z][a-z]+)([-_/#: ])(.+)", value) if isinstance(value, str) else None
                    if put is not None and chat.meta.get("chain") == "shelf together" and value not in text:
                        words, mark, rest = put.groups()
                        assert (
                            f'"{words}{mark.strip()}"'.casefold() in text.casefold() and json.dumps(rest)[1:-1] in text
                        )
                        continue
                    checked += 1
                    assert follows(value, text, system), (chat.where, call.name, name, value, user_texts(chat))
            text += "\n" + turn.content
    assert checked > 3000


def test_no_user_text_repeats(train: list[Chat], sample: list[Chat]) -> None:
    assert len(train) in (SAMPLE, 15_694)
    texts = Counter(text.casefold() for chat in train for text in user_texts(chat))
    assert [text for text, count in texts.items() if count > 1] == []
    held = [text.casefold() for chat in sample[SAMPLE:] for text in user_texts(chat)]
    assert not texts.keys() & set(held)


def test_a_recipe_that_names_no_kinds_has_the_mix_for_training() -> None:
    source = SourceSection(source="builtin:tools", size=400)
    counts = Counter(chat.kind for chat in load_chats([source]))
    assert counts == Counter(chat.kind for chat in chats(400))
    for kind, share in TRAINING_MIX.items():
        assert counts[kind] == pytest.approx(share * 400, abs=5)


@pytest.mark.endurance
def test_shares_of_kinds(full: list[Chat]) -> None:
    counts = Counter(chat.kind for chat in full)
    for kind, share in TRAINING_MIX.items():
        assert counts[kind] == pytest.approx(share * len(full), abs=5)
    flags = Counter(
        flag for chat in full for flag in ("dangerous", "benign_lookalike", "error", "told") if chat.meta.get(flag)
    )
    assert flags["dangerous"] == counts["refuse"]
    for flag in ("benign_lookalike", "error", "told"):
        assert flags[flag] > 100, flag
    second = sum(len(user_texts(chat)) > 1 and chat.kind != "clarify" for chat in full)
    assert 0.08 < second / len(full) < 0.2


def test_kinds_are_what_they_say(sample: list[Chat]) -> None:
    for chat in sample:
        first = next(turn for turn in chat.turns if turn.role == "assistant")
        calls = [len(turn.tool_calls) for turn in chat.turns if turn.tool_calls]
        match chat.kind:
            case "single":
                assert len(first.tool_calls) == 1
            case "parallel":
                assert len(first.tool_calls) >= 2
            case "multi_step":
                assert len(calls) >= 2 and sum(calls) <= 7
            case "clarify":
                assert first.content and not first.tool_calls
                assert chat.meta["missing"]
            case "refuse":
                assert first.content and not first.tool_calls
                assert chat.meta["dangerous"]
            case "irrelevance":
                assert not calls
                assert offered(chat)


def test_held_out_splits(train: list[Chat], sample: list[Chat]) -> None:
    unseen = {name for name, tool in TOOLS.items() if tool.held_out}
    phrasing, tools = sample[SAMPLE : 2 * SAMPLE], sample[2 * SAMPLE : 3 * SAMPLE]
    for chat in (*train, *phrasing):
        assert not offered(chat) & unseen
        assert not set(behind(chat, offered(chat))) & unseen
    for chat in tools:
        assert set(called(chat)) <= unseen
    assert unseen == {name for chat in tools for name in called(chat)}
    trained = {source for chat in train for source in chat.meta["templates"]}
    assert not trained & {source for chat in phrasing for source in chat.meta["templates"]}
    assert not trained & {source for chat in tools for source in chat.meta["templates"]}
    assert len({source for chat in phrasing for source in chat.meta["templates"]}) > 300


@pytest.mark.endurance
def test_every_tool_and_template_is_used(full: list[Chat]) -> None:
    assert {name for chat in full for name in behind(chat, called(chat))} == {
        name for name, tool in TOOLS.items() if tool.trained
    }
    used = {source for chat in full for source in chat.meta["templates"]}
    say = {source for name, tool in TOOLS.items() if tool.trained for source in phrases()[name]["say"]}
    assert len(say - used) < 0.01 * len(say), say - used


def test_near_duplicates_are_on_offer(train: list[Chat]) -> None:
    """Half of the distractors come from the domain of the tool that is needed."""
    chosen = [c for c in train if c.kind == "single" and not (c.meta.get("invented") or c.meta.get("shelf"))]
    near = sum(
        any(TOOLS[name].domain == TOOLS[used].domain for name in set(behind(chat, offered(chat))) - {used})
        for chat in chosen
        for used in behind(chat, called(chat)[:1])
    )
    assert near > 0.5 * len(chosen)


@pytest.mark.parametrize("split", SPLITS)
def test_same_arguments_same_chats(split: str) -> None:
    first = digest(chats(150, seed=4, split=split))
    assert first == digest(islice(chats(400, seed=4, split=split), 150)), "a smaller size gives the first chats"
    assert first != digest(chats(150, seed=5, split=split))


def test_same_chats_in_another_process() -> None:
    code = (
        "import hashlib; from toolkit.world import chats;"
        "print(hashlib.sha256('\\n'.join(map(repr, chats(150, seed=4))).encode()).hexdigest())"
    )
    for seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == digest(chats(150, seed=4))


def test_no_call_stands_twice_in_a_turn() -> None:
    for seed in (10, 25, 32):  # each asked for one alarm in two ways, as 05:00 and 5 am
        for chat in chats(64, seed, domains=("home",), kinds={"parallel": 1}, max_tools=2):
            for turn in chat.turns:
                calls = [(call.name, json.dumps(call.arguments)) for call in turn.tool_calls]
                assert len(set(calls)) == len(calls), turn


@pytest.mark.parametrize("split", SPLITS)
def test_small_worlds_have_enough_to_say(split: str) -> None:
    """A quickstart: three domains, two tools on offer, no chains, a few thousand chats."""
    kinds = {"single": 0.5, "parallel": 0.1, "clarify": 0.15, "refuse": 0.1, "irrelevance": 0.15}
    domains = ("weather", "home", "notes")
    texts: list[str] = []
    for chat in chats(3000, split=split, domains=domains, kinds=kinds, max_tools=2):
        texts += user_texts(chat)
        assert 1 <= len(chat.tools) <= 2
        assert {TOOLS[name].domain for name in offered(chat)} <= set(domains)
        assert chat.kind in kinds
    assert len({text.casefold() for text in texts}) == len(texts)


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_domain_alone(domain: str) -> None:
    for split in SPLITS:
        made = list(chats(60, split=split, domains=(domain,), max_tools=4))
        assert {"single", "parallel", "clarify", "refuse", "irrelevance"} <= {chat.kind for chat in made}
        assert all(TOOLS[name].domain == domain for chat in made for name in offered(chat))
    assert "multi_step" in {chat.kind for chat in chats(60, domains=(domain,), max_tools=4)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trian"}, "unknown split 'trian', did you mean train?"),
        ({"domains": ["wether"]}, "unknown domain 'wether', did you mean weather?"),
        ({"kinds": {"singel": 1.0}}, "unknown kind 'singel', did you mean single?"),
        ({"kinds": {"single": -1}}, "share of kind single must be a number from 0 up, not -1"),
        ({"kinds": {"single": 0}}, "the shares of all kinds are 0"),
        ({"max_tools": 0}, "max_tools must be at least 1, not 0"),
        ({"kinds": {"multi_step": 1}, "domains": ["weather"], "max_tools": 1}, "no chats of kind multi_step"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        chats(10, **arguments)
    assert message in str(caught.value)


def test_wrong_arguments_are_reported_together() -> None:
    with pytest.raises(DataError) as caught:
        chats(10, split="trian", domains=["wether", "maths"], kinds={"singel": 1})
    assert len(caught.value.problems) == 4


def test_chats_stream() -> None:
    assert next(chats(10**9)).where == "builtin:tools#0"


def test_running_out_of_words_is_an_error() -> None:
    with pytest.raises(DataError, match="no unused user text left for kind irrelevance"):
        # questions about what the assistant can do are few; one seed would go on for ever
        from toolkit.world import generate

        stuck = next(iter(chats(1, 0, domains=("git",), kinds={"irrelevance": 1}, max_tools=1)))
        original = generate._make
        generate._make = lambda *_: stuck  # type: ignore[assignment]
        try:
            list(chats(2, 0, domains=("git",), kinds={"irrelevance": 1}, max_tools=1))
        finally:
            generate._make = original


def test_fingerprint() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", fingerprint())
