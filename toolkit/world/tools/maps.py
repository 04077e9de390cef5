"""Places and ways between them."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import cities, words
from toolkit.world.rationale import versus
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
    array,
    chain,
    clock,
    integer,
    optional,
    part,
    string,
    tool,
)
from toolkit.world.world import World

_MODES = ("driving", "walking", "cycling", "transit")
_SPEED = {"driving": 70, "walking": 5, "cycling": 17, "transit": 45}
_CATEGORIES = (
    "cafe",
    "pharmacy",
    "bakery",
    "park",
    "bank",
    "petrol station",
    "supermarket",
    "museum",
    "bookshop",
    "playground",
)
_NAMES = ("Corner", "Central", "Old Town", "Riverside", "Station", "Harbour", "Garden", "North", "Sunny", "Little")


@part("maps")
def build(r: Random, w: World) -> dict[str, Any]:
    return {"saved": {}}


def _known(place: str) -> Any:
    if place not in cities():
        raise ToolFailure(f"unknown place: {place}")
    return cities()[place]


def kilometres(a: str, b: str) -> int:
    """Great-circle distance."""
    first, second = _known(a), _known(b)
    lat1, lat2 = math.radians(first.latitude), math.radians(second.latitude)
    half = math.radians(second.longitude - first.longitude) / 2
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin(half) ** 2
    return round(2 * 6371 * math.asin(math.sqrt(min(1.0, h))))


def near_pair(r: Random) -> tuple[str, str]:
    """Two cities that a road joins."""
    start = r.choice(tuple(cities())[:50])
    return start, r.choice([name for name in cities() if name != start and kilometres(start, name) < 1200] or ["Oslo"])


def _slots(r: Random, w: World) -> dict[str, Any]:
    start, end = near_pair(r)
    street = f"{r.randint(1, 120)} {r.choice(words('street'))}"
    label = r.choice(("home", "office", "gym", "school", "grandma", "studio", "allotment", "band room"))
    return {
        "origin": start,
        "destination": end,
        "mode": Said(
            mode := r.choice(_MODES),
            {"driving": "car", "walking": "foot", "cycling": "bike", "transit": "public transport"}[mode],
        ),
        "city": r.choice(tuple(cities())),
        "other": r.choice(tuple(cities())),
        "category": r.choice(_CATEGORIES),
        "limit": r.randint(2, 5),
        "address": Said(full := f"{street}, {r.choice(tuple(cities()))}", f'"{full}"'),
        "label": Said(label, f'"{label}"'),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    place = r.choice(("Little Harwick", "Upper Tolling", "Nowhere Bay", "Port Almond", "Saint Brell", "Ostermoor"))
    return {"city": place, "destination": place}


@tool(
    "maps",
    "Plan a route between two cities: distance in km and travel time.",
    sample=_slots,
    bad=_bad,
    near=("straight_distance",),
    params={
        "origin": string("City to start from."),
        "destination": string("City to go to."),
        "mode": optional(string("How to travel; driving if left out.", _MODES)),
    },
)
def plan_route(w: World, origin: str, destination: str, mode: str = "driving") -> Any:
    if origin == destination:
        raise ToolFailure("origin and destination are the same")
    km = round(kilometres(origin, destination) * 1.25)
    minutes = round(km / _SPEED[mode] * 60)
    return {
        "origin": origin,
        "destination": destination,
        "mode": mode,
        "km": km,
        "time": f"{minutes // 60} h {minutes % 60} min",
    }


@tool(
    "maps",
    "Find places of one kind in a city, the best rated first.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={
        "category": string("Kind of place.", _CATEGORIES),
        "city": string("City to search in."),
        "limit": optional(integer("How many to return; 3 if left out.", 1, 10)),
    },
)
def find_places(w: World, category: str, city: str, limit: int = 3) -> Any:
    _known(city)
    r = w.random("places", category, city)
    names = r.sample(_NAMES, min(limit, len(_NAMES)))
    rows = [
        {
            "name": f"{name} {category.title()}",
            "address": f"{r.randint(1, 99)} {r.choice(words('street'))}",
            "rating": round(4.9 - n * 0.2, 1),
        }
        for n, name in enumerate(names)
    ]
    return {"city": city, "places": rows}


@tool(
    "maps",
    "Get latitude and longitude of a city.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"city": string("Name of the city.")},
)
def geocode(w: World, city: str) -> Any:
    place = _known(city)
    return {"city": city, "latitude": place.latitude, "longitude": place.longitude, "country": place.country}


@tool(
    "maps",
    "Save an address in the map under a label.",
    sample=_slots,
    near=(),
    params={"label": string("The label."), "address": string("The address, as given.")},
)
def save_place(w: World, label: str, address: str) -> Any:
    w["maps"]["saved"][label] = address
    return {"label": label, "address": address, "saved_places": len(w["maps"]["saved"])}


@tool(
    "maps",
    "Get the time zone of a city: its difference to UTC in hours, and the local time there at 12:00 UTC.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"city": string("Name of the city.")},
)
def time_zone(w: World, city: str) -> Any:
    offset = _known(city).utc_offset
    return {"city": city, "utc_offset_hours": offset, "local_time_at_noon_utc": clock(round(12 * 60 + offset * 60))}


@tool(
    "maps",
    "Measure the distance between two cities as the crow flies.",
    sample=lambda r, w: {**(found := _slots(r, w)), "origin": found["city"], "destination": found["other"]},
    held_out=True,
    near=("plan_route",),
    either_way=("origin", "destination"),
    params={"origin": string("First city."), "destination": string("Second city.")},
)
def straight_distance(w: World, origin: str, destination: str) -> Any:
    return {"origin": origin, "destination": destination, "km": kilometres(origin, destination)}


@tool(
    "maps",
    "Find out which of several cities is the nearest to a place.",
    sample=lambda r, w: {"origin": r.choice(tuple(cities())), "candidates": r.sample(tuple(cities()), 3)},
    held_out=True,
    near=("straight_distance", "plan_route"),
    params={
        "origin": string("The place to measure from."),
        "candidates": array("Cities to choose from, in the order given."),
    },
)
def nearest_city(w: World, origin: str, candidates: list[str]) -> Any:
    if not candidates:
        raise ToolFailure("no candidates")
    best = min(candidates, key=lambda name: kilometres(origin, name))
    return {"origin": origin, "nearest": best, "km": kilometres(origin, best)}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    third = r.choice([n for n in cities() if n not in (found["_origin"], found["_destination"])])
    return {**found, "_third": third, "_candidates": r.sample([n for n in cities() if n != found["_city"]], 3)}


@chain("maps", "plan_route", "find_places", sample=_chain_slots)
def nearer_then_places(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    routes = do.all(
        *(("plan_route", {"origin": s["_origin"], "destination": s[key]}) for key in ("_destination", "_third"))
    )
    near, far = sorted(routes, key=lambda row: row["km"])
    if near["km"] == far["km"]:
        raise Unsuitable("equally far")
    far_off = [row["km"] for row in routes]
    do.because("which", **versus([row["destination"] for row in routes], far_off, routes.index(near), "lower"))
    places = do("find_places", category=s["_category"], city=near["destination"])["places"]
    return {"near": near["destination"], "km": near["km"], "names": [row["name"] for row in places]}


@chain("maps", "find_places", "save_place", sample=_chain_slots)
def save_best(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    best = do("find_places", category=s["_category"], city=s["_city"])["places"][0]
    return {"name": best["name"], **do("save_place", label=s["_label"], address=best["address"])}


@chain("maps", "nearest_city", "straight_distance", sample=_chain_slots)
def nearest_then_distance(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    near = do("nearest_city", origin=s["_city"], candidates=s["_candidates"])
    return {
        "nearest": near["nearest"],
        **do("straight_distance", origin=near["nearest"], destination=s["_destination"]),
    }
