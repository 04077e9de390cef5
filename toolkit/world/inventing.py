"""How a chat with invented tools goes: the counterpart of `kinds`, for tools that no other chat has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.invented import EXTRAS, OPERATIONS, Invented, grammar
from toolkit.world.invented_chains import multi_step
from toolkit.world.language import said, spoken
from toolkit.world.scene import Scene, ordered
from toolkit.world.spec import Unsuitable
from toolkit.world.values import tables

Flags = dict[str, Any]

_ASKED = (3, 6, 7, 5, 2, 1, 2, 4)  # how often a chat that lacks something is about each operation


def single(d: Draft) -> Flags:
    """One request and its call; in some chats the system turn says what the user leaves out."""
    s = Scene(d)
    tool = s.make()
    s.ready(tool)
    if tool.operation in ("get", "act", "set") and d.r.random() < 0.2:
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
    """A request without the id or the value to set, which the system turn gives."""
    role = "value" if tool.operation == "set" and s.r.random() < 0.6 else "id"
    usual = s.draw(tool, role)
    if said(usual).dated:
        raise Unsuitable("a day in words")
    s.d.told = _default(s, tool, role, usual)
    request = s.request(tool, without=role, some="usual")
    s.d.user(request)
    s.serve(tool, ordered(tool, {**request.arguments, tool.slot(role): said(usual).value}))
    return {"offer": s.offer(tool), "invented": True, "told": tool.slot(role)}


def _default(s: Scene, tool: Invented, role: str, usual: Any) -> str:
    """What the system turn says of an id or a value that a user leaves out."""
    text = said(usual).text
    return s.line("say", "told", tool, id=text) if role == "id" else s.line("say", "told_value", tool, value=text)


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
        key = f"{operation}_many"
        if operation == "set":
            more["value"] = s.slot(tool, "value")
            slots[tool.slot("value")] = s.draw(tool, "value")
            key = s.everyday(tool, key)
        request = s.filled(s.line("say", key, tool, **more), slots)
        d.user(request)
        s.serve_all(*((tool, {**request.arguments, tool.slot("id"): item}) for item in ids))
        return {
            "offer": s.offer(tool, avoid=lambda other: other.operation in ("batch", "total", "match")),
            "invented": True,
        }
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


def clarify(d: Draft) -> Flags:
    """Something required is missing: ask for it; half of the users answer.

    With the same words and another schema, or the missing words added, the call would be made: see `single`.
    """
    s = Scene(d)
    operation = d.r.choices(OPERATIONS, _ASKED)[0]
    tool = s.shop.make(operation, s.shop.thing(), demanding=True)
    s.ready(tool)
    roles = [role for role, (name, _) in tool.params.items() if name in tool.required]
    extras = [role for role in roles if role in EXTRAS]
    role = d.r.choice(extras if extras and d.r.random() < 0.6 else roles)
    request = s.request(tool, without=role)
    if role in ("id", "ids", "value") and d.r.random() < 0.2:
        # a default for something else does not help
        other = s.shop.make("set", s.shop.thing())
        if other.thing is not tool.thing and other.attribute != tool.attribute:
            usual = s.draw(other, about := "id" if d.r.random() < 0.5 else "value")
            if not said(usual).dated:
                d.told = _default(s, other, about, usual)
    d.user(request, neutral=True)
    words = tool.words()
    if operation == "create" and role not in EXTRAS:
        words["attr"] = spoken(role)
    key = {"id": "ask_id", "ids": "ask_ids"}.get(role, f"ask_{role}" if role in EXTRAS else "ask_value")
    if operation in ("match", "find") and role in ("id", "value"):
        key = f"ask_{operation}"
    d.say(grammar(d.r.choice(tables()["answer"][key]), words))
    if d.r.random() < 0.5:
        missing = s.ids(tool, role, d.r.choice((2, 3))) if role == "ids" else s.draw(tool, role)
        d.reply(missing)
        s.serve(tool, ordered(tool, {**request.arguments, tool.slot(role): said(missing).value}))
    broad = ("batch", "total", "find", "match")
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
    d.decline(wanted.does(), [tool.does() for tool in near])
    return {"offer": offer, "invented": True}


INVENTED: dict[str, Callable[[Draft], Flags]] = {
    "single": single,
    "parallel": parallel,
    "multi_step": multi_step,
    "clarify": clarify,
    "irrelevance": irrelevance,
}
