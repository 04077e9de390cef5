"""The user's home: lamps, heating, doors and sensors."""

from __future__ import annotations

from random import Random
from typing import Any

from toolkit.world.language import Said, moment, neat
from toolkit.world.lexicon import words
from toolkit.world.rationale import versus
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
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

_DOORS = ("front door", "back door", "garage door", "garden gate", "balcony door")
_SENSORS = ("temperature", "humidity", "co2")
_BEDS = ("lawn", "rose bed", "vegetable patch", "hedge")
_SCENES = ("movie night", "good morning", "away", "dinner", "reading", "party")


@part("home")
def build(r: Random, w: World) -> dict[str, Any]:
    rooms = r.sample(words("room"), 7)
    return {
        "rooms": {
            room: {
                "light": {"on": r.random() < 0.5, "brightness": r.randrange(10, 101, 10)},
                "target": float(r.randint(17, 23)),
                "blinds": r.randrange(0, 101, 25),
                "sensors": {
                    "temperature": round(r.uniform(15, 27), 1),
                    "humidity": r.randint(25, 75),
                    "co2": r.randint(400, 1800),
                },
            }
            for room in rooms
        },
        "doors": {door: r.choice(("locked", "unlocked")) for door in _DOORS},
        "vacuum": None,
        "scene": None,
        "alarms": [],
        "sprinkler": None,
    }


def _room(w: World, room: str) -> Any:
    rooms = w["home"]["rooms"]
    if room not in rooms:
        raise ToolFailure(f"no room {room}; there are: {', '.join(rooms)}")
    return rooms[room]


def _slots(r: Random, w: World) -> dict[str, Any]:
    temperature = r.choice((r.randint(15, 25), neat(r.randint(30, 49) / 2)))
    return {
        "room": r.choice(list(w["home"]["rooms"])),
        "brightness": r.randint(1, 100),
        "temperature": temperature,
        "door": r.choice(_DOORS),
        "sensor": Said(name := r.choice(_SENSORS), {"co2": "CO2 level"}.get(name, name)),
        "minutes": r.randint(5, 120),
        "time": moment(r, 5, 23),
        "label": Said(label := r.choice(words("task")), f'"{label}"'),
        "percent": r.randrange(0, 101, 5),
        "scene": Said(scene := r.choice(_SCENES), f'"{scene}"'),
        "limit": r.randint(16, 26),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {
        "room": r.choice(("wine cellar", "sauna", "music room", "guest room", "laundry room", "winter garden")),
        "door": "cellar door",
    }


_ROOM = string("Name of the room.")
_DOOR = string("Which door.", _DOORS)


@tool(
    "home",
    "Switch the light of a room on or off, with a brightness if wanted.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={
        "room": _ROOM,
        "state": string("on or off.", ("on", "off")),
        "brightness": optional(integer("Brightness in percent, for a light that is on.", 1, 100)),
    },
)
def set_light(w: World, room: str, state: str, brightness: int | None = None) -> Any:
    light = _room(w, room)["light"]
    light["on"] = state == "on"
    if brightness is not None:
        light["brightness"] = brightness
    return {"room": room, "light": state, "brightness": light["brightness"]}


@tool(
    "home",
    "Set the temperature that the heating of a room shall reach.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"room": _ROOM, "temperature": number("Degrees celsius.", 5)},
)
def set_thermostat(w: World, room: str, temperature: float) -> Any:
    if temperature > 30:
        raise ToolFailure("the heating goes up to 30 degrees")
    place = _room(w, room)
    place["target"] = temperature
    return {"room": room, "target": temperature, "now": place["sensors"]["temperature"]}


@tool(
    "home",
    "Read a sensor in a room: temperature, humidity or CO2.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"room": _ROOM, "sensor": string("Which sensor.", _SENSORS)},
)
def read_sensor(w: World, room: str, sensor: str) -> Any:
    unit = {"temperature": "degrees celsius", "humidity": "percent", "co2": "ppm"}[sensor]
    return {"room": room, "sensor": sensor, "value": _room(w, room)["sensors"][sensor], "unit": unit}


@tool("home", "Lock a door.", sample=_slots, near=(), params={"door": _DOOR})
def lock_door(w: World, door: str) -> Any:
    before = w["home"]["doors"][door]
    w["home"]["doors"][door] = "locked"
    return {"door": door, "before": before, "state": "locked"}


@tool("home", "Unlock a door.", sample=_slots, near=(), params={"door": _DOOR})
def unlock_door(w: World, door: str) -> Any:
    before = w["home"]["doors"][door]
    w["home"]["doors"][door] = "unlocked"
    return {"door": door, "before": before, "state": "unlocked"}


@tool("home", "Tell whether a door is locked.", sample=_slots, near=(), params={"door": _DOOR})
def door_state(w: World, door: str) -> Any:
    return {"door": door, "state": w["home"]["doors"][door]}


@tool(
    "home",
    "Send the robot vacuum to clean a room for some minutes.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"room": _ROOM, "minutes": optional(integer("How long; 30 if left out.", 1, 240))},
)
def start_vacuum(w: World, room: str, minutes: int = 30) -> Any:
    _room(w, room)
    w["home"]["vacuum"] = {"room": room, "minutes": minutes}
    return {"cleaning": room, "minutes": minutes}


@tool(
    "home",
    "Set an alarm clock that rings at home.",
    sample=_slots,
    near=(),
    params={
        "time": string("When it rings, as HH:MM on the 24-hour clock."),
        "label": optional(string("What it is for.")),
    },
)
def set_alarm(w: World, time: str, label: str | None = None) -> Any:
    as_minutes(time)
    w["home"]["alarms"].append({"time": time, "label": label})
    return {"alarm": time, "alarms": len(w["home"]["alarms"])}


@tool(
    "home",
    "Move the blinds of a room: 0 is open, 100 is closed.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"room": _ROOM, "percent": integer("How far closed.", 0, 100)},
)
def set_blinds(w: World, room: str, percent: int) -> Any:
    place = _room(w, room)
    before, place["blinds"] = place["blinds"], percent
    return {"room": room, "before": before, "blinds": percent}


@tool(
    "home",
    "Start a lighting scene in the whole home.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"scene": string("Name of the scene.", _SCENES)},
)
def run_scene(w: World, scene: str) -> Any:
    before, w["home"]["scene"] = w["home"]["scene"], scene
    return {"scene": scene, "before": before or "none"}


def _garden_slots(r: Random, w: World) -> dict[str, Any]:
    return {"bed": r.choice(_BEDS), "minutes": r.randint(3, 45), "limit": r.randrange(20, 61, 5)}


@tool(
    "home",
    "Tell how moist the soil of a bed in the garden is.",
    sample=_garden_slots,
    test=True,
    near=(),
    params={"bed": string("Which part of the garden.", _BEDS)},
)
def soil_moisture(w: World, bed: str) -> Any:
    return {"bed": bed, "percent": w.random("soil", bed).randint(8, 80)}


@tool(
    "home",
    "Water a bed in the garden with the sprinkler.",
    sample=_garden_slots,
    test=True,
    near=(),
    params={"bed": string("Which part of the garden.", _BEDS), "minutes": integer("How long.", 1, 90)},
)
def run_sprinkler(w: World, bed: str, minutes: int) -> Any:
    w["home"]["sprinkler"] = {"bed": bed, "minutes": minutes}
    return {"watering": bed, "minutes": minutes}


@chain(
    "home",
    "soil_moisture",
    "run_sprinkler",
    sample=lambda r, w: {f"_{key}": value for key, value in _garden_slots(r, w).items()},
)
def water_if_dry(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    percent = do("soil_moisture", bed=s["_bed"])["percent"]
    if percent >= s["_limit"]:
        raise Unsuitable("moist enough")
    return {"percent": percent, **do("run_sprinkler", bed=s["_bed"], minutes=s["_minutes"])}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    rooms = r.sample(list(w["home"]["rooms"]), 2)
    return {**found, "_room": rooms[0], "_other": rooms[1]}


@chain("home", "read_sensor", "set_thermostat", sample=_chain_slots)
def heat_if_cold(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    value = do("read_sensor", room=s["_room"], sensor="temperature")["value"]
    room, way = (s["_room"], "cold") if value < s["_limit"] else (s["_other"], "warm")
    limit = s["_limit"]
    do.because(
        "bound", holds=way == "cold", noun="the temperature", value=value, bound=limit, test=f"is below {limit}",
        denied=f"is not below {limit}", then=f"heat the {room}",
    )  # fmt: skip
    return {"way": way, "value": value, "where": room, **do("set_thermostat", room=room, temperature=s["_temperature"])}


@chain("home", "door_state", "lock_door", sample=_chain_slots)
def lock_if_open(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    if do("door_state", door=s["_door"])["state"] == "locked":
        raise Unsuitable("locked already")
    return do("lock_door", door=s["_door"])


@chain("home", "read_sensor", "start_vacuum", sample=_chain_slots)
def vacuum_drier(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do.all(*(("read_sensor", {"room": s[key], "sensor": "humidity"}) for key in ("_room", "_other")))
    dry, wet = sorted(rows, key=lambda row: row["value"])
    if dry["value"] == wet["value"]:
        raise Unsuitable("equally humid")
    humid = [row["value"] for row in rows]
    do.because("which", **versus([row["room"] for row in rows], humid, rows.index(dry), "lower"))
    do("start_vacuum", room=dry["room"], minutes=s["_minutes"])
    return {"dry": dry["room"], "value": dry["value"]}


@chain("home", "set_blinds", sample=_chain_slots)
def swap_blinds(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """The second room gets what the first one had before."""
    before = do("set_blinds", room=s["_room"], percent=s["_percent"])["before"]
    do("set_blinds", room=s["_other"], percent=before)
    return {"before": before}
