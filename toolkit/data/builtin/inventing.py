"""How a chat with invented tools goes: the counterpart of `kinds`, for tools that no other chat has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from toolkit.data.builtin.draft import Draft
from toolkit.data.builtin.invented import Invented, Thing, Workshop, grammar, spoken
from toolkit.data.builtin.language import Filled, join, said, shown
from toolkit.data.builtin.spec import TOOLS, Unsuitable
from toolkit.data.builtin.values import kind_of, tables, value

Flags = dict[str, Any]

# domains whose tools could reach into any register of things
_BROAD = ("database", "files", "http", "shell")
_OPERATIONS = ("get", "set", "act", "create", "find", "total", "batch")
_WEIGHTS = (5, 6, 5, 5, 3, 2, 2)


class Scene:
    """The tools of one chat, and requests for them."""

    def __init__(self, d: Draft) -> None:
        self.d = d
        self.r: Random = d.r
        self.shop = Workshop(d.r)

    # requests

    def line(self, part: str, key: str, tool: Invented, **more: str) -> str:
        """A line of the grammar, with slots where values go."""
        return grammar(self.r.choice(tables()[part][key]), {**tool.words(), **more})

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
        return join(parts), {tool.slot(role): self.draw(tool, role) for role in roles}

    def filled(self, source: str, slots: Mapping[str, Any]) -> Filled:
        self.d.templates.append(source)
        return self.d.fill(source, slots, vary=False)

    def request(self, tool: Invented) -> Filled:
        """A request that the tool can serve, with everything it needs."""
        more: dict[str, str] = {}
        slots: dict[str, Any] = {}
        for role in ("id", "value"):
            if role in tool.params:
                more[role], slots[tool.slot(role)] = self.slot(tool, role), self.draw(tool, role)
        if "ids" in tool.params:
            more["ids"] = self.slot(tool, "ids")
            slots[tool.slot("ids")] = self.ids(tool, "ids", self.r.choice((2, 2, 3, 3, 4)))
        if tool.operation == "create":
            more["fields"], found = self.fields(tool)
            slots.update(found)
        source = self.line("say", tool.operation, tool, **more)
        for role in ("priority", "reason", "limit") if tool.operation != "create" else ():
            if role in tool.params and self.r.random() < 0.45 and not source.endswith((".", "?")):
                source += self.r.choice(tables()["say"][role]).format(**{role: self.slot(tool, role)})
                slots[tool.slot(role)] = self.r.randint(2, 20) if role == "limit" else self.draw(tool, role)
        return self.filled(source, slots)

    # calls

    def ready(self, *tools: Invented) -> None:
        for tool in tools:
            self.d.invent(tool.name, tool.schema, tool.meta())
            self.d.needed.append(tool.name)

    def call(self, *calls: tuple[Invented, Mapping[str, Any]]) -> list[Any]:
        return self.d.call(*((tool.name, arguments) for tool, arguments in calls))

    def answer(self, tool: Invented, arguments: Mapping[str, Any], result: Mapping[str, Any], pick: int) -> str:
        options = tables()["answer"][tool.operation]
        key = next(iter(result))
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
        return self.shop.make(self.r.choices(_OPERATIONS, _WEIGHTS)[0], self.shop.thing())

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


def single(d: Draft) -> Flags:
    """One request and its call; in some chats the system turn says what the user leaves out."""
    s = Scene(d)
    tool = s.make()
    s.ready(tool)
    if tool.operation in ("get", "act", "set") and d.r.random() < 0.15:
        return _told(s, tool)
    request = s.request(tool)
    d.user(request)
    s.serve(tool, request.arguments)
    if d.r.random() < 0.12:
        again = s.request(tool)
        d.user(again)
        s.serve(tool, again.arguments)
    return {"offer": s.offer(tool), "invented": True}


def _told(s: Scene, tool: Invented) -> Flags:
    """A request without the id, which the system turn gives."""
    usual = s.draw(tool, "id")
    s.d.told = s.line("say", "told", tool, id=str(usual))
    slots = {tool.slot("value"): s.draw(tool, "value")} if "value" in tool.params else {}
    more = {"value": s.slot(tool, "value")} if slots else {}
    request = s.filled(s.line("say", f"no_id_{tool.operation}", tool, **more), slots)
    s.d.user(request)
    s.serve(tool, _ordered(tool, {**request.arguments, tool.slot("id"): usual}))
    return {"offer": s.offer(tool), "invented": True, "told": tool.slot("id")}


def parallel(d: Draft) -> Flags:
    """One tool for several things, or two tools for two requests in one message."""
    s = Scene(d)
    if d.r.random() < 0.55:
        operation = d.r.choice(("get", "act", "set"))
        tool = s.shop.make(operation, s.shop.thing())
        s.ready(tool)
        more = {"id": s.slot(tool, "id")}
        ids = s.ids(tool, "id", d.r.choice((2, 2, 2, 3, 3, 4)))
        slots: dict[str, Any] = {tool.slot("id"): ids}
        if operation == "set":
            more["value"] = s.slot(tool, "value")
            slots[tool.slot("value")] = s.draw(tool, "value")
        request = s.filled(s.line("say", f"{operation}_many", tool, **more), slots)
        d.user(request)
        s.serve_all(*((tool, {**request.arguments, tool.slot("id"): item}) for item in ids))
        return {"offer": s.offer(tool, avoid=lambda other: other.operation in ("batch", "total")), "invented": True}
    thing = s.shop.thing()
    tools = [s.make(), s.make() if d.r.random() < 0.5 else s.shop.make("get", thing)]
    if tools[0].thing is tools[1].thing:
        raise Unsuitable("two requests about one thing")
    s.ready(*tools)
    requests = []
    for tool in tools:
        for _ in range(12):
            request = s.request(tool)
            if request.imperative:
                break
            d.templates.pop()
        else:
            raise Unsuitable("no imperative")
        requests.append(request)
    d.user(*requests)
    s.serve_all(*((tool, request.arguments) for tool, request in zip(tools, requests, strict=True)))
    return {"offer": s.offer(*tools), "invented": True}


def _number(thing: Thing, r: Random) -> str:
    fit = [key for key in thing.attributes if kind_of(key) in ("count", "measure", "money")]
    if not fit:
        raise Unsuitable("nothing to compare")
    return r.choice(fit)


def multi_step(d: Draft) -> Flags:
    """A later call made from what an earlier one returned, in one of seven patterns."""
    s = Scene(d)
    thing = s.shop.thing()
    pattern = d.r.choice((_copy, _above, _above, _higher, _higher, _each, _first, _made))
    wanted = pattern(s, thing)
    broad = ("batch", "total", "find")
    return {
        "offer": s.offer(*wanted, avoid=lambda other: other.operation in broad),
        "invented": True,
        "chain": f"invented {pattern.__name__[1:]}",
    }


def _copy(s: Scene, thing: Thing) -> Sequence[Invented]:
    look = s.shop.make("get", thing)
    put = s.shop.make("set", thing, look.attribute)
    s.ready(look, put)
    one, other = s.ids(look, "id", 2)
    source = s.line("say", "copy", look, id=s.slot(look, "id"), other="{_other}")
    s.d.user(s.filled(source, {look.slot("id"): one, "_other": other}))
    (found,) = s.call((look, {look.slot("id"): one}))
    s.serve(put, {put.slot("id"): other, put.slot("value"): found[look.attribute]})
    return look, put


def _above(s: Scene, thing: Thing) -> Sequence[Invented]:
    attribute = _number(thing, s.r)
    look = s.shop.make("get", thing, attribute)
    acts = [s.shop.make("act", thing, action=action) for action in s.r.sample(tuple(thing.actions), 2)]
    s.ready(look, *acts)
    (one,) = s.ids(look, "id", 1)
    arguments = {look.slot("id"): one}
    # the bar is near what the world holds, so that both ways are taken
    found = s.d.peek(look.name, arguments)[attribute]
    bar = max(1, round(found * s.r.choice((0.6, 0.8, 1.2, 1.5))))
    if bar == found:
        raise Unsuitable("just at the bar")
    source = s.line(
        "say", "above", look, id=s.slot(look, "id"), bar="{_bar}", act2=acts[1].action,
        done2=thing.actions[acts[1].action], act=acts[0].action, done=thing.actions[acts[0].action],
    )  # fmt: skip
    s.d.user(s.filled(source, {look.slot("id"): one, "_bar": bar}))
    s.call((look, arguments))
    act = acts[0] if found > bar else acts[1]
    s.serve(act, {act.slot("id"): one})
    return look, *acts


def _higher(s: Scene, thing: Thing) -> Sequence[Invented]:
    look = s.shop.make("get", thing, _number(thing, s.r))
    act = s.shop.make("act", thing)
    s.ready(look, act)
    ids = s.ids(look, "id", 2)
    key = s.r.choice(("higher", "lower"))
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", key, look, id=s.slot(look, "id"), other="{_other}", **words)
    s.d.user(s.filled(source, {look.slot("id"): ids[0], "_other": ids[1]}))
    rows = s.call(*((look, {look.slot("id"): item}) for item in ids))
    found = [row[look.attribute] for row in rows]
    if found[0] == found[1]:
        raise Unsuitable("alike")
    best = ids[found.index(max(found) if key == "higher" else min(found))]
    s.serve(act, {act.slot("id"): best})
    return look, act


def _found(s: Scene, thing: Thing, key: str) -> tuple[Invented, Invented, list[Any]]:
    find, act = s.shop.make("find", thing), s.shop.make("act", thing)
    s.ready(find, act)
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", key, find, value=s.slot(find, "value"), **words)
    request = s.filled(source, {find.slot("value"): s.draw(find, "value")})
    s.d.user(request)
    (found,) = s.call((find, request.arguments))
    if not found["ids"]:
        raise Unsuitable("nothing found")
    return find, act, found["ids"]


def _each(s: Scene, thing: Thing) -> Sequence[Invented]:
    find, act, ids = _found(s, thing, "all")
    s.serve_all(*((act, {act.slot("id"): item}) for item in ids))
    return find, act


def _first(s: Scene, thing: Thing) -> Sequence[Invented]:
    find, act, ids = _found(s, thing, "first")
    s.serve(act, {act.slot("id"): ids[0]})
    return find, act


def _made(s: Scene, thing: Thing) -> Sequence[Invented]:
    make, act = s.shop.make("create", thing), s.shop.make("act", thing)
    s.ready(make, act)
    words, slots = s.fields(make)
    more = {"fields": words, "act": act.action, "done": thing.actions[act.action]}
    request = s.filled(s.line("say", "made", make, **more), slots)
    s.d.user(request)
    (found,) = s.call((make, request.arguments))
    s.serve(act, {act.slot("id"): found["id"]})
    return make, act


def clarify(d: Draft) -> Flags:
    """An id, a value or a field is missing: ask for it; half of the users answer."""
    s = Scene(d)
    operation = d.r.choice(("get", "act", "set", "set", "create"))
    tool = s.shop.make(operation, s.shop.thing())
    s.ready(tool)
    role = "value" if operation == "set" and d.r.random() < 0.55 else "id"
    more = {key: s.slot(tool, key) for key in ("id", "value") if key in tool.params and key != role}
    slots = {tool.slot(key): s.draw(tool, key) for key in more}
    if operation == "create":
        role = d.r.choice([key for key, (name, _) in tool.params.items() if name in tool.required])
        more["fields"], slots = s.fields(tool, without=role)
    key = "no_field" if operation == "create" else "no_value" if role == "value" else f"no_id_{operation}"
    request = s.filled(s.line("say", key, tool, **more), slots)
    d.user(request, neutral=True)
    words = tool.words() if operation != "create" else {**tool.words(), "attr": spoken(role)}
    ask = "ask_id" if role == "id" else "ask_value"
    d.say(grammar(d.r.choice(tables()["answer"][ask]), words))
    if d.r.random() < 0.5:
        missing = s.draw(tool, role)
        d.reply(missing)
        s.serve(tool, _ordered(tool, {**request.arguments, tool.slot(role): said(missing).value}))
    broad = ("batch", "total", "find")
    return {
        "offer": s.offer(tool, avoid=lambda other: other.operation in broad),
        "invented": True,
        "missing": tool.slot(role),
    }


def irrelevance(d: Draft) -> Flags:
    """The request's own tool is not on offer, tools near to it are."""
    s = Scene(d)
    wanted = s.make()
    request = s.request(wanted)
    del s.shop.tools[wanted.name]
    d.user(request)
    near = [s.shop.sibling(wanted) for _ in range(d.r.choice((0, 1, 1, 2)))]
    near = [tool for tool in near if tool.name in s.shop.tools]
    s.ready(*near)
    offer = s.offer(wanted)
    text = d.stock("lacking", does=wanted.does())
    if near and d.r.random() < 0.5:
        text += " " + d.stock("instead", other=d.r.choice(near).does())
    d.say(text)
    return {"offer": offer, "invented": True}


def _ordered(tool: Invented, arguments: Mapping[str, Any]) -> dict[str, Any]:
    names = tool.schema["function"]["parameters"]["properties"]
    return {name: arguments[name] for name in names if name in arguments}


INVENTED: dict[str, Callable[[Draft], Flags]] = {
    "single": single,
    "parallel": parallel,
    "multi_step": multi_step,
    "clarify": clarify,
    "irrelevance": irrelevance,
}
