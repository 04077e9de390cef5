"""A database of a few small tables."""

from __future__ import annotations

from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import cities, person, words
from toolkit.world.spec import ToolFailure, Unsuitable, chain, integer, only, part, string, tool
from toolkit.world.world import World

_SCHEMAS: dict[str, dict[str, str]] = {
    "customers": {"name": "person", "city": "city", "balance": "amount"},
    "orders": {"customer": "person", "product": "product", "total": "amount", "status": "status"},
    "employees": {"name": "person", "department": "department", "salary": "salary"},
    "products": {"name": "product", "price": "amount", "stock": "count"},
    "suppliers": {"company": "company", "city": "city", "rating": "rating"},
    "tickets": {"customer": "person", "topic": "topic", "status": "status", "hours": "rating"},
    "shipments": {"city": "city", "weight": "count", "status": "status"},
    "courses": {"topic": "topic", "teacher": "person", "seats": "count"},
}


def _value(r: Random, kind: str) -> Any:
    match kind:
        case "person":
            return person(r)
        case "city":
            return r.choice(tuple(cities())[:12])
        case "amount":
            return round(r.uniform(5, 900), 2)
        case "salary":
            return r.randrange(2800, 7000, 50)
        case "count":
            return r.randint(0, 120)
        case "rating":
            return r.randint(1, 9)
        case "status":
            return r.choice(("open", "paid", "shipped", "cancelled"))
        case "department":
            return r.choice(("sales", "support", "research", "finance"))
        case _:
            return r.choice(words(kind))


@part("database")
def build(r: Random, w: World) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for name in sorted(r.sample(sorted(_SCHEMAS), 4)):
        columns = _SCHEMAS[name]
        rows = [
            {"id": n, **{key: _value(r, kind) for key, kind in columns.items()}} for n in range(1, r.randint(9, 14))
        ]
        tables[name] = {"columns": ["id", *columns], "rows": rows}
    for _ in range(2):
        name = f"{r.choice(('tmp', 'scratch', 'test', 'old_backup'))}_{r.choice(words('project'))}"
        tables[name] = {"columns": ["id", "note"], "rows": [{"id": 1, "note": r.choice(words("topic"))}]}
    return tables


def _table(w: World, table: str) -> Any:
    if table not in w["database"]:
        raise ToolFailure(f"no table {table}; there are: {', '.join(w['database'])}")
    return w["database"][table]


def _column(w: World, table: str, column: str, *, numeric: bool = False) -> list[Any]:
    spec = _table(w, table)
    if column not in spec["columns"]:
        raise ToolFailure(f"no column {column} in {table}; there are: {', '.join(spec['columns'])}")
    values = [row.get(column) for row in spec["rows"]]
    if numeric and not all(isinstance(value, (int, float)) for value in values):
        raise ToolFailure(f"column {column} of {table} isn't numeric")
    return values


def _slots(r: Random, w: World) -> dict[str, Any]:
    real = [name for name in w["database"] if name in _SCHEMAS]
    table = r.choice(real)
    spec = w["database"][table]
    texts = [c for c in spec["columns"] if isinstance(spec["rows"][0].get(c), str)]
    numbers = [c for c in spec["columns"][1:] if isinstance(spec["rows"][0].get(c), (int, float))]
    column = r.choice(texts)
    row = r.choice(spec["rows"])
    amount = r.choice(numbers)
    return {
        "table": table,
        "scratch": r.choice([name for name in w["database"] if name not in _SCHEMAS]),
        "column": column,
        "value": Said(row[column], f'"{row[column]}"'),
        "number_column": amount,
        "row_id": row["id"],
        "new_value": Said(value := str(_value(r, _SCHEMAS[table][column])), f'"{value}"'),
        "minimum": row[amount],
        "limit": r.randint(2, 5),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {"table": r.choice(("clients", "invoices", "sales", "people", "logs", "payments", "stock", "events"))}


_TABLE = string("Name of the table.")
_COLUMN = string("Name of the column.")


@tool("database", "List the tables of the database.", sample=_slots, near=("describe_table",))
def list_tables(w: World) -> Any:
    return {"tables": list(w["database"])}


@tool(
    "database",
    "Show the columns of a table and how many rows it has.",
    sample=_slots,
    bad=_bad,
    near=("list_tables",),
    params={"table": _TABLE},
)
def describe_table(w: World, table: str) -> Any:
    spec = _table(w, table)
    return {"table": table, "columns": spec["columns"], "rows": len(spec["rows"])}


@tool(
    "database",
    "Find the rows of a table in which a column has exactly the given text.",
    sample=_slots,
    bad=_bad,
    near=("top_rows", "count_rows"),
    params={"table": _TABLE, "column": _COLUMN, "value": string("The text that the column must have.")},
)
def find_rows(w: World, table: str, column: str, value: str) -> Any:
    _column(w, table, column)
    rows = [row for row in _table(w, table)["rows"] if row.get(column) == value]
    return {"rows": rows[:5], "total": len(rows)}


@tool(
    "database",
    "Count the rows of a table in which a column has exactly the given text.",
    sample=_slots,
    bad=_bad,
    near=("find_rows",),
    params={"table": _TABLE, "column": _COLUMN, "value": string("The text that the column must have.")},
)
def count_rows(w: World, table: str, column: str, value: str) -> Any:
    return {"count": _column(w, table, column).count(value)}


@tool(
    "database",
    "Get the rows of a table with the highest values in a numeric column.",
    sample=lambda r, w: {**(found := _slots(r, w)), "column": found["number_column"]},
    near=("column_stats",),
    params={"table": _TABLE, "column": string("Name of a numeric column."), "limit": integer("How many rows.", 1, 20)},
)
def top_rows(w: World, table: str, column: str, limit: int) -> Any:
    _column(w, table, column, numeric=True)
    return {"rows": sorted(_table(w, table)["rows"], key=lambda row: (-row[column], row["id"]))[:limit]}


@tool(
    "database",
    "Change one text column of one row.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={
        "table": _TABLE,
        "row_id": integer("Id of the row.", 1),
        "column": _COLUMN,
        "new_value": string("The new text."),
    },
)
def update_row(w: World, table: str, row_id: int, column: str, new_value: str) -> Any:
    _column(w, table, column)
    for row in _table(w, table)["rows"]:
        if row["id"] == row_id:
            if column == "id" or not isinstance(row[column], str):
                raise ToolFailure(f"column {column} can't be set to text")
            before, row[column] = row[column], new_value
            return {"table": table, "row_id": row_id, "column": column, "before": before, "after": new_value}
    raise ToolFailure(f"no row {row_id} in {table}")


@tool(
    "database",
    "Drop a table with all its rows, for good.",
    sample=lambda r, w: {"table": _slots(r, w)["scratch"]},
    bad=_bad,
    near=(),
    params={"table": _TABLE},
)
def drop_table(w: World, table: str) -> Any:
    rows = len(_table(w, table)["rows"])
    del w["database"][table]
    return {"dropped": table, "rows": rows}


@tool(
    "database",
    "Compute the sum and the mean of a numeric column.",
    sample=lambda r, w: {**(found := _slots(r, w)), "column": found["number_column"]},
    held_out=True,
    near=("top_rows",),
    params={"table": _TABLE, "column": string("Name of a numeric column.")},
)
def column_stats(w: World, table: str, column: str) -> Any:
    values = _column(w, table, column, numeric=True)
    if not values:
        raise ToolFailure("no rows")
    return {"table": table, "column": column, "sum": round(sum(values), 2), "mean": round(sum(values) / len(values), 2)}


@tool(
    "database",
    "Delete the row with the given id from a table.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"table": _TABLE, "row_id": integer("Id of the row.", 1)},
)
def delete_row(w: World, table: str, row_id: int) -> Any:
    rows = _table(w, table)["rows"]
    for row in rows:
        if row["id"] == row_id:
            rows.remove(row)
            return {"table": table, "deleted": row_id, "rows_left": len(rows)}
    raise ToolFailure(f"no row {row_id} in {table}")


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    ids = [row["id"] for row in w["database"][found["_table"]]["rows"] if row["id"] != found["_row_id"]]
    return {**found, "_other_id": r.choice(ids), "_prefix": found["_scratch"].split("_")[0]}


@chain("database", "find_rows", "update_row", sample=_chain_slots)
def find_and_update(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = only(do("find_rows", table=s["_table"], column=s["_column"], value=s["_value"])["rows"])
    if s["_value"] == s["_new_value"]:
        raise Unsuitable("no change")
    return do("update_row", table=s["_table"], row_id=row["id"], column=s["_column"], new_value=s["_new_value"])


@chain("database", "top_rows", "count_rows", sample=_chain_slots)
def top_then_count(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = only(do("top_rows", table=s["_table"], column=s["_number_column"], limit=1)["rows"])
    value = row[s["_column"]]
    return {
        "value": value,
        "top": row[s["_number_column"]],
        **do("count_rows", table=s["_table"], column=s["_column"], value=value),
    }


@chain("database", "list_tables", "describe_table", "drop_table", sample=_chain_slots)
def drop_scratch(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    table = only([name for name in do("list_tables")["tables"] if name.startswith(s["_prefix"] + "_")])
    rows = do("describe_table", table=table)["rows"]
    return {"rows": rows, **do("drop_table", table=table)}


@chain("database", "column_stats", "delete_row", sample=_chain_slots)
def delete_by_size(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Deletes one of two rows, by whether the mean is above a bound."""
    mean = do("column_stats", table=s["_table"], column=s["_number_column"])["mean"]
    row = s["_row_id"] if mean > s["_minimum"] else s["_other_id"]
    return {"mean": mean, **do("delete_row", table=s["_table"], row_id=row)}
