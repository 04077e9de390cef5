"""The user's pets: profiles, weight, vaccinations, the feeder and the vet."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import day, moment, neat
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
    as_date,
    as_minutes,
    chain,
    integer,
    number,
    optional,
    part,
    string,
    tool,
)
from toolkit.world.world import World

_NAMES = ("Biscuit", "Pepper", "Mochi", "Ziggy", "Truffle", "Nala", "Waffle", "Pixel", "Olive", "Rufus")
_SPECIES = ("cat", "dog", "rabbit")
_VACCINES = ("rabies", "distemper", "leptospirosis")


@part("pets")
def build(r: Random, w: World) -> dict[str, Any]:
    kg = {"cat": (3, 7), "dog": (5, 38), "rabbit": (1, 3)}
    pets: dict[str, Any] = {}
    for name in r.sample(_NAMES, 4):
        species = r.choice(_SPECIES)
        pets[name] = {
            "species": species,
            "born": w.today.year - r.randint(1, 12),
            "kg": round(r.uniform(*kg[species]), 1),
            "vaccines": {
                vaccine: (w.today + timedelta(days=days)).isoformat()
                for vaccine, days in zip(_VACCINES, r.sample(range(4, 50), 3), strict=True)
            },
            "feeder": None,
        }
    return {
        "pets": pets,
        "visits": [
            {"visit_id": f"vt{70 + n * 6 + r.randrange(5)}", "pet": name, "date": _day(w, r.randint(2, 30))}
            for n, name in enumerate(r.sample(list(pets), 2))
        ],
    }


def _day(w: World, ahead: int) -> str:
    return (w.today + timedelta(days=ahead)).isoformat()


def _pet(w: World, pet: str) -> dict[str, Any]:
    pets: dict[str, dict[str, Any]] = w["pets"]["pets"]
    if pet not in pets:
        raise ToolFailure(f"no pet called {pet}; there are: {', '.join(pets)}")
    return pets[pet]


def _slots(r: Random, w: World) -> dict[str, Any]:
    state = w["pets"]
    return {
        "pet": r.choice(list(state["pets"])),
        "kg": neat(r.randint(12, 380) / 10),
        "date": day(r, w.today, 2, 30),
        "time": moment(r, 8, 18),
        "grams": r.randrange(30, 400, 5),
        "visit_id": r.choice(state["visits"])["visit_id"],
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {"pet": r.choice(("Goliath", "Snowball", "Captain", "Duchess")), "visit_id": f"vt{r.randint(300, 399)}"}


_PET = string("Name of the pet.")


@tool(
    "pets",
    "Show a pet's profile: species, year of birth and weight.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"pet": _PET},
)
def pet_profile(w: World, pet: str) -> Any:
    found = _pet(w, pet)
    return {"pet": pet, "species": found["species"], "born": found["born"], "kg": found["kg"]}


@tool(
    "pets",
    "Record what a pet weighs today.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"pet": _PET, "kg": number("Weight in kilograms.", 0.1)},
)
def record_pet_weight(w: World, pet: str, kg: float) -> Any:
    found = _pet(w, pet)
    before, found["kg"] = found["kg"], kg
    return {"pet": pet, "before": before, "kg": kg}


@tool(
    "pets",
    "List a pet's vaccinations and when each is due next.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"pet": _PET},
)
def pet_vaccinations(w: World, pet: str) -> Any:
    return {"pet": pet, "due": dict(_pet(w, pet)["vaccines"])}


@tool(
    "pets",
    "Make an appointment for a pet at the vet's.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={
        "pet": _PET,
        "date": string("The day, as YYYY-MM-DD."),
        "time": string("When, as HH:MM on the 24-hour clock."),
    },
)
def book_vet(w: World, pet: str, date: str, time: str) -> Any:
    _pet(w, pet)
    as_minutes(time)
    if as_date(date) <= w.today:
        raise ToolFailure("the vet takes appointments from tomorrow on")
    visits = w["pets"]["visits"]
    visits.append({"visit_id": f"vt{200 + len(visits)}", "pet": pet, "date": date})
    return {"visit_id": visits[-1]["visit_id"], "pet": pet, "date": date, "time": time}


@tool(
    "pets",
    "Call off an appointment at the vet's.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"visit_id": string("Id of the appointment.")},
)
def call_off_vet(w: World, visit_id: str) -> Any:
    visits = w["pets"]["visits"]
    for row in visits:
        if row["visit_id"] == visit_id:
            visits.remove(row)
            return {"called_off": visit_id, "pet": row["pet"], "date": row["date"]}
    raise ToolFailure(f"no appointment {visit_id}")


@tool(
    "pets",
    "Have the automatic feeder give a pet its food.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={
        "pet": _PET,
        "grams": integer("How much.", 5, 800),
        "time": optional(string("When, as HH:MM on the 24-hour clock; at once if left out.")),
    },
)
def set_feeder(w: World, pet: str, grams: int, time: str | None = None) -> Any:
    if time is not None:
        as_minutes(time)
    _pet(w, pet)["feeder"] = {"grams": grams, "time": time}
    return {"pet": pet, "grams": grams, "when": time or "now"}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    pet, other = r.sample(list(w["pets"]["pets"]), 2)
    return {**found, "_pet": pet, "_other": other}


@chain("pets", "pet_vaccinations", "book_vet", sample=_chain_slots)
def vaccinate_in_time(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """An appointment on the day that the first vaccination is due."""
    due = do("pet_vaccinations", pet=s["_pet"])["due"]
    vaccine = min(due, key=lambda name: due[name])
    return {"vaccine": vaccine, **do("book_vet", pet=s["_pet"], date=due[vaccine], time=s["_time"])}


@chain("pets", "pet_profile", "set_feeder", sample=_chain_slots)
def feed_heavier(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do.all(*(("pet_profile", {"pet": s[key]}) for key in ("_pet", "_other")))
    light, heavy = sorted(rows, key=lambda row: row["kg"])
    if light["kg"] == heavy["kg"]:
        raise Unsuitable("equally heavy")
    return {"kg": heavy["kg"], **do("set_feeder", pet=heavy["pet"], grams=s["_grams"])}


@chain("pets", "call_off_vet", "book_vet", sample=_chain_slots)
def move_vet(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Calls an appointment off and makes a new one for the pet that it was for."""
    pet = do("call_off_vet", visit_id=s["_visit_id"])["pet"]
    return do("book_vet", pet=pet, date=s["_date"], time=s["_time"])


@chain("pets", "call_off_vet", "pet_profile", "pet_vaccinations", "book_vet", sample=_chain_slots)
def reconsider_vet(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Calls an appointment off, and makes one for that pet's rabies date instead."""
    pet = do("call_off_vet", visit_id=s["_visit_id"])["pet"]
    species = do("pet_profile", pet=pet)["species"]
    due = do("pet_vaccinations", pet=pet)["due"]["rabies"]
    return {"species": species, **do("book_vet", pet=pet, date=due, time=s["_time"])}
