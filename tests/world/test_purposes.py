"""Chats whose request says what it is for: the purpose alone tells which are refused."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from toolkit.chats import Chat
from toolkit.evaluation.answer_kinds import asks, lacks_means, refuses
from toolkit.world import chats
from toolkit.world.language import parse, phrases
from toolkit.world.paraphrase import _words, held_words
from toolkit.world.purposes import table


@pytest.fixture(scope="module")
def made() -> list[Chat]:
    return list(chats(500, seed=41, purposes=1.0))


def test_a_harmful_purpose_is_refused_and_another_is_served(made: list[Chat]) -> None:
    assert Counter(chat.kind for chat in made).keys() == {"refuse", "single"}
    assert 0.4 < sum(chat.kind == "refuse" for chat in made) / len(made) < 0.6
    for chat in made:
        answer = next(turn for turn in chat.turns if turn.role == "assistant")
        harmful = chat.meta["purpose"] == "harm"
        assert harmful == (chat.kind == "refuse") == chat.meta.get("dangerous", False)
        assert bool(answer.tool_calls) != harmful
        if harmful:
            assert refuses(answer.content) and not asks(answer.content)


def test_the_same_requests_are_refused_and_served(made: list[Chat]) -> None:
    asked = {kind: {chat.meta["templates"][0] for chat in made if chat.kind == kind} for kind in ("refuse", "single")}
    assert len(asked["refuse"] & asked["single"]) > 3 and min(map(len, asked.values())) > 150
    assert 0.35 < sum(chat.meta.get("shelf", False) for chat in made) / len(made) < 0.65


def test_something_is_on_offer_and_everything_is_filled_in(made: list[Chat]) -> None:
    assert all(chat.tools for chat in made)
    assert not any(re.search(r"\{\w+\}", turn.content) for chat in made for turn in chat.turns if turn.role == "user")


def test_purposes_are_many_and_in_no_words_that_only_held_out_phrasings_have() -> None:
    harm, fine = ([one for group in table()[part].values() for one in group["do"]] for part in ("harm", "fine"))
    assert len(harm) > 60 and len(fine) > 30 and len({*harm, *fine}) == len(harm) + len(fine)
    harm_deeds, fine_deeds = (
        [one for group in table()[part].values() for one in group["deed"]] for part in ("harm", "fine")
    )
    assert len(harm_deeds) > 60 and len(fine_deeds) > 25
    assert all(parse(line).imperative for line in (*harm_deeds, *fine_deeds))
    frames = [line for lines in table()["frames"].values() for line in lines]
    for line in (*harm, *fine, *harm_deeds, *fine_deeds, *frames):
        words = _words(re.sub(r"\{[^}]*\}", "", line))
        assert not words & held_words(), (line, words & held_words())


def test_what_is_harmful_is_refused_without_a_tool_for_it() -> None:
    """Of training's refusals: with the tool that could do it, with others, and aims and deeds that are no tool's."""
    entries = {
        line: entry
        for name, entry in phrases().items()
        if name.startswith("refuse ")
        for line in (*entry.get("say", ()), *entry.get("more", ()))
    }
    deeds = {line for group in table()["harm"].values() for line in group["deed"]}
    found: Counter[str] = Counter()
    for chat in chats(400, seed=43, kinds={"refuse": 1.0}):
        answer = next(turn for turn in chat.turns if turn.role == "assistant")
        assert chat.tools and chat.meta["dangerous"] and refuses(answer.content) and not answer.tool_calls
        if chat.meta.get("aim"):
            found["deed" if set(chat.meta["templates"]) & deeds else "aim"] += 1
            continue
        names = {tool["function"]["name"] for tool in chat.tools}
        own = {chat.meta.get("aliases", {}).get(name, {}).get("tool", name) for name in names}
        found["armed" if own & set(entries[chat.meta["templates"][0]]["tools"]) else "unarmed"] += 1
    assert min(found["aim"], found["deed"]) > 60 and found["unarmed"] > 50 and found["armed"] > 150


@pytest.mark.parametrize("what", ["do", "deed"])
def test_a_fine_aim_or_deed_in_the_same_frames_is_not_refused(what: str) -> None:
    wanted = set(table()["fine"]["care"][what])
    if what == "do":
        wanted = {frame.replace("{p}", aim) for frame in table()["frames"]["alone"] for aim in wanted}
    found = [
        next(turn.content for turn in chat.turns if turn.role == "assistant")
        for chat in chats(800, seed=44, kinds={"irrelevance": 1.0})
        if set(chat.meta["templates"]) & wanted
    ]
    assert len(found) > 15 and all(lacks_means(text) and not refuses(text) for text in found)
