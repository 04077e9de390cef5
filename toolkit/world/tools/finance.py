"""The user's accounts, and some prices."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import Said, neat
from toolkit.world.lexicon import words
from toolkit.world.rationale import versus
from toolkit.world.spec import ToolFailure, Unsuitable, chain, integer, number, optional, part, string, tool
from toolkit.world.world import World

_ACCOUNTS = ("checking", "savings", "holiday", "household")
_RATES = {
    "EUR": 1.0,
    "USD": 1.09,
    "GBP": 0.85,
    "JPY": 163.0,
    "CHF": 0.95,
    "NOK": 11.6,
    "SEK": 11.3,
    "PLN": 4.3,
    "CAD": 1.48,
    "AUD": 1.65,
}
_TICKERS = {
    "NWD": "Northwind",
    "BLPK": "Bluepeak",
    "CEDR": "Cedar Labs",
    "LUMN": "Lumenfield",
    "KSTR": "Kestrel Air",
    "JNPR": "Juniper Games",
    "CPLF": "Copperleaf",
    "ATLF": "Atlas Freight",
}
_CATEGORIES = ("groceries", "rent", "transport", "restaurants", "health")


@part("finance")
def build(r: Random, w: World) -> dict[str, Any]:
    transactions = [
        {
            "date": (w.today - timedelta(days=n)).isoformat(),
            "amount": round(r.uniform(3, 240), 2),
            "category": r.choice(_CATEGORIES),
            "payee": r.choice(words("company")),
        }
        for n in range(1, 15)
    ]
    bills = {
        f"B{300 + n * 11 + r.randrange(10)}": {
            "payee": r.choice(words("company")),
            "amount": round(r.uniform(20, 180), 2),
            "paid": False,
        }
        for n in range(4)
    }
    return {
        "balances": {name: float(r.randint(300, 9000)) for name in _ACCOUNTS},
        "transactions": transactions,
        "bills": bills,
        "limits": {},
    }


def _slots(r: Random, w: World) -> dict[str, Any]:
    start, end = r.sample(_ACCOUNTS, 2)
    source, target = r.sample(list(_RATES), 2)
    open_bills = [key for key, bill in w["finance"]["bills"].items() if not bill["paid"]]
    amount = r.choice((r.randint(5, 280), neat(round(r.uniform(5, 250), 2))))
    note = r.choice(words("topic"))
    return {
        "account": start,
        "from_account": start,
        "to_account": end,
        "amount": amount,
        "note": Said(note, f'"{note}"'),
        "from_currency": source,
        "to_currency": target,
        "ticker": r.choice(list(_TICKERS)),
        "category": r.choice(_CATEGORIES),
        "limit": r.randrange(50, 900, 10),
        "bill_id": r.choice(open_bills),
        "principal": r.randrange(2000, 300_000, 500),
        "rate": r.choice((r.randint(1, 9), neat(r.randint(5, 70) / 10))),
        "years": r.randint(2, 30),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {
        "amount": r.randint(20_000, 90_000),
        "ticker": r.choice(("ZZZ", "QQX", "WXYZ", "FOO", "MNOP")),
        "bill_id": f"B{r.randint(500, 900)}",
    }


_ACCOUNT = string("Which of the user's accounts.", _ACCOUNTS)


@tool(
    "finance", "Show the balance of one of the user's accounts.", sample=_slots, near=(), params={"account": _ACCOUNT}
)
def get_balance(w: World, account: str) -> Any:
    return {"account": account, "balance": round(w["finance"]["balances"][account], 2), "currency": "EUR"}


@tool(
    "finance",
    "List the user's latest payments in one category, newest first.",
    sample=lambda r, w: {**_slots(r, w), "limit": r.randint(2, 5)},
    near=("category_total",),
    params={
        "category": string("Which category.", _CATEGORIES),
        "limit": optional(integer("How many; 5 if left out.", 1, 20)),
    },
)
def list_payments(w: World, category: str, limit: int = 5) -> Any:
    rows = [row for row in w["finance"]["transactions"] if row["category"] == category]
    return {
        "category": category,
        "payments": [{key: row[key] for key in ("date", "amount", "payee")} for row in rows[:limit]],
    }


@tool(
    "finance",
    "Sum up what the user spent in one category during the last two weeks.",
    sample=_slots,
    near=("list_payments",),
    params={"category": string("Which category.", _CATEGORIES)},
)
def category_total(w: World, category: str) -> Any:
    amounts = [row["amount"] for row in w["finance"]["transactions"] if row["category"] == category]
    return {"category": category, "total": round(sum(amounts), 2), "payments": len(amounts)}


@tool(
    "finance",
    "Move money between two of the user's own accounts, in euros.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={
        "from_account": string("Account the money leaves.", _ACCOUNTS),
        "to_account": string("Account the money goes to.", _ACCOUNTS),
        "amount": number("Amount in euros.", 0.01),
        "note": optional(string("A note for the statement.")),
    },
)
def transfer_money(w: World, from_account: str, to_account: str, amount: float, note: str | None = None) -> Any:
    balances = w["finance"]["balances"]
    if from_account == to_account:
        raise ToolFailure("both accounts are the same")
    if balances[from_account] < amount:
        raise ToolFailure(f"not enough money: {from_account} has {round(balances[from_account], 2)} EUR")
    balances[from_account] = round(balances[from_account] - amount, 2)
    balances[to_account] = round(balances[to_account] + amount, 2)
    if note:
        w["finance"]["transactions"].insert(
            0, {"date": w.today.isoformat(), "amount": amount, "category": "transfer", "payee": note}
        )
    return {"moved": amount, "from": from_account, "to": to_account, "left": balances[from_account]}


@tool(
    "finance",
    "Convert an amount from one currency to another at today's rate.",
    sample=_slots,
    near=(),
    params={
        "amount": number("How much.", 0),
        "from_currency": string("Currency of the amount.", tuple(_RATES)),
        "to_currency": string("Currency wanted.", tuple(_RATES)),
    },
)
def convert_currency(w: World, amount: float, from_currency: str, to_currency: str) -> Any:
    result = amount / _RATES[from_currency] * _RATES[to_currency]
    if result > 1e15:
        raise ToolFailure("amount too large")
    return {"amount": amount, "from_currency": from_currency, "result": round(result, 2), "to_currency": to_currency}


@tool(
    "finance",
    "Get the latest price of a share by its ticker symbol.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"ticker": string("Ticker symbol, as in NWD.")},
)
def stock_price(w: World, ticker: str) -> Any:
    if ticker not in _TICKERS:
        raise ToolFailure(f"unknown ticker: {ticker}")
    r = w.random("share", ticker)
    return {
        "ticker": ticker,
        "company": _TICKERS[ticker],
        "price": round(r.uniform(4, 400), 2),
        "change_percent": round(r.uniform(-5, 5), 1),
    }


@tool(
    "finance",
    "Set a monthly spending limit for a category, in euros.",
    sample=_slots,
    near=(),
    params={"category": string("Which category.", _CATEGORIES), "limit": number("Limit in euros.", 0)},
)
def set_spending_limit(w: World, category: str, limit: float) -> Any:
    w["finance"]["limits"][category] = limit
    return {"category": category, "limit": limit}


@tool(
    "finance",
    "Pay an open bill from one of the user's accounts.",
    sample=_slots,
    bad=_bad,
    held_out=True,
    near=("transfer_money",),
    params={"bill_id": string("Id of the bill, as in B312."), "account": _ACCOUNT},
)
def pay_bill(w: World, bill_id: str, account: str) -> Any:
    bill = w["finance"]["bills"].get(bill_id)
    if bill is None:
        raise ToolFailure(f"no bill {bill_id}")
    if bill["paid"]:
        raise ToolFailure(f"bill {bill_id} is paid already")
    if w["finance"]["balances"][account] < bill["amount"]:
        raise ToolFailure(f"not enough money in {account}")
    bill["paid"] = True
    w["finance"]["balances"][account] = round(w["finance"]["balances"][account] - bill["amount"], 2)
    return {"paid": bill_id, "payee": bill["payee"], "amount": bill["amount"], "account": account}


@tool(
    "finance",
    "Compute the monthly payment of a loan.",
    sample=_slots,
    held_out=True,
    near=(),
    params={
        "principal": number("Amount borrowed.", 1),
        "rate": number("Interest per year, in percent.", 0),
        "years": integer("Years until it is paid back.", 1, 60),
    },
)
def loan_payment(w: World, principal: float, rate: float, years: int) -> Any:
    if principal > 1e12 or rate > 100:
        raise ToolFailure("amount or rate too large")
    months, monthly = years * 12, rate / 1200
    payment = principal / months if monthly == 0 else principal * monthly / (1 - (1 + monthly) ** -months)
    return {"monthly": round(payment, 2), "months": months, "total": round(payment * months, 2)}


@tool(
    "finance",
    "Show one open bill: who gets the money and how much.",
    sample=_slots,
    bad=_bad,
    held_out=True,
    near=(),
    params={"bill_id": string("Id of the bill, as in B312.")},
)
def show_bill(w: World, bill_id: str) -> Any:
    if bill_id not in w["finance"]["bills"]:
        raise ToolFailure(f"no bill {bill_id}")
    return {"bill": bill_id, **w["finance"]["bills"][bill_id]}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    first, second = r.sample(list(_TICKERS), 2)
    bills = r.sample(list(w["finance"]["bills"]), 2)
    return {
        **found,
        "_ticker": first,
        "_other": second,
        "_bill": bills[0],
        "_other_bill": bills[1],
        "_currency": r.choice([c for c in _RATES if c != "EUR"]),
    }


@chain("finance", "get_balance", "transfer_money", sample=_chain_slots)
def empty_account(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    balance = do("get_balance", account=s["_from_account"])["balance"]
    return do("transfer_money", from_account=s["_from_account"], to_account=s["_to_account"], amount=balance)


@chain("finance", "category_total", "set_spending_limit", sample=_chain_slots)
def limit_to_spent(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    total = do("category_total", category=s["_category"])["total"]
    if not total:
        raise Unsuitable("nothing spent")
    return do("set_spending_limit", category=s["_category"], limit=total)


@chain("finance", "stock_price", "convert_currency", sample=_chain_slots)
def dearer_share(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do.all(("stock_price", {"ticker": s["_ticker"]}), ("stock_price", {"ticker": s["_other"]}))
    dear = max(rows, key=lambda row: row["price"])
    do.because(
        "which", **versus([row["ticker"] for row in rows], [row["price"] for row in rows], rows.index(dear), "higher")
    )
    return {**dear, **do("convert_currency", amount=dear["price"], from_currency="EUR", to_currency=s["_currency"])}


@chain("finance", "get_balance", "convert_currency", sample=_chain_slots)
def balance_abroad(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    balance = do("get_balance", account=s["_account"])["balance"]
    return {
        "balance": balance,
        **do("convert_currency", amount=balance, from_currency="EUR", to_currency=s["_currency"]),
    }


@chain("finance", "show_bill", "pay_bill", sample=_chain_slots)
def pay_smaller(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do.all(*(("show_bill", {"bill_id": s[key]}) for key in ("_bill", "_other_bill")))
    small, large = sorted(rows, key=lambda row: row["amount"])
    if small["amount"] == large["amount"]:
        raise Unsuitable("equal bills")
    return do("pay_bill", bill_id=small["bill"], account=s["_account"])
