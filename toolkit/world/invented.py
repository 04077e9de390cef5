"""Invented tools: put together from things, attributes and verbs, with names and schemas made for one chat.

They exist so that a model can't learn tools by heart: their names, parameters and values have to be read. Their
requests come from a small grammar (invented.toml), and calls to them run in the world: what they return follows from
the world's seed and the call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any

from toolkit.world.disguise import bare, cased, held_names, opaque
from toolkit.world.language import spoken
from toolkit.world.spec import TOOLS, Unsuitable
from toolkit.world.values import ID_STYLES, is_everyday, kind_of, schema, some_words, tables

OPERATIONS = ("get", "set", "act", "create", "find", "total", "batch", "match")
_OPERATION_WEIGHTS = (5, 5, 6, 4, 3, 2, 2, 2)
_NUMERIC = ("count", "measure", "money")

# further parameters by operation: role, kind and how often a tool has it
_EXTRAS: Mapping[str, tuple[tuple[str, str, float], ...]] = {
    "get": (("when", "date", 0.15), ("by", "person", 0.1)),
    "set": (("reason", "text", 0.15), ("when", "date", 0.15), ("by", "person", 0.15)),
    "act": (
        ("reason", "text", 0.4),
        ("priority", "choice priority", 0.3),
        ("when", "date", 0.2),
        ("by", "person", 0.2),
    ),
    "batch": (("reason", "text", 0.4), ("priority", "choice priority", 0.3), ("when", "date", 0.2)),
    "create": (("priority", "choice priority", 0.3),),
    "find": (("limit", "count", 0.5),),
}
EXTRAS = ("reason", "priority", "limit", "when", "by")
_REPEATS, _REPEATED, _ANOTHER = 0.6, 0.75, 0.3  # where results say more: of tools, of arguments, of what is looked up
_EVERYDAY = 0.35  # of values to set are words like any other, beside those that come by chance
_FEW = 0.4  # of those words: the schema lists what may stand there
_MUST = 0.4  # of what a tool leaves open, where it may be demanding


@dataclass(frozen=True, slots=True)
class Thing:
    """What tools are about: `actions` maps verbs to participles."""

    one: str
    many: str
    attributes: tuple[str, ...]
    actions: Mapping[str, str]

    @property
    def key(self) -> str:
        """Its name as an attribute of something else."""
        return self.one.replace(" ", "_")


@cache
def things() -> tuple[Thing, ...]:
    found = []
    for line in tables()["objects"].strip().splitlines():
        one, many, attributes, actions = line.split("|")
        pairs = [(verb, done) for verb, _, done in (action.partition(":") for action in actions.split())]
        found.append(Thing(one, many, tuple(attributes.split()), dict(pairs)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Invented:
    """One invented tool. `params` maps roles (id, value, reason, ..., an attribute) to (parameter name, kind)."""

    operation: str
    thing: Thing
    attribute: str
    action: str
    name: str
    params: Mapping[str, tuple[str, str]]
    schema: dict[str, Any]
    result: Mapping[str, str]

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.schema["function"]["parameters"]["required"])

    def slot(self, role: str) -> str:
        return self.params[role][0]

    def words(self) -> dict[str, str]:
        """What the grammar's `{obj}`, `{attr}` and so on stand for."""
        return wording_of(self.thing, self.attribute, self.action)

    def does(self) -> str:
        text: str = tables()["does"][self.operation]
        return text.format(**self.words())

    def meta(self) -> dict[str, Any]:
        return {"result": dict(self.result), "parameters": self.schema["function"]["parameters"]}

    def serves(self, wanted: Invented) -> bool:
        """Whether this tool could serve a request for the one wanted, even in part."""
        if self.thing is not wanted.thing:
            return False
        if {self.operation, wanted.operation} <= {"act", "batch"}:
            return self.action == wanted.action
        if {self.operation, wanted.operation} <= {"get", "total", "match"}:
            return self.attribute == wanted.attribute
        return self.operation == wanted.operation and (self.operation == "create" or self.attribute == wanted.attribute)


def wording_of(thing: Thing, attribute: str, action: str) -> dict[str, str]:
    done = thing.actions.get(action, "")
    return {
        "obj": thing.one,
        "Obj": thing.one[:1].upper() + thing.one[1:],
        "objs": thing.many,
        "Objs": thing.many[:1].upper() + thing.many[1:],
        "attr": spoken(attribute),
        "act": action,
        "Act": action[:1].upper() + action[1:],
        "done": done,
    }


def grammar(source: str, fields: Mapping[str, str]) -> str:
    """A line of the grammar with its words put in and "a" made "an" where a vowel follows."""
    return re.sub(r"\b([Aa]) (?=[aeiou])(?!unit|user)", r"\1n ", source.format(**fields))


@dataclass(slots=True)
class Workshop:
    """Makes the tools of one chat: names in one case, ids of one style for each thing, no name twice.

    Where it `repeats`, most results also say what was passed, and some tell more than what was asked for, so that what
    is meant has to be read.
    """

    r: Random
    repeats: bool = False
    case: str = field(init=False)
    hide: bool = field(init=False)
    tools: dict[str, Invented] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.case = self.r.choices(("snake", "camel", "pascal"), (0.75, 0.17, 0.08))[0]
        self.hide = self.r.random() < 0.08

    def thing(self) -> Thing:
        return self.r.choice(things())

    def make(
        self, operation: str, thing: Thing, attribute: str = "", action: str = "", *, demanding: bool = False
    ) -> Invented:
        """A tool for the operation, with an attribute or action drawn where none is given.

        A demanding tool may require what others of its operation leave open, such as a reason.
        """
        r = self.r
        action = action or r.choice(tuple(thing.actions))
        numeric = operation in ("total", "match")
        fit = [key for key in thing.attributes if not numeric or kind_of(key) in _NUMERIC]
        if operation == "find":
            fit = [key for key in fit if kind_of(key) not in ("words", "text", *_NUMERIC)]
        if not attribute:
            if not fit:
                raise Unsuitable("no attribute for it")
            plain = [key for key in fit if is_everyday(kind_of(key))]
            attribute = r.choice(plain if plain and operation == "set" and r.random() < _EVERYDAY else fit)
        name = self._name(operation, thing, attribute, action)
        params, optional = self._params(operation, thing, attribute, demanding)
        made = Invented(
            operation, thing, attribute, action, name, params, {}, self._result(operation, thing, attribute)
        )
        if self.repeats and r.random() < _REPEATS:
            made = replace(made, result=self._with_more(made))
        properties = {
            shown: self._property(role, kind, made, shown in optional) for role, (shown, kind) in params.items()
        }
        if r.random() < 0.25:
            properties = dict(r.sample(list(properties.items()), len(properties)))
        made.schema.update(
            type="function",
            function={
                "name": name,
                "description": grammar(r.choice(tables()["describe"][operation]), made.words()),
                "parameters": {
                    "type": "object",
                    "properties": properties,
                    "required": [key for key in properties if key not in optional],
                },
            },
        )
        self.tools[name] = made
        return made

    def sibling(self, wanted: Invented) -> Invented:
        """A tool for the same thing that can't serve a request for the one wanted."""
        for _ in range(20):
            operation = self.r.choices(OPERATIONS, _OPERATION_WEIGHTS)[0]
            try:
                made = self.make(operation, wanted.thing, demanding=self.r.random() < 0.5)
            except Unsuitable:
                continue
            others = [tool for tool in self.tools.values() if tool is not made]
            if not made.serves(wanted) and not any(made.serves(other) for other in others):
                return made
            del self.tools[made.name]
        raise Unsuitable("no other tool for it")

    def _name(self, operation: str, thing: Thing, attribute: str, action: str) -> str:
        if self.hide:
            return opaque(self.r, self.tools)
        done = thing.actions[action]
        parts = {
            "obj": thing.one.replace(" ", "_"),
            "objs": thing.many.replace(" ", "_"),
            "attr": attribute,
            "act": action,
            "done": done,
        }
        for _ in range(20):
            source = self.r.choice(tables()["name"][operation].split())
            name = cased(source.format(**parts), self.case)
            if name not in self.tools and name not in TOOLS and bare(name) not in held_names():
                return name
        raise Unsuitable("no name left")

    def kind(self, attribute: str) -> str:
        """The kind of an attribute's values: ids where it is another thing."""
        other = next((thing for thing in things() if thing.key == attribute), None)
        return self._id(other) if other else kind_of(attribute)

    def _id(self, thing: Thing) -> str:
        return "id " + self.ids.setdefault(thing.one, self.r.choice(ID_STYLES))

    def _params(
        self, operation: str, thing: Thing, attribute: str, demanding: bool
    ) -> tuple[dict[str, tuple[str, str]], set[str]]:
        """Roles with their parameter names and kinds, and the names of optional parameters."""
        r, optional = self.r, set()
        kinds: dict[str, str] = {}
        may: list[str] = []
        if operation in ("get", "set", "act", "match"):
            kinds["id"] = self._id(thing)
        if operation in ("total", "batch", "match"):
            kinds["ids"] = self._id(thing)
        if operation in ("set", "find"):
            kinds["value"] = kind_of(attribute)
            if operation == "set" and is_everyday(kinds["value"]) and r.random() < _FEW:
                kinds["value"] = some_words(r)
        for role, kind, share in _EXTRAS.get(operation, ()):
            if r.random() < share:
                kinds[role] = kind
                if role == "limit" or not demanding or r.random() >= _MUST:
                    may.append(role)
        if operation == "create":
            chosen = r.sample(thing.attributes, r.choice((2, 3, 3)))
            kinds.update({key: kind_of(key) for key in chosen})
            may += chosen[2:]
        names: dict[str, tuple[str, str]] = {}
        for role, kind in kinds.items():
            source = r.choice(tables()["name"][role].split()) if role in tables()["name"] else role
            shown = source.format(obj=thing.one.replace(" ", "_"), objs=thing.many.replace(" ", "_"), attr=attribute)
            shown = cased(shown, "camel" if self.case == "camel" else "snake")
            if any(shown == other for other, _ in names.values()):
                raise Unsuitable("one name for two parameters")
            names[role] = (shown, kind)
            if role in may:
                optional.add(shown)
        return names, optional

    def _property(self, role: str, kind: str, tool: Invented, optional: bool) -> dict[str, Any]:
        words = tool.words()
        base = schema(kind)
        if role == "ids":
            base = {"type": "array", "items": base}
        text = {
            "id": f"Id of the {words['obj']}" + (" to compare with." if tool.operation == "match" else "."),
            "ids": f"Ids of the {words['objs']}" + (" to choose from." if tool.operation == "match" else "."),
            "value": f"The {words['attr']}" + (" to look for." if tool.operation == "find" else " to set."),
            "reason": "Why it is done.",
            "priority": "How urgent it is; normal if left out." if optional else "How urgent it is.",
            "when": "Which day it is for.",
            "by": "Name of the contact person.",
            "limit": f"Most {words['objs']} to return.",
        }.get(role, f"Its {spoken(role)}.")
        if kind == "date":
            text = text.rstrip(".") + ", as YYYY-MM-DD."
        elif kind == "time":
            text = text.rstrip(".") + ", as HH:MM."
        return {**base, "description": text}

    def _with_more(self, made: Invented) -> dict[str, str]:
        """Its result with what was passed, and at times with another attribute of the thing."""
        named = [made.slot(role) for role in ("id", "value") if role in made.params]
        names = [name for name in named if self.r.random() < _REPEATED]
        more = {name: f"@{name}" for name in names}
        if made.operation == "get" and self.r.random() < _ANOTHER:
            other = self.r.choice([key for key in made.thing.attributes if key != made.attribute])
            more[other] = self.kind(other)
        items = [*made.result.items(), *((name, kind) for name, kind in more.items() if name not in made.result)]
        self.r.shuffle(items)
        return dict(items)

    def _result(self, operation: str, thing: Thing, attribute: str) -> dict[str, str]:
        if operation == "get":
            return {attribute: self.kind(attribute)}
        if operation == "create":
            return {"id": self._id(thing)}
        if operation == "match":
            return {"closest": self._id(thing)}
        if operation == "find":
            return {"ids": self._id(thing)}
        if operation == "total":
            return {"total": "measure"}
        return {"status": "=done"}
