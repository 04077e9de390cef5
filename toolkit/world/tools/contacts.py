"""The user's address book."""

from __future__ import annotations

from random import Random
from typing import Any

from toolkit.world.lexicon import address, email_of, person, phone, words
from toolkit.world.spec import ToolFailure, Unsuitable, chain, only, optional, part, string, tool
from toolkit.world.world import World

GROUPS = ("family", "friends", "work", "club", "neighbours")


@part("contacts")
def build(r: Random, w: World) -> list[dict[str, Any]]:
    """Contacts, all with different first names."""
    rows: list[dict[str, Any]] = []
    for number, first in enumerate(r.sample(words("first"), 12)):
        name = f"{first} {r.choice(words('last'))}"
        rows.append(
            {
                "id": f"c{20 + number * 3 + r.randrange(3)}",
                "name": name,
                "email": email_of(r, name),
                "phone": phone(r),
                "group": r.choice(GROUPS),
            }
        )
    return rows


def _find(w: World, contact_id: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = w["contacts"]
    for row in rows:
        if row["id"] == contact_id:
            return row
    raise ToolFailure(f"no contact with id {contact_id}")


def _slots(r: Random, w: World) -> dict[str, Any]:
    row = r.choice(w["contacts"])
    return {
        "name": row["name"],
        "new_name": person(r),
        "contact_id": row["id"],
        "email": address(r),
        "phone": phone(r),
        "group": r.choice(GROUPS),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {"contact_id": f"c{r.randint(100, 400)}"}


_ID = string("The contact's id, as in c32.")


@tool(
    "contacts",
    "Find a person in the address book by name and return id, e-mail, phone and group.",
    sample=_slots,
    near=("list_group",),
    params={"name": string("The name, or a part of it.")},
)
def find_contact(w: World, name: str) -> Any:
    return {"contacts": [row for row in w["contacts"] if name.lower() in row["name"].lower()][:5]}


@tool(
    "contacts",
    "Add a new person to the address book.",
    sample=lambda r, w: {**_slots(r, w), "name": person(r)},
    near=(),
    params={
        "name": string("Full name."),
        "email": optional(string("E-mail address.")),
        "phone": string("Phone number, as given."),
        "group": optional(string("Group of the contact.", GROUPS)),
    },
)
def add_contact(w: World, name: str, phone: str, email: str | None = None, group: str | None = None) -> Any:
    if any(row["name"].lower() == name.lower() for row in w["contacts"]):
        raise ToolFailure(f"{name} is already in the address book")
    number = max((int(row["id"][1:]) for row in w["contacts"]), default=19) + 1
    row = {"id": f"c{number}", "name": name, "email": email, "phone": phone, "group": group}
    w["contacts"].append(row)
    return {"added": row["id"], "name": name}


@tool(
    "contacts",
    "Change the phone number of a contact. Needs the contact's id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"contact_id": _ID, "phone": string("The new number, as given.")},
)
def update_phone(w: World, contact_id: str, phone: str) -> Any:
    row = _find(w, contact_id)
    row["phone"] = phone
    return {"updated": contact_id, "name": row["name"], "phone": phone}


@tool(
    "contacts",
    "Change the e-mail address of a contact. Needs the contact's id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"contact_id": _ID, "email": string("The new e-mail address.")},
)
def update_email(w: World, contact_id: str, email: str) -> Any:
    row = _find(w, contact_id)
    row["email"] = email
    return {"updated": contact_id, "name": row["name"], "email": email}


@tool(
    "contacts",
    "Remove a person from the address book. Needs the contact's id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"contact_id": _ID},
)
def delete_contact(w: World, contact_id: str) -> Any:
    row = _find(w, contact_id)
    w["contacts"].remove(row)
    return {"deleted": contact_id, "name": row["name"]}


@tool(
    "contacts",
    "List the names of everyone in one group of the address book.",
    sample=_slots,
    held_out=True,
    near=("find_contact",),
    params={"group": string("The group.", GROUPS)},
)
def list_group(w: World, group: str) -> Any:
    return {
        "group": group,
        "members": [{"id": r["id"], "name": r["name"]} for r in w["contacts"] if r["group"] == group],
    }


@tool(
    "contacts",
    "Put a contact into another group. Needs the contact's id.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"contact_id": _ID, "group": string("The new group.", GROUPS)},
)
def set_group(w: World, contact_id: str, group: str) -> Any:
    row = _find(w, contact_id)
    row["group"] = group
    return {"contact": row["name"], "group": group}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {f"_{key}": value for key, value in _slots(r, w).items()}


@chain("contacts", "find_contact", "update_phone", sample=_chain_slots)
def phone_by_name(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = only(do("find_contact", name=s["_name"])["contacts"])
    return {"old": row["phone"], **do("update_phone", contact_id=row["id"], phone=s["_phone"])}


@chain("contacts", "find_contact", "update_email", sample=_chain_slots)
def email_by_name(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = only(do("find_contact", name=s["_name"])["contacts"])
    return {"old": row["email"], **do("update_email", contact_id=row["id"], email=s["_email"])}


@chain("contacts", "find_contact", "delete_contact", sample=_chain_slots)
def delete_by_name(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = only(do("find_contact", name=s["_name"])["contacts"])
    return do("delete_contact", contact_id=row["id"])


@chain("contacts", "list_group", "set_group", sample=lambda r, w: {**_chain_slots(r, w), "_from": r.choice(GROUPS)})
def move_group(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    members = do("list_group", group=s["_from"])["members"]
    if not 1 <= len(members) <= 3 or s["_from"] == s["_group"]:
        raise Unsuitable("one to three members")
    do.all(*(("set_group", {"contact_id": row["id"], "group": s["_group"]}) for row in members))
    return {"names": [row["name"] for row in members]}
