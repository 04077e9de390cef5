"""What users say must ask for exactly the arguments that the expected call has, and the held-out words must be new."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from toolkit.world import DOMAINS, TOOLS, World
from toolkit.world.draft import draw
from toolkit.world.facts import _facts
from toolkit.world.language import Piece, lower, misspell, parse, phrases, plain, splice, wording
from toolkit.world.spec import CHAINS, Tool, Unsuitable

KEYS = ("say", "held", "test")


def keys_of(tool: Tool) -> tuple[str, ...]:
    """The lists that requests for the tool have: for training, the development set and the test set."""
    return ("test",) if tool.test else ("say",) if tool.held_out else KEYS


def lists(entry: Any, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every list of user phrases below an entry, with its path ending in say, held or test."""
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key in KEYS:
                yield f"{path}/{key}", value
            else:
                yield from lists(value, f"{path}/{key}")


def everything() -> dict[str, Any]:
    return {**phrases(), "facts": _facts(), "wording": wording()}


def test_counts() -> None:
    assert len(DOMAINS) >= 12
    assert len(TOOLS) >= 60
    assert 0.15 < sum(tool.held_out for tool in TOOLS.values()) / len(TOOLS) < 0.4
    for domain in DOMAINS:
        kinds = {tool.held_out for tool in TOOLS.values() if tool.domain == domain}
        assert kinds == {False, True}, f"{domain} needs tools for training and unseen ones"


@pytest.mark.parametrize("name", TOOLS)
def test_every_parameter_is_described(name: str) -> None:
    tool = TOOLS[name]
    assert tool.description.endswith(".")
    for key, schema in tool.parameters["properties"].items():
        assert schema["description"], key
    assert set(tool.required) <= set(tool.parameters["properties"])


@pytest.mark.parametrize("name", TOOLS)
def test_templates_fill_the_required_arguments(name: str) -> None:
    tool, entry = TOOLS[name], phrases()[name]
    known, required = set(tool.parameters["properties"]), set(tool.required)
    keys = keys_of(tool)
    assert entry["does"] and entry["answers"]
    for key in keys:
        for table in (entry, entry.get("many", {}), entry.get("benign", {})):
            for source in table.get(key, ()):
                assert required <= parse(source).arguments <= known, source
        assert entry[key]
        for source in entry.get("again", {}).get(key, ()):
            assert parse(source).arguments <= known
        for param, ask in entry.get("ask", {}).items():
            assert param in required
            assert ask["q"]
            assert ask[key], f"{name} asks for {param}"
            for source in ask[key]:
                arguments = parse(source).arguments
                assert required - arguments == {param}, source
                assert arguments <= known, source
    if "many" in entry:
        for key in keys:
            assert all(entry["many"]["slot"] in parse(source).slots for source in entry["many"][key])


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_of_seen_or_of_unseen_tools(name: str) -> None:
    chain, entry = CHAINS[name], phrases()[f"chain {name}"]
    (keys,) = {keys_of(TOOLS[tool]) for tool in chain.tools}  # a chain of several kinds would fit no split
    assert entry["answers"] and set(keys) == set(KEYS) & set(entry)


def test_refusals_name_tools_of_one_kind() -> None:
    for name, entry in phrases().items():
        if name.startswith("refuse "):
            (keys,) = {keys_of(TOOLS[tool]) for tool in entry["tools"]}
            assert set(keys) == set(KEYS) & set(entry), name
            assert entry["why"]


def test_held_out_phrases_are_new() -> None:
    texts: dict[str, set[str]] = {key: set() for key in KEYS}
    for path, sources in lists(everything()):
        assert len(sources) == len(set(sources)) or path.startswith("/wording"), path
        texts[path.rsplit("/", 1)[1]] |= {source.casefold() for source in sources}
    assert not texts["say"] & texts["held"] and not texts["test"] & (texts["say"] | texts["held"])
    assert len(texts["held"]) > 400 and len(texts["test"]) > 1000


def test_imperatives_can_be_framed() -> None:
    """A template in lower case is taken up by "could you {x}?", so it must start with a verb and be one sentence."""
    not_verbs = {
        "a",
        "an",
        "and",
        "the",
        "if",
        "in",
        "how",
        "what",
        "where",
        "who",
        "is",
        "i",
        "my",
        "new",
        "there",
        "just",
    }
    for path, sources in lists({name: entry for name, entry in everything().items() if name != "wording"}):
        for source in sources:
            template = parse(source)
            if template.imperative:
                assert re.match(r"[a-z-]+", source)[0] not in not_verbs, f"{path}: {source}"  # type: ignore[index]
            assert source.count("{") == source.count("}") == len(template.slots), f"{path}: {source}"


@pytest.mark.parametrize("name", TOOLS)
def test_samplers_work_in_fresh_worlds(name: str) -> None:
    """Slots that a template needs are there, and the call they make succeeds, nearly always."""
    tool, entry = TOOLS[name], phrases()[name]
    failures = 0
    for seed in range(30):
        world, r = World(seed), Random(seed)
        try:
            slots = draw(tool.sample, r, world)
        except Unsuitable:
            failures += 1
            continue
        for source in entry[keys_of(tool)[0]]:
            missing = [slot for slot in parse(source).slots if slots.get(slot) is None]
            assert not missing, f"{source}: {missing}"
    assert failures < 10


def test_slot_values_survive_lower_case_and_typos() -> None:
    pieces = (Piece("Show Me the FILE at "), Piece("/home/Ana/README.md", literal=False), Piece(" in EUR, please."))
    assert plain(lower(pieces)) == "show me the FILE at /home/Ana/README.md in EUR, please."
    texts = [plain(misspell(Random(seed), pieces)) for seed in range(50)]
    assert all("/home/Ana/README.md" in text for text in texts)
    assert sum(text != plain(pieces) for text in texts) > 40


def test_no_second_full_stop_after_a_quoted_sentence() -> None:
    quoted = (Piece("say "), Piece('"It is late."', literal=False))
    assert plain(splice("{x}.", {"x": quoted})) == 'say "It is late."'
    assert plain(splice("Could you {x}?", {"x": quoted})) == 'Could you say "It is late."?'
