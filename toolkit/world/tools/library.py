"""The public library: its catalogue, loans, holds and fees."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.spec import ToolFailure, Unsuitable, chain, integer, optional, part, string, tool
from toolkit.world.world import World

_BOOKS = (
    ("The Salt Road", "Imre Falk"),
    ("Nine Lanterns", "Odile Marsh"),
    ("A Field Guide to Moss", "Peter Quill"),
    ("The Cartographer's Son", "Imre Falk"),
    ("Winter Orchards", "Leonor Paz"),
    ("Bread and Weather", "Leonor Paz"),
    ("The Glass Ferry", "Odile Marsh"),
    ("Small Engines", "Tobias Renn"),
    ("Letters to a Beekeeper", "Hanne Storm"),
    ("The Last Tramline", "Tobias Renn"),
    ("Harbour of Crows", "Hanne Storm"),
    ("How Bridges Stand", "Peter Quill"),
)
_BRANCHES = ("central", "riverside", "hillcrest", "old mill")


@part("library")
def build(r: Random, w: World) -> dict[str, Any]:
    books = {
        f"bk{300 + n * 7 + r.randrange(6)}": {
            "title": title,
            "author": author,
            "copies": {branch: r.randint(0, 3) for branch in _BRANCHES},
        }
        for n, (title, author) in enumerate(_BOOKS)
    }
    days = r.sample(range(1, 24), 4)
    return {
        "books": books,
        "loans": [
            {"loan_id": f"ln{60 + n * 5 + r.randrange(4)}", "title": books[key]["title"], "due": _after(w, days[n])}
            for n, key in enumerate(r.sample(list(books), 4))
        ],
        "renewed": [],
        "holds": [
            {"hold_id": f"hd{20 + n * 6 + r.randrange(5)}", "book_id": key, "branch": r.choice(_BRANCHES)}
            for n, key in enumerate(r.sample(list(books), 2))
        ],
        "fees": r.choice((1.5, 2.4, 3.2, 4.75, 6.0)),
    }


def _after(w: World, days: int) -> str:
    return (w.today + timedelta(days=days)).isoformat()


def _book(w: World, book_id: str) -> dict[str, Any]:
    books: dict[str, Any] = w["library"]["books"]
    if book_id not in books:
        raise ToolFailure(f"no book {book_id} in the catalogue")
    found: dict[str, Any] = books[book_id]
    return found


def _slots(r: Random, w: World) -> dict[str, Any]:
    state = w["library"]
    book_id = r.choice(list(state["books"]))
    book = state["books"][book_id]
    query = r.choice((book["title"], book["author"], book["title"].split()[-1]))
    return {
        "query": Said(query, f'"{query}"'),
        "book_id": book_id,
        "branch": r.choice(_BRANCHES),
        "loan_id": r.choice(state["loans"])["loan_id"],
        "hold_id": r.choice(state["holds"])["hold_id"],
        "weeks": r.randint(2, 3),
        "title": Said(book["title"], f'"{book["title"]}"'),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    number = r.randint(700, 999)
    return {"book_id": f"bk{number}", "loan_id": f"ln{number}", "hold_id": f"hd{number}"}


_BOOK = string("Id of the book in the catalogue.")
_BRANCH = string("Branch of the library.", _BRANCHES)


@tool(
    "library",
    "Search the library's catalogue by title or author; gives the books with their ids.",
    sample=_slots,
    test=True,
    near=(),
    params={"query": string("Words of the title, or the author's name.")},
)
def library_catalogue(w: World, query: str) -> Any:
    books = w["library"]["books"]
    wanted = query.lower()
    return {
        "books": [
            {"book_id": key, "title": row["title"], "author": row["author"]}
            for key, row in books.items()
            if wanted in f"{row['title']} {row['author']}".lower()
        ]
    }


@tool(
    "library",
    "Tell how many copies of a book each branch of the library has on its shelves.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"book_id": _BOOK},
)
def copies_on_shelf(w: World, book_id: str) -> Any:
    book = _book(w, book_id)
    return {"title": book["title"], "copies": dict(book["copies"])}


@tool(
    "library",
    "Put a book on hold for the user, to be picked up at a branch.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"book_id": _BOOK, "branch": _BRANCH},
)
def place_hold(w: World, book_id: str, branch: str) -> Any:
    book = _book(w, book_id)
    holds = w["library"]["holds"]
    if any(row["book_id"] == book_id for row in holds):
        raise ToolFailure(f"{book_id} is on hold for you already")
    hold_id = f"hd{80 + len(holds)}"
    holds.append({"hold_id": hold_id, "book_id": book_id, "branch": branch})
    return {"hold_id": hold_id, "title": book["title"], "pickup": branch}


@tool(
    "library",
    "Give up one of the user's holds on a book.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"hold_id": string("Id of the hold.")},
)
def release_hold(w: World, hold_id: str) -> Any:
    holds = w["library"]["holds"]
    for row in holds:
        if row["hold_id"] == hold_id:
            holds.remove(row)
            return {"released": hold_id, "title": _book(w, row["book_id"])["title"]}
    raise ToolFailure(f"no hold {hold_id}")


@tool(
    "library",
    "List the books that the user has borrowed, with loan ids and due dates.",
    sample=_slots,
    test=True,
    near=(),
)
def borrowed_books(w: World) -> Any:
    return {"loans": [dict(row) for row in w["library"]["loans"]]}


@tool(
    "library",
    "Extend the loan of a borrowed book by some weeks.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"loan_id": string("Id of the loan."), "weeks": optional(integer("By how many; 2 if left out.", 1, 3))},
)
def extend_loan(w: World, loan_id: str, weeks: int = 2) -> Any:
    for row in w["library"]["loans"]:
        if row["loan_id"] == loan_id:
            if loan_id in w["library"]["renewed"]:
                raise ToolFailure(f"{loan_id} was extended once already")
            w["library"]["renewed"].append(loan_id)
            row["due"] = (date.fromisoformat(row["due"]) + timedelta(weeks=weeks)).isoformat()
            return {"loan_id": loan_id, "title": row["title"], "due": row["due"]}
    raise ToolFailure(f"no loan {loan_id}")


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {f"_{key}": value for key, value in _slots(r, w).items()}


def _found(do: Any, s: dict[str, Any]) -> Any:
    rows = do("library_catalogue", query=s["_title"])["books"]
    if len(rows) != 1:
        raise Unsuitable("not exactly one")
    return rows[0]


@chain("library", "library_catalogue", "place_hold", sample=_chain_slots)
def hold_by_title(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("place_hold", book_id=_found(do, s)["book_id"], branch=s["_branch"])


@chain("library", "library_catalogue", "copies_on_shelf", "place_hold", sample=_chain_slots)
def hold_where_most(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Looks the book up, sees which branch has most copies, and has it held there."""
    book = _found(do, s)
    copies = do("copies_on_shelf", book_id=book["book_id"])["copies"]
    most = max(copies.values())
    if list(copies.values()).count(most) != 1:
        raise Unsuitable("several branches have most")
    branch = next(name for name, count in copies.items() if count == most)
    return {"count": most, **do("place_hold", book_id=book["book_id"], branch=branch)}


@chain("library", "borrowed_books", "extend_loan", sample=_chain_slots)
def extend_first_due(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    loans = do("borrowed_books")["loans"]
    first = min(loans, key=lambda row: row["due"])
    return do("extend_loan", loan_id=first["loan_id"], weeks=s["_weeks"])


@chain("library", "release_hold", "library_catalogue", "copies_on_shelf", sample=_chain_slots)
def swap_hold(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Gives up a hold and sees where another book stands."""
    released = do("release_hold", hold_id=s["_hold_id"])
    book = _found(do, s)
    if book["title"] == released["title"]:
        raise Unsuitable("the same book")
    return {"released": released["title"], **do("copies_on_shelf", book_id=book["book_id"])}
