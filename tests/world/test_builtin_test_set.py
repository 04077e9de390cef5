"""The test set shares neither its phrasings nor its new tools with training and the development set."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from toolkit.chats import Chat
from toolkit.errors import DataError
from toolkit.world import DOMAINS, MIX, TEST_SIZE, TOOLS, chats, paraphrase
from toolkit.world.disguise import bare
from toolkit.world.facts import _facts
from toolkit.world.framing import framing, rules
from toolkit.world.language import fill, parse, phrases, shown, wording
from toolkit.world.paraphrase import _literal, _sources

# chains whose calls are meant to fail once
FAILING = {"wrong_path", "retry_timeout", "delete_current"}


@pytest.fixture(scope="module")
def tested() -> list[Chat]:
    return [chat for split in ("phrasing", "tools") for chat in chats(TEST_SIZE // 2, split=split, test=True)]


@pytest.fixture(scope="module")
def others() -> list[Chat]:
    """Training chats and the development set."""
    return [*chats(3000, seed=6), *chats(1000, split="phrasing"), *chats(1000, split="tools")]


def texts(found: list[Chat]) -> list[str]:
    return [turn.content.casefold() for chat in found for turn in chat.turns if turn.role == "user"]


def skeletons(*keys: str) -> set[str]:
    """Templates of those lists with their slots blanked, and without the mark at their end."""
    tables = (phrases(), _facts(), wording())
    return {_literal(source).rstrip(".?! ") for table in tables for key in keys for source in _sources(table, key)}


def test_every_kind_has_its_share(tested: list[Chat]) -> None:
    assert len(tested) == TEST_SIZE == 1000
    counts = Counter(chat.kind for chat in tested)
    assert set(counts) == set(MIX) and min(counts.values()) >= 150
    for split in ("phrasing", "tools"):
        half = [chat for chat in tested if chat.meta["split"] == split]
        assert len(half) == 500 and min(Counter(chat.kind for chat in half).values()) >= 75
    assert len({chat.where for chat in tested}) == TEST_SIZE


def test_no_user_text_comes_twice_or_elsewhere(tested: list[Chat], others: list[Chat]) -> None:
    counts = Counter(texts(tested))
    assert [text for text, count in counts.items() if count > 1] == []
    assert not counts.keys() & set(texts(others))


def test_new_tools_are_in_no_other_chat(tested: list[Chat], others: list[Chat]) -> None:
    new = {name: tool for name, tool in TOOLS.items() if tool.test}
    assert len(new) >= 24 and len({tool.domain for tool in new.values()}) >= 5
    assert len({tool.domain for tool in new.values()} - set(DOMAINS)) >= 2
    names, descriptions = {bare(name) for name in new}, {tool.description.rstrip(".").lower() for tool in new.values()}
    parameters = [tool.parameters for tool in new.values() if tool.parameters["properties"]]
    for chat in others:
        for function in (tool["function"] for tool in chat.tools):
            assert bare(function["name"]) not in names
            assert not any(text in function["description"].lower() for text in descriptions)
            assert function["parameters"] not in parameters
    seen, unseen = ([chat for chat in tested if chat.meta["split"] == split] for split in ("phrasing", "tools"))
    assert {call.name for chat in unseen for turn in chat.turns for call in turn.tool_calls} == set(new)
    assert all(TOOLS[tool["function"]["name"]].trained for chat in seen for tool in chat.tools)


def test_no_template_is_one_of_training_or_of_the_development_set() -> None:
    both = skeletons("test") & skeletons(
        "say", "held", "more"
    )  # told alone: nobody is to read the test set's templates
    assert not both


def test_training_paraphrases_make_none_of_its_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be left out if they did; but they do not come near enough to need it."""
    monkeypatch.setattr(paraphrase, "held_skeletons", frozenset)
    made: set[str] = set()
    for source in sorted({*_sources(phrases(), "say"), *_sources(phrases(), "more")}):
        request = fill(source, dict.fromkeys(parse(source).slots, "x"))
        for seed in range(12):
            made.add(paraphrase.skeleton(paraphrase.paraphrase(Random(seed), request).pieces).rstrip(".?! "))
    both = made & skeletons("test")
    assert len(made) > 5000 and not both


def test_training_frames_make_none_of_its_frames() -> None:
    r = Random(0)
    for name in ("frame", "context", "opener", "closer", "reply"):
        if name in rules():
            made = {framing(r, name).casefold() for _ in range(3000)}
            assert not made & {text.casefold() for text in wording()[name]["test"]}


def test_training_chats_say_none_of_its_templates(others: list[Chat]) -> None:
    """Looked for word for word, in templates with a long stretch between two slots."""
    said = "\n".join(texts(others))
    for source in _sources(phrases(), "test"):
        longest = max((text for name, text in parse(source).pieces if not name), key=len, default="")
        if len(longest) >= 30:
            assert longest.casefold().strip(" .?!") not in said, source


def test_calls_fail_only_where_they_are_meant_to(tested: list[Chat]) -> None:
    failed = 0
    for chat in tested:
        errors = [turn for turn in chat.turns if turn.role == "tool" and turn.content.startswith('{"error"')]
        failed += bool(errors)
        assert not errors or chat.meta.get("error") or chat.meta.get("chain") in FAILING, chat.where
        assert bool(errors) or not chat.meta.get("error")
    assert failed > 10


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield shown(value)


def test_answers_say_what_the_tools_returned(tested: list[Chat]) -> None:
    for chat in tested:
        results: list[Any] = []
        for turn in chat.turns:
            if turn.role == "tool":
                results.append(json.loads(turn.content))
            elif turn.role == "assistant" and turn.tool_calls:
                results += [call.arguments for call in turn.tool_calls]
            elif turn.role == "assistant" and results:
                found = {text.lower() for text in leaves(results) if text}
                nothing = any(not item for one in results if isinstance(one, dict) for item in one.values())
                assert nothing or any(text in turn.content.lower() for text in found), (chat.where, turn.content)
                results = []


def test_the_same_chats_in_another_process() -> None:
    code = (
        "import hashlib; from toolkit.world import chats;"
        "print(hashlib.sha256(repr([list(chats(60, split=one, test=True)) for one in ('phrasing', 'tools')])"
        ".encode()).hexdigest())"
    )
    made = repr([list(chats(60, split=one, test=True)) for one in ("phrasing", "tools")])
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hashlib.sha256(made.encode()).hexdigest()


def test_training_can_have_none_of_it() -> None:
    with pytest.raises(DataError, match="unknown split 'train'"):
        chats(10, test=True)
    with pytest.raises(DataError, match="unknown domain 'library'"):
        chats(10, domains=["library"])
    assert list(chats(20, split="tools", domains=["library"], test=True))
