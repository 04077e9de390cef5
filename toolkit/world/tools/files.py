"""A small file system: text files under the user's home."""

from __future__ import annotations

import posixpath
import re
from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import words
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
    boolean,
    chain,
    integer,
    only,
    optional,
    part,
    string,
    tool,
)
from toolkit.world.world import World

_SEARCH_WORDS = (
    "invoice",
    "supplier",
    "deadline",
    "printer",
    "contract",
    "ERROR",
    "WARN",
    "meeting",
    "noon",
    "logo",
    "paper",
    "refund",
)


@part("files")
def build(r: Random, w: World) -> dict[str, Any]:
    """{"files": {path: text}, "folders": [path]}; no two files share a name."""
    projects = r.sample(words("project"), 2)
    folders = [
        f"{w.home}/{name}"
        for name in ("Documents", "Downloads", "Desktop", "logs", *(f"projects/{p}" for p in projects))
    ]
    files: dict[str, str] = {}
    stems = list(words("stem"))
    r.shuffle(stems)
    for number in range(r.randint(14, 20)):
        folder = folders[number % len(folders)]
        log = folder.endswith("logs")
        name = f"{stems[number]}_{r.choice((2023, 2024, r.randint(1, 99)))}" if r.random() < 0.5 else stems[number]
        suffix = "log" if log else r.choice(("txt", "md", "csv", "txt"))
        lines = r.choices(words("logline") if log else words("line"), k=r.randint(2, 8))
        files[f"{folder}/{name}.{suffix}"] = "\n".join(lines) + "\n"
    return {"files": files, "folders": sorted([w.home, f"{w.home}/projects", *folders])}


def read(w: World, path: str) -> str:
    files: dict[str, str] = w["files"]["files"]
    if path in files:
        return files[path]
    if path in w["files"]["folders"]:
        raise ToolFailure(f"is a folder: {path}")
    name = posixpath.basename(path)
    same = [known for known in files if posixpath.basename(known) == name]
    raise ToolFailure(f"no such file: {path}" + (f"; a file of that name is at {same[0]}" if same else ""))


def names_in(w: World, folder: str) -> list[str]:
    if folder not in w["files"]["folders"]:
        raise ToolFailure(f"no such folder: {folder}")
    everything = [*w["files"]["files"], *w["files"]["folders"]]
    return sorted(
        posixpath.basename(path) for path in everything if posixpath.dirname(path) == folder and path != folder
    )


def write(w: World, path: str, text: str) -> None:
    folder = posixpath.dirname(path)
    if folder not in w["files"]["folders"]:
        raise ToolFailure(f"no such folder: {folder}")
    if path in w["files"]["folders"]:
        raise ToolFailure(f"is a folder: {path}")
    w["files"]["files"][path] = text


def slots(r: Random, w: World) -> dict[str, Any]:
    state = w["files"]
    path = r.choice(list(state["files"]))
    folder = posixpath.dirname(path)
    other = r.choice([f for f in state["folders"] if f not in (folder, w.home, f"{w.home}/projects")])
    stem = r.choice(words("stem"))
    new = f"{other}/{stem}_{r.choice(words('project'))}{r.randint(1, 99)}.{r.choice(('txt', 'md'))}"
    text = r.choice(words("line"))
    return {
        "path": path,
        "folder": folder,
        "new": new,
        "source": path,
        "target": f"{other}/{posixpath.basename(path)}",
        "content": Said(text, f'"{text}"'),
        "name": posixpath.basename(path),
        "pattern": Said(pattern := f"*{posixpath.splitext(path)[1]}", pattern),
        "text": Said(word := r.choice(_SEARCH_WORDS), f'"{word}"'),
        "lines": r.randint(1, 5),
    }


def _lost(r: Random, w: World) -> dict[str, Any]:
    path = f"{w.home}/Documents/{r.choice(words('stem'))}_{r.choice(words('project'))}.txt"
    return {"path": path, "source": path}


_PATH = string("Absolute path of the file.")
_FOLDER = string("Absolute path of the folder.")


@tool(
    "files",
    "List the names in a folder.",
    sample=slots,
    bad=lambda r, w: {"folder": f"{w.home}/{r.choice(words('project'))}/{r.choice(words('stem'))}"},
    near=("find_files",),
    params={"folder": _FOLDER},
)
def list_folder(w: World, folder: str) -> Any:
    return {"folder": folder, "names": names_in(w, folder)}


@tool(
    "files",
    "Read a text file, all of it or only its first lines.",
    sample=slots,
    bad=_lost,
    near=("search_in_files",),
    params={"path": _PATH, "lines": optional(integer("Read only this many lines from the top.", 1))},
)
def read_file(w: World, path: str, lines: int | None = None) -> Any:
    rows = read(w, path).splitlines()
    return {"path": path, "content": "\n".join(rows[:lines])}


@tool(
    "files",
    "Write a new text file. Fails if the file exists, unless overwrite is true.",
    sample=lambda r, w: {**slots(r, w), "path": slots(r, w)["new"]},
    near=("append_to_file", "copy_file"),
    params={
        "path": _PATH,
        "content": string("The whole text of the file."),
        "overwrite": optional(boolean("Replace an existing file; false if left out.")),
    },
)
def write_file(w: World, path: str, content: str, overwrite: bool = False) -> Any:
    if path in w["files"]["files"] and not overwrite:
        raise ToolFailure(f"file exists: {path}")
    write(w, path, content)
    return {"path": path, "written": len(content)}


@tool(
    "files",
    "Add a line of text to the end of an existing file.",
    sample=slots,
    bad=_lost,
    near=("write_file",),
    params={"path": _PATH, "content": string("The line to add.")},
)
def append_to_file(w: World, path: str, content: str) -> Any:
    text = read(w, path) + content + "\n"
    write(w, path, text)
    return {"path": path, "lines": len(text.splitlines())}


@tool(
    "files",
    "Find files by name anywhere below a folder. Looks at names only, not at what is in the files.",
    sample=lambda r, w: {**slots(r, w), "folder": w.home},
    near=("list_folder",),
    params={"folder": _FOLDER, "pattern": string("File name, or a pattern with * such as *.txt.")},
)
def find_files(w: World, folder: str, pattern: str) -> Any:
    names_in(w, folder)
    wanted = re.compile(".*".join(re.escape(stretch) for stretch in pattern.split("*")))
    paths = [path for path in sorted(w["files"]["files"]) if path.startswith(folder + "/")]
    return {"paths": [path for path in paths if wanted.fullmatch(posixpath.basename(path))]}


@tool(
    "files",
    "Search the content of all files below a folder for a text, and return each matching line with its file.",
    sample=lambda r, w: {**slots(r, w), "folder": r.choice((w.home, slots(r, w)["folder"]))},
    near=("read_file",),
    params={"folder": _FOLDER, "text": string("The text to look for; upper and lower case differ.")},
)
def search_in_files(w: World, folder: str, text: str) -> Any:
    names_in(w, folder)
    hits = [
        {"path": path, "line": number, "content": line}
        for path, content in sorted(w["files"]["files"].items())
        if path.startswith(folder + "/")
        for number, line in enumerate(content.splitlines(), 1)
        if text in line
    ]
    return {"matches": hits[:6], "total": len(hits)}


@tool(
    "files",
    "Count the lines, words and characters of a text file.",
    sample=slots,
    bad=_lost,
    near=("read_file",),
    params={"path": _PATH},
)
def count_lines(w: World, path: str) -> Any:
    text = read(w, path)
    return {"path": path, "lines": len(text.splitlines()), "words": len(text.split()), "characters": len(text)}


@tool(
    "files",
    "Move or rename a file. The folder of the new path must exist.",
    sample=slots,
    bad=_lost,
    near=("copy_file", "write_file"),
    params={"source": string("Absolute path of the file now."), "target": string("Absolute path it shall have.")},
)
def move_file(w: World, source: str, target: str) -> Any:
    text = read(w, source)
    if target in w["files"]["files"]:
        raise ToolFailure(f"file exists: {target}")
    write(w, target, text)
    del w["files"]["files"][source]
    return {"moved": source, "to": target}


@tool("files", "Delete one file for good.", sample=slots, bad=_lost, near=(), params={"path": _PATH})
def delete_file(w: World, path: str) -> Any:
    read(w, path)
    del w["files"]["files"][path]
    return {"deleted": path}


@tool(
    "files",
    "Copy a file. The folder of the new path must exist.",
    sample=slots,
    held_out=True,
    near=("move_file", "write_file"),
    params={"source": string("Absolute path of the file to copy."), "target": string("Absolute path of the copy.")},
)
def copy_file(w: World, source: str, target: str) -> Any:
    write(w, target, read(w, source))
    return {"copied": source, "to": target}


@tool(
    "files",
    "Make a new, empty folder inside an existing one.",
    sample=lambda r, w: {"folder": f"{slots(r, w)['folder']}/{r.choice(words('stem'))}_{r.choice(words('project'))}"},
    held_out=True,
    near=(),
    params={"folder": string("Absolute path of the new folder.")},
)
def make_folder(w: World, folder: str) -> Any:
    folders: list[str] = w["files"]["folders"]
    if folder in folders or folder in w["files"]["files"]:
        raise ToolFailure(f"already there: {folder}")
    if posixpath.dirname(folder) not in folders:
        raise ToolFailure(f"no such folder: {posixpath.dirname(folder)}")
    folders.append(folder)
    folders.sort()
    return {"created": folder}


def _named(r: Random, w: World) -> dict[str, Any]:
    found = slots(r, w)
    return {
        **{f"_{key}": value for key, value in found.items()},
        "_home": w.home,
        "_backup": f"{found['folder']}/backup",
    }


@chain("files", "find_files", "read_file", sample=_named)
def find_and_read(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    path = only(do("find_files", folder=s["_home"], pattern=s["_name"])["paths"])
    return {"path": path, "first": do("read_file", path=path)["content"].splitlines()[0]}


@chain("files", "find_files", "count_lines", sample=_named)
def find_and_count(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    paths = do("find_files", folder=s["_folder"], pattern=s["_pattern"])["paths"]
    if not 1 <= len(paths) <= 3:
        raise Unsuitable("one to three files")
    counts = do.all(*(("count_lines", {"path": path}) for path in paths))
    return {
        "counts": [f"{row['path']} has {row['lines']}" for row in counts],
        "sum": sum(row["lines"] for row in counts),
    }


@chain("files", "search_in_files", "append_to_file", sample=_named)
def search_and_append(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    found = do("search_in_files", folder=s["_home"], text=s["_text"])
    paths = list(dict.fromkeys(row["path"] for row in found["matches"]))
    if len(paths) != 1 or found["total"] > 6:
        raise Unsuitable("text must be in one file")
    path = only(paths)
    return {"path": path, **do("append_to_file", path=path, content=s["_content"])}


@chain("files", "find_files", "move_file", sample=_named)
def find_and_move(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    path = only(do("find_files", folder=s["_home"], pattern=s["_name"])["paths"])
    do("move_file", source=path, target=s["_target"])
    return {"path": path}


@chain("files", "read_file", sample=_named)
def wrong_path(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """The user has the folder wrong; the error names the right path."""
    failed = do.attempt("read_file", path=s["_target"])
    if "a file of that name is at" not in failed.get("error", ""):
        raise Unsuitable("no hint")
    return {"path": s["_path"], "first": do("read_file", path=s["_path"])["content"].splitlines()[0]}


@chain("files", "make_folder", "copy_file", sample=_named)
def backup_copy(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    do("make_folder", folder=s["_backup"])
    do("copy_file", source=s["_path"], target=f"{s['_backup']}/{s['_name']}")
    return {"folder": s["_backup"]}
