"""The tools of one chat that no other chat has, and requests for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.invented import EXTRAS, OPERATIONS, Invented, Workshop, grammar
from toolkit.world.language import Filled, join, shown, spoken
from toolkit.world.spec import TOOLS, Unsuitable
from toolkit.world.values import is_everyday, tables, value

# domains whose tools could reach into any register of things
_BROAD = ("database", "files", "http", "shell")
_EVERYDAY = 0.5  # of requests to set an everyday word
_WEIGHTS = (5, 6, 6, 5, 3, 2, 2, 2)
_TOLD = {"create": "id", "match": "closest", "find": "ids", "total": "total"}  # the field that an answer tells


@cache
def _alike(part: str, word: str, others: tuple[str, ...]) -> tuple[str, ...]:
    """Other words for one of a thing's actions or attributes that fit none of its others, nor are among them."""
    table: Mapping[str, str] = tables()["alike"][part]
    rest = {item for other in others if other != word for item in (other, *table.get(other, "").split(", "))}
    taken = {item.partition(":")[0] for item in rest}
    return tuple(item for item in table.get(word, "").split(", ") if item and item.partition(":")[0] not in taken)


class Scene:
    """The tools of one chat, and requests for them."""

    def __init__(self, d: Draft, *, repeats: bool = False) -> None:
        self.d = d
        self.r: Random = d.r
        self.shop = Workshop(d.r, repeats)

    # requests

    def line(self, part: str, key: str, tool: Invented, **more: str) -> str:
        """A line of the grammar, with slots where values go."""
        words = {**tool.words(), **self.other_words(tool)} if part == "say" else tool.words()
        return grammar(self.r.choice(tables()[part][key]), {**words, **more})

    def other_words(self, tool: Invented) -> dict[str, str]:
        """Words for the tool's action or attribute that its schema does not use, where nothing else could be meant."""
        words: dict[str, str] = {}
        if self.r.random() < 0.45 and (options := _alike("action", tool.action, tuple(tool.thing.actions))):
            words["act"], words["done"] = self.r.choice(options).split(":")
            words["Act"] = words["act"][:1].upper() + words["act"][1:]
        if self.r.random() < 0.3 and (options := _alike("attribute", tool.attribute, tool.thing.attributes)):
            words["attr"] = self.r.choice(options)
        return words

    def slot(self, tool: Invented, role: str) -> str:
        return "{" + tool.slot(role) + "}"

    def draw(self, tool: Invented, role: str) -> Any:
        return value(tool.params[role][1], self.r, self.d.world)

    def ids(self, tool: Invented, role: str, count: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < count:
            if (item := self.draw(tool, role)) not in found:
                found.append(item)
        return found

    def fields(self, tool: Invented, without: str = "") -> tuple[str, dict[str, Any]]:
        """The words for the attributes of a new thing, and their values; optional ones are often left out."""
        roles = [
            role
            for role, (name, _) in tool.params.items()
            if role != without and (name in tool.required or self.r.random() < 0.5)
        ]
        self.r.shuffle(roles)
        style = self.r.choice(("{a} {v}", "{a} {v}", "{a}: {v}", "{v} as {a}", "the {a} {v}", "{a} = {v}"))
        parts = [style.replace("{a}", spoken(role)).replace("{v}", self.slot(tool, role)) for role in roles]
        if not parts:
            return "", {}
        return join(parts), {tool.slot(role): self.draw(tool, role) for role in roles}

    def filled(self, source: str, slots: Mapping[str, Any]) -> Filled:
        self.d.templates.append(source)
        return self.d.fill(source, slots, vary=False)

    def request(self, tool: Invented, without: str = "", some: str = "some") -> Filled:
        """A request that the tool can serve: with all that it requires, and some of what it leaves open.

        `without` is a role that the user forgets; `some` are the words for a thing whose id is not said, "usual" where
        the system turn says what is left out.
        """
        more: dict[str, str] = {"some": self.line("say", some, tool)} if without == "id" else {}
        slots: dict[str, Any] = {}
        for role in ("id", "value"):
            if role in tool.params and role != without:
                more[role], slots[tool.slot(role)] = self.slot(tool, role), self.draw(tool, role)
        if "ids" in tool.params and without != "ids":
            more["ids"] = self.slot(tool, "ids")
            count = self.r.choice((3, 3, 4)) if tool.operation == "match" else self.r.choice((2, 2, 3, 3, 4))
            slots[tool.slot("ids")] = self.ids(tool, "ids", count)
            if slots.get(tool.params.get("id", ("", ""))[0]) in slots[tool.slot("ids")]:
                raise Unsuitable("compared with itself")
        key = tool.operation
        if key == "create":
            more["fields"], found = self.fields(tool, without)
            slots.update(found)
            if without:
                key = "no_field" if found else "no_field_bare"
        elif without in ("id", "ids", "value"):
            key = f"no_{without}_{key}"
        if without == "value" and some == "usual":
            key = "usual_set"
        if key in ("set", "set_many"):
            key = self.everyday(tool, key)
        source = self.line("say", key, tool, **more)
        for role in EXTRAS if tool.operation != "create" else ():
            if role in tool.params and role != without and (tool.slot(role) in tool.required or self.r.random() < 0.45):
                source = self._with(source, role, self.slot(tool, role))
                slots[tool.slot(role)] = self.r.randint(2, 20) if role == "limit" else self.draw(tool, role)
        return self.filled(source, slots)

    def everyday(self, tool: Invented, key: str) -> str:
        """The key of request lines for a value; now and then of those for one that reads like any other word."""
        return f"{key}_everyday" if is_everyday(tool.params["value"][1]) and self.r.random() < _EVERYDAY else key

    def _with(self, source: str, role: str, slot: str) -> str:
        """The request with one more argument, in the same sentence or in one of its own."""
        ended = source.endswith((".", "?", "!"))
        if not ended and self.r.random() < 0.7:
            return source + str(self.r.choice(tables()["say"][role]).format(**{role: slot}))
        after = self.r.choice(tables()["say"][f"after_{role}"]).format(**{role: slot})
        return f"{source}{'' if ended else '.'} {after}"

    # calls

    def ready(self, *tools: Invented) -> None:
        for tool in tools:
            self.d.invent(tool.name, tool.schema, tool.meta())
            self.d.needed.append(tool.name)

    def call(self, *calls: tuple[Invented, Mapping[str, Any]]) -> list[Any]:
        return self.d.call(*((tool.name, arguments) for tool, arguments in calls))

    def answer(self, tool: Invented, arguments: Mapping[str, Any], result: Mapping[str, Any], pick: int) -> str:
        options = tables()["answer"][tool.operation]
        key = _TOLD.get(tool.operation, tool.attribute if tool.operation == "get" else "status")
        fields = {role: shown(arguments[name]) for role, (name, _) in tool.params.items() if name in arguments}
        text = shown(result[key])
        if tool.operation == "find" and not result["ids"]:
            return grammar("No {obj} has that {attr}.", tool.words())
        if tool.operation == "find":
            fields["ids"] = text
        fields["new_id"] = text
        return grammar(options[pick % len(options)], {**tool.words(), **fields, "result": text})

    def serve(self, tool: Invented, arguments: Mapping[str, Any]) -> None:
        self.serve_all((tool, arguments))

    def serve_all(self, *calls: tuple[Invented, Mapping[str, Any]]) -> None:
        results = self.call(*calls)
        pick = self.r.randrange(12)
        texts = [self.answer(tool, args, result, pick) for (tool, args), result in zip(calls, results, strict=True)]
        self.d.say(" ".join(texts))

    def make(self) -> Invented:
        operation = self.r.choices(OPERATIONS, _WEIGHTS)[0]
        return self.shop.make(operation, self.shop.thing(), demanding=self.r.random() < 0.6)

    # what else is on offer

    def offer(self, *wanted: Invented, avoid: Callable[[Invented], bool] | None = None) -> tuple[str, ...]:
        """The tools needed, siblings of theirs, tools for other things and built-in ones, in mixed order."""
        d, r = self.d, self.r
        chosen = list(dict.fromkeys(d.needed))
        target = r.randint(max(len(chosen), 2), max(d.catalog.max_tools - 1, len(chosen)))
        others = [name for name in d.catalog.offered if TOOLS[name].domain not in _BROAD]
        while len(chosen) < target:
            which = r.random()
            if which < 0.55:
                made = self.shop.sibling(r.choice(wanted))
                if any(made.serves(one) for one in wanted) or (avoid and avoid(made)):
                    target -= 1
                    continue
            elif which < 0.75:
                made = self.make()
                if any(made.thing is one.thing for one in wanted):
                    continue
            else:
                name = r.choice(others)
                if name not in chosen:
                    chosen.append(name)
                continue
            d.invent(made.name, made.schema, made.meta())
            chosen.append(made.name)
        r.shuffle(chosen)
        return tuple(chosen)


def ordered(tool: Invented, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in the schema's order."""
    names = tool.schema["function"]["parameters"]["properties"]
    return {name: arguments[name] for name in names if name in arguments}
