"""Notes and to-do items."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import Said, day
from toolkit.world.lexicon import words
from toolkit.world.spec import ToolFailure, Unsuitable, as_date, chain, only, optional, part, string, tool
from toolkit.world.world import World

_PRIORITIES = ("low", "normal", "high")


@part("notes")
def build(r: Random, w: World) -> dict[str, Any]:
    todos = [
        {
            "id": f"t{40 + n * 4 + r.randrange(4)}",
            "text": text,
            "due": (w.today + timedelta(days=r.randint(0, 20))).isoformat(),
            "priority": r.choice(_PRIORITIES),
            "done": r.random() < 0.2,
        }
        for n, text in enumerate(r.sample(words("task"), 9))
    ]
    notes = [
        {"id": f"n{70 + n * 5 + r.randrange(5)}", "title": title, "text": r.choice(words("line")), "tags": []}
        for n, title in enumerate(r.sample(words("note"), 7))
    ]
    return {"todos": todos, "notes": notes}


def _find(rows: list[dict[str, Any]], key: str, what: str) -> dict[str, Any]:
    for row in rows:
        if row["id"] == key:
            return row
    raise ToolFailure(f"no {what} with id {key}")


def _slots(r: Random, w: World) -> dict[str, Any]:
    state = w["notes"]
    whom = r.choice(("", "again", f"for {r.choice(words('first'))}", f"with {r.choice(words('first'))}"))
    task = f"{r.choice(words('task'))} {whom}".strip()
    note = r.choice(state["notes"])
    todo = r.choice([row for row in state["todos"] if not row["done"]])
    title = f"{r.choice(words('note'))} {r.choice(('', '2', 'new', r.choice(words('project'))))}".strip()
    return {
        "text": Said(task, f'"{task}"'),
        "due": day(r, w.today),
        "priority": r.choice(_PRIORITIES),
        "todo_id": todo["id"],
        "task": Said(todo["text"], f'"{todo["text"]}"'),
        "title": Said(title, f'"{title}"'),
        "content": Said(line := r.choice(words("line")), f'"{line}"'),
        "note_id": note["id"],
        "query": Said(word := r.choice([x for x in note["title"].split() if len(x) > 3]), f'"{word}"'),
        "name": Said(note["title"], f'"{note["title"]}"'),
        "tag": r.choice(("home", "work", "ideas", "health", "school", "someday", "money", "fun")),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {"todo_id": f"t{r.randint(200, 900)}", "note_id": f"n{r.randint(200, 900)}"}


_TODO = string("Id of the to-do item, as in t45.")
_NOTE = string("Id of the note, as in n71.")


@tool(
    "notes",
    "Add an item to the to-do list.",
    sample=_slots,
    near=("create_note",),
    params={
        "text": string("What there is to do, as the user put it."),
        "due": optional(string("Day it is due, as YYYY-MM-DD.")),
        "priority": optional(string("How important it is; normal if left out.", _PRIORITIES)),
    },
)
def add_todo(w: World, text: str, due: str | None = None, priority: str = "normal") -> Any:
    if due is not None:
        as_date(due)
    rows = w["notes"]["todos"]
    number = max((int(row["id"][1:]) for row in rows), default=39) + 1
    rows.append({"id": f"t{number}", "text": text, "due": due, "priority": priority, "done": False})
    return {"added": f"t{number}", "text": text, "open": sum(not row["done"] for row in rows)}


@tool(
    "notes",
    "List the open items of the to-do list, all of them or only those of one priority.",
    sample=_slots,
    near=("find_todo",),
    params={"priority": optional(string("Only items of this priority.", _PRIORITIES))},
)
def list_todos(w: World, priority: str | None = None) -> Any:
    rows = [row for row in w["notes"]["todos"] if not row["done"] and priority in (None, row["priority"])]
    return {"todos": [{key: row[key] for key in ("id", "text", "due")} for row in rows]}


@tool(
    "notes",
    "Find open to-do items that contain a text.",
    sample=lambda r, w: {**(found := _slots(r, w)), "text": found["task"]},
    near=("list_todos",),
    params={"text": string("Text to look for.")},
)
def find_todo(w: World, text: str) -> Any:
    rows = [row for row in w["notes"]["todos"] if not row["done"] and text.lower() in row["text"].lower()]
    return {"todos": [{key: row[key] for key in ("id", "text", "due")} for row in rows[:5]]}


@tool(
    "notes",
    "Tick off an item of the to-do list as done. Needs the item's id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"todo_id": _TODO},
)
def complete_todo(w: World, todo_id: str) -> Any:
    row = _find(w["notes"]["todos"], todo_id, "to-do item")
    row["done"] = True
    return {"done": row["text"], "open": sum(not other["done"] for other in w["notes"]["todos"])}


@tool(
    "notes",
    "Write a new note with a title.",
    sample=_slots,
    near=("add_todo",),
    params={"title": string("Title of the note."), "content": string("Text of the note.")},
)
def create_note(w: World, title: str, content: str) -> Any:
    rows = w["notes"]["notes"]
    number = max((int(row["id"][1:]) for row in rows), default=69) + 1
    rows.append({"id": f"n{number}", "title": title, "text": content, "tags": []})
    return {"note": f"n{number}", "title": title}


@tool(
    "notes",
    "Search the notes for a word in title or text.",
    sample=_slots,
    near=("read_note",),
    params={"query": string("The word.")},
)
def search_notes(w: World, query: str) -> Any:
    rows = [row for row in w["notes"]["notes"] if query.lower() in f"{row['title']} {row['text']}".lower()]
    return {"notes": [{"id": row["id"], "title": row["title"]} for row in rows[:5]]}


@tool(
    "notes",
    "Read one note in full.",
    sample=_slots,
    bad=_bad,
    near=("search_notes",),
    params={"note_id": _NOTE},
)
def read_note(w: World, note_id: str) -> Any:
    return {key: value for key, value in _find(w["notes"]["notes"], note_id, "note").items() if key != "tags"}


@tool(
    "notes",
    "Delete a note for good. Needs the note's id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"note_id": _NOTE},
)
def delete_note(w: World, note_id: str) -> Any:
    row = _find(w["notes"]["notes"], note_id, "note")
    w["notes"]["notes"].remove(row)
    return {"deleted": note_id, "title": row["title"], "notes_left": len(w["notes"]["notes"])}


@tool(
    "notes",
    "Set the due day of a to-do item. Needs the item's id.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"todo_id": _TODO, "due": string("The day, as YYYY-MM-DD.")},
)
def set_due_date(w: World, todo_id: str, due: str) -> Any:
    row = _find(w["notes"]["todos"], todo_id, "to-do item")
    as_date(due)
    before, row["due"] = row["due"], due
    return {"item": row["text"], "before": before, "due": due}


@tool(
    "notes",
    "Put a tag on a note. Needs the note's id.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"note_id": _NOTE, "tag": string("The tag.")},
)
def tag_note(w: World, note_id: str, tag: str) -> Any:
    row = _find(w["notes"]["notes"], note_id, "note")
    if tag not in row["tags"]:
        row["tags"].append(tag)
    return {"note": row["title"], "tags": row["tags"]}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = _slots(r, w)
    return {**{f"_{key}": value for key, value in found.items()}, "_other_id": r.choice(w["notes"]["todos"])["id"]}


@chain("notes", "find_todo", "complete_todo", sample=_chain_slots)
def complete_by_text(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("complete_todo", todo_id=only(do("find_todo", text=s["_task"])["todos"])["id"])


@chain("notes", "search_notes", "read_note", sample=_chain_slots)
def search_and_read_note(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("read_note", note_id=only(do("search_notes", query=s["_query"])["notes"])["id"])


@chain("notes", "search_notes", "delete_note", sample=_chain_slots)
def delete_note_by_title(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("delete_note", note_id=only(do("search_notes", query=s["_name"])["notes"])["id"])


@chain("notes", "search_notes", "read_note", "add_todo", sample=_chain_slots)
def note_to_todo(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    note = do("read_note", note_id=only(do("search_notes", query=s["_query"])["notes"])["id"])
    return {"title": note["title"], **do("add_todo", text=note["text"])}


@chain("notes", "list_todos", "complete_todo", sample=_chain_slots)
def complete_all_of(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do("list_todos", priority=s["_priority"])["todos"]
    if not 1 <= len(rows) <= 4:
        raise Unsuitable("one to four items")
    results = do.all(*(("complete_todo", {"todo_id": row["id"]}) for row in rows))
    return {"names": [row["text"] for row in rows], "open": results[-1]["open"]}


@chain("notes", "set_due_date", sample=_chain_slots)
def pass_on_date(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """The second item gets the day that the first one had."""
    if s["_todo_id"] == s["_other_id"]:
        raise Unsuitable("the same item")
    first = do("set_due_date", todo_id=s["_todo_id"], due=s["_due"])
    second = do("set_due_date", todo_id=s["_other_id"], due=first["before"])
    return {"first": first["item"], "second": second["item"], "due": first["due"], "before": first["before"]}
