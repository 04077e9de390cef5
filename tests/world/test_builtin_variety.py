"""What makes training chats varied keeps what is held out unseen, and every call runnable."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import pytest

from toolkit.chats import Chat
from toolkit.world import TOOLS, World, chats
from toolkit.world.catalog import DOMAINS, Catalog
from toolkit.world.disguise import bare, held_names
from toolkit.world.invented import OPERATIONS, Workshop, things
from toolkit.world.language import Filled, Piece, fill, parse, phrases, plain, wording
from toolkit.world.paraphrase import _sources, _table, _words, held_skeletons, held_words, paraphrase, skeleton
from toolkit.world.spec import Unsuitable
from toolkit.world.values import choices, kind_of, schema, tables, value

QUICKSTART: dict[str, Any] = {"domains": ["home", "music", "shopping"], "kinds": {"single": 1.0}, "max_tools": 2}


@pytest.fixture(scope="module")
def varied() -> list[Chat]:
    return list(chats(1500, seed=3))


def names(chat: Chat) -> list[str]:
    return [tool["function"]["name"] for tool in chat.tools]


def test_a_good_part_of_training_is_varied(varied: list[Chat]) -> None:
    invented = sum(bool(chat.meta.get("invented")) for chat in varied)
    renamed = sum(any("tool" in alias for alias in chat.meta.get("aliases", {}).values()) for chat in varied)
    on_shelf = sum(bool(chat.meta.get("shelf")) for chat in varied)
    assert 0.15 < invented / len(varied) < 0.3 < on_shelf / len(varied) < 0.4
    assert renamed / len(varied) > 0.4
    shown = {name for chat in varied for name in names(chat)}
    assert len(shown) > 20 * len(TOOLS)


@pytest.mark.parametrize("arguments", [{"split": "phrasing"}, {"split": "tools"}, QUICKSTART])
def test_held_out_chats_and_chosen_domains_keep_their_tools(arguments: dict[str, Any]) -> None:
    for chat in chats(300, **arguments):
        assert "aliases" not in chat.meta and "invented" not in chat.meta
        assert set(names(chat)) <= set(TOOLS)


def test_no_name_comes_close_to_an_unseen_tool(varied: list[Chat]) -> None:
    for chat in varied:
        assert not {bare(name) for name in names(chat)} & held_names()
        assert len(set(names(chat))) == len(chat.tools)


def test_aliases_cover_what_is_shown_and_map_back(varied: list[Chat]) -> None:
    for chat in varied:
        aliases = chat.meta.get("aliases", {})
        for tool in chat.tools:
            name, shown = tool["function"]["name"], tool["function"]["parameters"]
            assert (name in aliases) != (name in TOOLS)
            assert set(shown["required"]) <= set(shown["properties"])
            if "tool" in aliases.get(name, {}):
                params, own = aliases[name]["params"], TOOLS[aliases[name]["tool"]].parameters
                assert list(params) == list(shown["properties"])
                assert {params[key] for key in shown["required"]} == set(own["required"])
                assert all(shown["properties"][key] == own["properties"][params[key]] for key in params)


def test_an_alias_runs_the_tool_behind_it_and_takes_no_other_names() -> None:
    aliases = {"readMoney": {"tool": "get_balance", "params": {"acct": "account"}}}
    world, plain_world = World(5, aliases), World(5)
    assert world.call("readMoney", {"acct": "savings"}) == plain_world.call("get_balance", {"account": "savings"})
    assert json.loads(world.call("readMoney", {"account": "savings"})) == {"error": "unknown argument: account"}
    assert json.loads(plain_world.call("readMoney", {"acct": "savings"})) == {"error": "unknown tool: readMoney"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_invented_tools_run_and_check_their_arguments(operation: str) -> None:
    made = 0
    for seed in range(40):
        shop = Workshop(Random(seed))
        try:
            tool = shop.make(operation, shop.thing())
        except Unsuitable:
            continue
        made += 1
        world = World(seed, {tool.name: tool.meta()})
        arguments: dict[str, Any] = {}
        for role, (name, kind) in tool.params.items():
            item = value(kind, Random(seed), world)
            item = getattr(item, "value", item)
            arguments[name] = [item] if role == "ids" else item
        result = world.call(tool.name, arguments)
        assert "error" not in json.loads(result), result
        assert result == World(seed, {tool.name: tool.meta()}).call(tool.name, arguments)
        assert "error" in json.loads(world.call(tool.name, {**arguments, "nonsense": 1}))
        if tool.required:
            fewer = {key: item for key, item in arguments.items() if key != tool.required[0]}
            assert "error" in json.loads(world.call(tool.name, fewer))
    assert made > 25


def test_siblings_cannot_serve_the_request() -> None:
    for seed in range(60):
        shop = Workshop(Random(seed))
        wanted = shop.make("act", shop.thing())
        other = shop.sibling(wanted)
        assert other.thing is wanted.thing and not other.serves(wanted)
        assert other.operation not in ("act", "batch") or other.action != wanted.action


def test_what_tools_are_about_is_complete() -> None:
    for thing in things():
        assert len(thing.attributes) >= 4 and len(thing.actions) >= 3
        for attribute in thing.attributes:
            assert schema(kind_of(attribute))["type"]
    for name in tables()["choices"]:
        assert len(set(choices(name))) >= 2


def test_paraphrases_say_nothing_that_only_held_out_phrasings_say() -> None:
    assert "fish" in held_words() and "show" not in held_words()
    for part in ("verb", "any"):
        for items in _table(part)[1].values():
            assert not {word for item in items for word in _words(item)} & held_words()
    lines = [line for part in tables()["say"].values() for line in part]
    lines += [frame for entry in wording().values() for frame in entry.get("more", ())]
    assert not {word for line in lines for word in _words(re.sub(r"\{\w+\}", "", line))} & held_words()


def test_a_word_that_is_swapped_has_its_article() -> None:
    text = "send an email and add an appointment"
    request = Filled((Piece(text),), {}, imperative=True, dated=False, template=text)
    said = {plain(paraphrase(Random(seed), request).pieces) for seed in range(60)}
    assert len(said) > 3
    assert not [text for text in said if re.search(r"\b(a [aeiou]|an [^aeiou])", text)], said


def test_paraphrases_change_words_and_never_values() -> None:
    changed = 0
    for seed in range(400):
        r = Random(seed)
        source = r.choice([line for name, tool in TOOLS.items() if tool.trained for line in phrases()[name]["say"]])
        slots = dict.fromkeys(re.findall(r"\{(?:on:)?(\w+)\}", source), f"show me the mail {seed}")
        request = fill(source, slots)
        other = paraphrase(r, request)
        assert skeleton(other.pieces) not in held_skeletons()
        assert other.arguments == request.arguments and other.imperative == request.imperative
        assert [p.text for p in other.pieces if not p.literal] == [p.text for p in request.pieces if not p.literal]
        changed += plain(other.pieces) != plain(request.pieces)
    assert changed > 100


def test_every_tool_chain_and_refusal_has_further_requests() -> None:
    """With all that the tool requires, or without the argument that is to be asked for."""
    catalog = Catalog("train", DOMAINS, 8)
    for name in catalog.tools:
        required = set(TOOLS[name].parameters["required"])
        lines = phrases()[name]["more"]
        assert len(lines) >= 2 and all(required <= parse(line).arguments for line in lines), name
    for name, param in catalog.asks:
        lines = phrases()[name]["ask"][param]["more"]
        rest = set(TOOLS[name].parameters["required"]) - {param}
        assert len(lines) >= 2, (name, param)
        assert all(rest <= parse(line).arguments and param not in parse(line).arguments for line in lines), (
            name,
            param,
        )
    for chain in catalog.chains:
        entry = phrases()[f"chain {chain.name}"]
        slots = {slot for line in entry["say"] for slot in parse(line).slots}
        assert entry["more"] and all(set(parse(line).slots) == slots for line in entry["more"]), chain.name
    assert all(len(phrases()[name]["more"]) >= 2 for name in catalog.refusals)
    further = list(_sources(phrases(), "more"))
    assert len(further) > 950 and not {
        word for line in further for word in _words(re.sub(r"\{[^}]*\}", "", line.split(" @")[0])) & held_words()
    }


def test_further_requests_are_asked_in_training_alone(varied: list[Chat]) -> None:
    further = set(_sources(phrases(), "more"))
    say = set(_sources(phrases(), "say"))
    for kind in ("single", "multi_step", "clarify"):
        asked = [set(chat.meta["templates"]) for chat in varied if chat.kind == kind]
        built_in = [templates for templates in asked if templates & (say | further)]
        assert 0.2 < sum(bool(templates & further) for templates in built_in) / len(built_in) < 0.85, kind
    for arguments in ({"split": "phrasing"}, {"split": "tools"}, QUICKSTART):
        assert not any(further & set(chat.meta["templates"]) for chat in chats(200, **arguments))
