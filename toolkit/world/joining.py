"""Chains whose later call needs a value put together: a name that was looked up, or that a file has, behind a folder.

SmolLM2-135M passed the folder alone (docs/log.md): it had seen results passed on whole, and words with a number
behind them, but no path made of two parts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from tomllib import loads
from typing import Any

from toolkit.world.draft import Draft, sample
from toolkit.world.invented import Invented, Thing, things
from toolkit.world.language import Filled, said, shown
from toolkit.world.scene import Scene, ordered
from toolkit.world.shelf.chains import frames
from toolkit.world.shelf.decisions import looked_up, told
from toolkit.world.shelf.display import Display, framed
from toolkit.world.spec import Unsuitable
from toolkit.world.values import kind_of, value

Flags = dict[str, Any]

_NAME = re.compile(r"[\w+-][\w.+-]*")  # what can be a file's name
_ENDINGS = (".txt", ".md", ".csv", ".json", ".log")
_REMARK = 0.4  # of looks in the shelf are a question or a remark
_STARTS = ("feature", "fix", "chore", "docs", "release", "test")


@cache
def table() -> Mapping[str, Any]:
    return loads(files(__package__).joinpath("joining.toml").read_text(encoding="utf-8"))


def joined(d: Draft) -> Flags:
    """One of these chains."""
    return d.r.choices(_WAYS, _SHARES)[0](d)


def _looked_up(d: Draft) -> Flags:
    """A tool of the shelf tells a name, and a built-in one takes it as a part of a path or of a branch's name."""
    r, show = d.r, Display(d, repeats=True)
    first, result = r.choice(told())
    remark = r.random() < _REMARK
    look, tool, found = looked_up(show, first, remark=remark)
    name = shown(found[result.name])
    second = r.choice(("write_file", "write_file", "write_file", "move_file", "create_branch"))
    entry = table()[second]
    way = r.choice([key for key in ("say", "ending") if entry[key]])
    ending = r.choice(_ENDINGS) if way == "ending" else ""
    slots = {**sample(r, d.world, second), "start": r.choice(_STARTS), "ending": ending}
    request = d.fill(r.choice(entry[way]).replace("{noun}", result.noun), slots, vary=False)
    options = frames("remark")["together"] if remark else frames("together")["say"]
    asked = framed(r.choice(options), a=look, b=request)
    if not _NAME.fullmatch(name) or name in _text(asked):
        raise Unsuitable("no name, or said already")
    d.user(asked)
    d.needed += [tool.name, second]
    d.call(tool.call(look.arguments))
    parts = {key: str(said(item).value) for key, item in slots.items()}
    whole = entry["whole"].format(**{**parts, "value": name})
    d.because("within", noun=result.noun, value=name, whole=whole)
    arguments = {key: item for key, item in request.arguments.items() if key in ("content", "source")}
    d.serve(second, {**arguments, {"write_file": "path", "move_file": "target"}.get(second, "name"): whole})
    return {"offer": show.offer(first), "shelf": True, "chain": "joined looked up"}


def _kept(d: Draft) -> Flags:
    """A file goes to another folder under the name that it has."""
    r = d.r
    first = r.choice(("write_file", "find_files"))
    slots = sample(r, d.world, first)
    slots = {**slots, "path": slots["new"] if first == "write_file" else slots["path"], "home": d.world.home}
    folder = posixpath.dirname(slots["target"])
    if posixpath.dirname(slots["path"]) == folder:
        folder = slots["folder"]
    request = d.fill(r.choice(table()["kept"][first]["say"]), {**slots, "folder": folder}, vary=False)
    d.user(request)
    d.needed += [first, "move_file"]
    arguments = request.arguments
    call = {"path": arguments["path"], "content": arguments["content"]} if first == "write_file" else {
        "folder": d.world.home, "pattern": arguments["name"],
    }  # fmt: skip
    (found,) = d.call((first, call))
    path = found["path"] if first == "write_file" else found["paths"][0]
    name = posixpath.basename(path)
    d.because("kept", name=name, folder=folder, whole=f"{folder}/{name}")
    d.serve("move_file", {"source": path, "target": f"{folder}/{name}"})
    return {"chain": "joined kept"}


def _beside(d: Draft) -> Flags:
    """A file that is said goes where another one is, under the name that it has."""
    r = d.r
    slots = sample(r, d.world, "find_files")
    slots = {**slots, "source": sample(r, d.world, "move_file")["source"], "home": d.world.home}
    request = d.fill(r.choice(table()["beside"]["find_files"]["say"]), slots, vary=False)
    d.user(request)
    d.needed += ["find_files", "move_file"]
    (found,) = d.call(("find_files", {"folder": d.world.home, "pattern": request.arguments["name"]}))
    source, folder = request.arguments["source"], posixpath.dirname(found["paths"][0])
    if posixpath.dirname(source) == folder or folder in d.turns[-3].content:
        raise Unsuitable("there already, or said already")
    name = posixpath.basename(source)
    d.because("kept", name=name, folder=folder, whole=f"{folder}/{name}")
    d.serve("move_file", {"source": source, "target": f"{folder}/{name}"})
    return {"chain": "joined beside"}


def _two_with_paths(d: Draft) -> tuple[Scene, Invented, Invented, Any, Any]:
    """A scene with the tools that look up and set the path of a kind of thing, and the ids of two such things."""
    s = Scene(d, repeats=True)
    thing, path = d.r.choice(_with_path())
    look, put = s.shop.make("get", thing, path), s.shop.make("set", thing, path)
    s.ready(look, put)
    one, other = s.ids(look, "id", 2)
    return s, look, put, one, other


def _beside_invented(d: Draft) -> Flags:
    """One thing gets a path in the folder that another thing's is in, with the name of a file that is said."""
    s, look, put, one, other = _two_with_paths(d)
    source = str(value("path", d.r, d.world))
    words = {**look.words(), "id": s.slot(look, "id"), "other": "{_other}", "source": "{_source}"}
    line = d.r.choice(table()["beside"]["invented"]["say"]).format(**words)
    d.user(s.filled(line, {look.slot("id"): one, "_other": other, "_source": source}))
    (found,) = s.call((look, {look.slot("id"): one}))
    name, folder = posixpath.basename(source), posixpath.dirname(found[look.attribute])
    if folder in d.turns[-3].content:
        raise Unsuitable("said already")
    whole = f"{folder}/{name}"
    d.because("kept", name=name, folder=folder, whole=whole)
    s.serve(put, ordered(put, {put.slot("id"): other, put.slot("value"): whole}))
    return {"offer": s.offer(look, put), "invented": True, "chain": "joined beside invented"}


def _sought_invented(d: Draft) -> Flags:
    """A search whose only value is a path with a looked-up name in it: the folder alone would be a value too."""
    s = Scene(d, repeats=True)
    thing, path = d.r.choice(_with_path())
    look, find = _naming(s), s.shop.make("find", thing, path)
    s.ready(look, find)
    (one,) = s.ids(look, "id", 1)
    folder = posixpath.dirname(str(value("path", d.r, d.world)))
    part = d.r.choice(table()["sought"]["path"]).format(folder="{_folder}")
    asked = d.r.choice(table()["sought"]["find"]).format(**find.words(), path=part)
    line = d.r.choice(table()["sought"]["say"])
    words = {**look.words(), "id": s.slot(look, "id"), "find": asked, "Find": asked[:1].upper() + asked[1:]}
    d.user(s.filled(line.format(**words), {look.slot("id"): one, "_folder": folder}))
    s.serve(find, {find.slot("value"): _within(s, look, one, folder)})
    return {"offer": s.offer(look, find), "invented": True, "chain": "joined sought invented"}


def _naming(s: Scene) -> Invented:
    """A tool that looks up what can be a name. Raises Unsuitable where the thing drawn has nothing like it."""
    about = s.shop.thing()
    fit = [key for key in about.attributes if kind_of(key).split()[0] in ("code", "choice", "date", "count")]
    if not fit:
        raise Unsuitable("nothing that could be a name")
    return s.shop.make("get", about, s.r.choice(fit))


def _within(s: Scene, look: Invented, one: Any, folder: str) -> str:
    """A name that is looked up of `one`, behind a folder that was said. Raises Unsuitable where it is none."""
    (found,) = s.call((look, {look.slot("id"): one}))
    name = shown(found[look.attribute])
    if not _NAME.fullmatch(name) or name in s.d.turns[-3].content:
        raise Unsuitable("no name, or said already")
    whole = f"{folder}/{name}"
    s.d.because("within", noun=f"the {look.words()['attr']}", value=name, whole=whole)
    return whole


def _kept_invented(d: Draft) -> Flags:
    """One thing gets a path with the file name that another thing's path ends in."""
    s, look, put, one, other = _two_with_paths(d)
    folder = posixpath.dirname(str(value("path", d.r, d.world)))
    source = d.r.choice(table()["kept"]["invented"]["say"])
    words = {**look.words(), "id": s.slot(look, "id"), "other": "{_other}", "folder": "{_folder}"}
    d.user(s.filled(source.format(**words), {look.slot("id"): one, "_other": other, "_folder": folder}))
    (found,) = s.call((look, {look.slot("id"): one}))
    name = posixpath.basename(found[look.attribute])
    d.because("kept", name=name, folder=folder, whole=f"{folder}/{name}")
    s.serve(put, ordered(put, {put.slot("id"): other, put.slot("value"): f"{folder}/{name}"}))
    return {"offer": s.offer(look, put), "invented": True, "chain": "joined kept invented"}


def _named_invented(d: Draft) -> Flags:
    """One thing gets a path with a name in it that is looked up of another."""
    s = Scene(d, repeats=True)
    thing, path = d.r.choice(_with_path())
    look = _naming(s)
    put = s.shop.make("set", thing, path)
    s.ready(look, put)
    (one,), (other,) = s.ids(look, "id", 1), s.ids(put, "id", 1)
    folder = posixpath.dirname(str(value("path", d.r, d.world)))
    words = {
        **look.words(),
        "id": s.slot(look, "id"),
        "attr2": put.words()["attr"],
        "obj2": thing.one,
        "Obj2": put.words()["Obj"],
    }
    source = d.r.choice(table()["named"]["say"]).format(**words, other="{_other}", folder="{_folder}")
    d.user(s.filled(source, {look.slot("id"): one, "_other": other, "_folder": folder}))
    whole = _within(s, look, one, folder)
    s.serve(put, ordered(put, {put.slot("id"): other, put.slot("value"): whole}))
    return {"offer": s.offer(look, put), "invented": True, "chain": "joined named invented"}


@cache
def _with_path() -> tuple[tuple[Thing, str], ...]:
    """Things that have a path, and what it is called."""
    return tuple((thing, key) for thing in things() for key in thing.attributes if kind_of(key) == "path")


def _text(request: Filled) -> str:
    return "".join(piece.text for piece in request.pieces)


_WAYS = (_looked_up, _kept, _kept_invented, _named_invented, _sought_invented, _beside, _beside_invented)
_SHARES = (0.34, 0.14, 0.08, 0.14, 0.16, 0.07, 0.07)
