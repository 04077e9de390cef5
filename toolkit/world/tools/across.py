"""Chains over tools of several domains."""

from __future__ import annotations

from random import Random
from typing import Any

from toolkit.world.language import Said, day, near_day, said
from toolkit.world.lexicon import cities, words
from toolkit.world.rationale import among
from toolkit.world.spec import TOOLS, Unsuitable, chain, only
from toolkit.world.world import World


def _mixed(r: Random, w: World) -> dict[str, Any]:
    """Slots of several tools under one roof."""
    found = {f"_{key}": value for key, value in TOOLS["send_mail"].sample(r, w).items()}
    contact = r.choice(w["contacts"])
    event = TOOLS["create_event"].sample(r, w)
    task = r.choice(words("task"))
    return {
        **found,
        "_name": contact["name"],
        "_first": contact["name"].split()[0],
        "_title": event["title"],
        "_date": event["date"],
        "_start": event["start"],
        "_city": r.choice(tuple(cities())),
        "_soon": near_day(r, w.today),
        "_far": day(r, w.today, 3, 25),
        "_task": Said(task, f'"{task}"'),
        "_other_task": Said(other := r.choice([x for x in words("task") if x != task]), f'"{other}"'),
        "_path": TOOLS["read_file"].sample(r, w)["path"],
        "_query": TOOLS["search_products"].sample(r, w)["query"],
        "_currency": r.choice(("USD", "GBP", "CHF", "NOK", "JPY")),
        "_ticker": TOOLS["stock_price"].sample(r, w)["ticker"],
        "_room": r.choice(list(w["home"]["rooms"])),
        "_temperature": r.randint(17, 23),
        "_numbers": TOOLS["sum_numbers"].sample(r, w)["numbers"],
        "_plant": TOOLS["pollen_count"].sample(r, w)["plant"],
        "_hash_text": TOOLS["hash_text"].sample(r, w)["text"],
        "_mail_id": TOOLS["read_mail"].sample(r, w)["mail_id"],
        "_note_id": TOOLS["read_note"].sample(r, w)["note_id"],
    }


@chain("across", "find_contact", "send_mail", sample=_mixed)
def mail_contact(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = only(do("find_contact", name=s["_name"])["contacts"])
    return do("send_mail", to=row["email"], subject=s["_subject"], body=s["_body"])


@chain("across", "find_contact", "create_event", sample=_mixed)
def invite_contact(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = only(do("find_contact", name=s["_name"])["contacts"])
    return do("create_event", title=s["_title"], date=s["_date"], start=s["_start"], attendees=[row["email"]])


@chain("across", "weather_on_date", "add_todo", sample=_mixed)
def rain_todo(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    day_ = do("weather_on_date", city=s["_city"], date=s["_soon"])
    wet = day_["rain_chance"] >= 50
    do.because(
        "bound", holds=wet, noun="the chance of rain", value=day_["rain_chance"], bound=50, test="is at least 50",
        denied="is not at least 50", then=f"add {said(s['_task' if wet else '_other_task']).value}",
    )  # fmt: skip
    done = do("add_todo", text=s["_task"] if wet else s["_other_task"])
    return {"chance": day_["rain_chance"], "text": done["text"]}


@chain("across", "read_file", "send_mail", sample=_mixed)
def mail_file(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    content = do("read_file", path=s["_path"], lines=1)["content"]
    return {"content": content, **do("send_mail", to=s["_to"], subject=s["_subject"], body=content)}


@chain("across", "search_products", "convert_currency", sample=_mixed)
def price_abroad(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do("search_products", query=s["_query"])["products"]
    if len(rows) < 2 or len({row["price"] for row in rows}) < len(rows):
        raise Unsuitable("nothing to choose from")
    best = min(rows, key=lambda row: row["price"])
    do.because("most", **among([row["price"] for row in rows], best["price"], "lowest", best["name"]))
    return {**best, **do("convert_currency", amount=best["price"], from_currency="EUR", to_currency=s["_currency"])}


@chain("across", "stock_price", "create_note", sample=_mixed)
def note_price(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row = do("stock_price", ticker=s["_ticker"])
    return {"price": row["price"], **do("create_note", title=s["_ticker"], content=str(row["price"]))}


@chain("across", "read_mail", "create_note", sample=_mixed)
def note_mail(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    mail = do("read_mail", mail_id=s["_mail_id"])
    return {"from": mail["from"], **do("create_note", title=mail["subject"], content=mail["body"])}


@chain("across", "current_weather", "set_thermostat", sample=_mixed)
def heat_by_weather(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    outside = do("current_weather", city=s["_city"])["temperature"]
    target = s["_temperature"] if outside >= 10 else s["_temperature"] + 2
    do.because(
        "bound", holds=outside < 10, noun="the temperature", value=outside, bound=10, test="is below 10",
        denied="is not below 10", then=f"set it to {target}",
    )  # fmt: skip
    return {"outside": outside, **do("set_thermostat", room=s["_room"], temperature=target)}


@chain("across", "sum_numbers", "convert_currency", sample=_mixed)
def sum_abroad(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    total = do("sum_numbers", numbers=s["_numbers"])["sum"]
    return {"sum": total, **do("convert_currency", amount=total, from_currency="EUR", to_currency=s["_currency"])}


@chain("across", "read_note", "count_words", sample=_mixed)
def note_length(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    note = do("read_note", note_id=s["_note_id"])
    return {"title": note["title"], **do("count_words", text=note["text"])}


@chain("across", "decode_base64", "make_folder", sample=lambda r, w: {**_mixed(r, w), **_folder(r, w)})
def coded_folder(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    name = do("decode_base64", code=s["_code"])["text"]
    return {"name": name, **do("make_folder", folder=f"{s['_folder']}/{name}")}


@chain("across", "sun_times", "set_blinds", sample=_mixed)
def blinds_by_sun(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    sun = do("sun_times", city=s["_city"], date=s["_soon"])
    percent = 100 if sun["sunrise"] < "06:30" else 50
    return {"sunrise": sun["sunrise"], **do("set_blinds", room=s["_room"], percent=percent)}


@chain("across", "list_group", "archive_mail", "label_mail", sample=_mixed)
def label_or_archive(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Archives the mail if the club has no member, and labels it otherwise."""
    members = do("list_group", group="club")["members"]
    if members:
        return {"way": "label", "count": len(members), **do("label_mail", mail_id=s["_mail_id"], label="club")}
    return {"way": "archive", "count": 0, **do("archive_mail", mail_id=s["_mail_id"])}


def _folder(r: Random, w: World) -> dict[str, Any]:
    return {"_folder": TOOLS["read_file"].sample(r, w)["folder"], "_code": TOOLS["decode_base64"].sample(r, w)["code"]}
