"""The user's electric car: battery, tyres, cabin, trips and the workshop."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import day, neat, small
from toolkit.world.lexicon import city
from toolkit.world.spec import ToolFailure, Unsuitable, as_date, chain, integer, optional, part, string, tool
from toolkit.world.world import World

_WHEELS = ("front left", "front right", "rear left", "rear right")
_JOBS = ("inspection", "tyres", "brakes", "windscreen")


@part("vehicle")
def build(r: Random, w: World) -> dict[str, Any]:
    return {
        "percent": r.randint(12, 64),
        "charging_to": None,
        "tyres": {wheel: round(r.uniform(1.7, 2.9), 1) for wheel in _WHEELS},
        "cabin": None,
        "trips": [
            {"to": city(r), "km": r.randint(6, 380), "date": (w.today - timedelta(days=n + 1)).isoformat()}
            for n in range(8)
        ],
        "visits": [],
    }


def _slots(r: Random, w: World) -> dict[str, Any]:
    state = w["vehicle"]
    return {
        "limit": r.randrange(state["percent"] // 5 * 5 + 10, 101, 5),
        "wheel": r.choice(_WHEELS),
        "celsius": r.randint(17, 24),
        "minutes": r.randint(5, 40),
        "trips": small(r, 2, 7),
        "job": r.choice(_JOBS),
        "date": day(r, w.today, 2, 25),
        "bar": neat(r.randint(20, 28) / 10),
        "low": r.randrange(20, 66, 5),
        "more": r.randrange(10, 31, 5),
    }


@tool(
    "vehicle",
    "Tell how full the car's battery is and how far it can go with that.",
    sample=_slots,
    test=True,
    near=(),
)
def car_charge_level(w: World) -> Any:
    percent = w["vehicle"]["percent"]
    return {"percent": percent, "range_km": percent * 4}


@tool(
    "vehicle",
    "Start charging the car, up to a limit.",
    sample=_slots,
    bad=lambda r, w: {"limit": r.randint(2, w["vehicle"]["percent"])},
    test=True,
    near=(),
    params={"limit": integer("Stop at this percentage.", 1, 100)},
)
def charge_car(w: World, limit: int) -> Any:
    state = w["vehicle"]
    if limit <= state["percent"]:
        raise ToolFailure(f"the battery is at {state['percent']}% already")
    state["charging_to"] = limit
    return {"charging_from": state["percent"], "limit": limit, "minutes": (limit - state["percent"]) * 3}


@tool(
    "vehicle",
    "Read the pressure of one of the car's tyres, in bar.",
    sample=_slots,
    test=True,
    near=(),
    params={"wheel": string("Which wheel.", _WHEELS)},
)
def tyre_pressure(w: World, wheel: str) -> Any:
    return {"wheel": wheel, "bar": w["vehicle"]["tyres"][wheel]}


@tool(
    "vehicle",
    "Warm or cool the car's cabin before a drive.",
    sample=_slots,
    test=True,
    near=(),
    params={
        "celsius": integer("Temperature to reach, in degrees celsius.", 15, 28),
        "minutes": optional(integer("For how long; 15 if left out.", 1, 60)),
    },
)
def condition_cabin(w: World, celsius: int, minutes: int = 15) -> Any:
    w["vehicle"]["cabin"] = {"celsius": celsius, "minutes": minutes}
    return {"cabin": celsius, "minutes": minutes}


@tool(
    "vehicle",
    "List the car's latest trips with destination, date and kilometres.",
    sample=_slots,
    test=True,
    near=(),
    params={"trips": integer("How many trips.", 1, 8)},
)
def car_trips(w: World, trips: int) -> Any:
    return {"trips": w["vehicle"]["trips"][:trips]}


@tool(
    "vehicle",
    "Book the car into the workshop for a job.",
    sample=_slots,
    bad=lambda r, w: {"date": day(r, w.today, 70, 120, plain_only=True)},
    test=True,
    near=(),
    params={"job": string("What is to be done.", _JOBS), "date": string("The day, as YYYY-MM-DD.")},
)
def book_workshop(w: World, job: str, date: str) -> Any:
    ahead = (as_date(date) - w.today).days
    if not 0 < ahead <= 60:
        raise ToolFailure("the workshop takes bookings for the coming 60 days only")
    visits = w["vehicle"]["visits"]
    visits.append({"job": job, "date": date})
    return {"visit": f"ws{40 + len(visits)}", "job": job, "date": date}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {f"_{key}": value for key, value in _slots(r, w).items()}


@chain("vehicle", "car_charge_level", "charge_car", "condition_cabin", sample=_chain_slots)
def charge_or_go(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """A low battery is charged; with enough in it the car is made ready."""
    percent = do("car_charge_level")["percent"]
    if percent < s["_low"]:
        return {"way": "charge", "percent": percent, **do("charge_car", limit=s["_limit"])}
    return {"way": "go", "percent": percent, **do("condition_cabin", celsius=s["_celsius"])}


@chain("vehicle", "car_charge_level", "charge_car", sample=_chain_slots)
def charge_some_more(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    percent = do("car_charge_level")["percent"]
    return {"percent": percent, **do("charge_car", limit=percent + s["_more"])}


@chain("vehicle", "tyre_pressure", "book_workshop", sample=_chain_slots)
def soft_tyre(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    found = do("tyre_pressure", wheel=s["_wheel"])["bar"]
    if found >= s["_bar"]:
        raise Unsuitable("firm enough")
    return {"bar": found, **do("book_workshop", job="tyres", date=s["_date"])}
