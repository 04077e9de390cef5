"""Weather: made up from the world's seed, the place and the day, so it has no state."""

from __future__ import annotations

from datetime import date as day_of
from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import Said, day, near_day, small
from toolkit.world.lexicon import cities, city
from toolkit.world.rationale import versus
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
    as_date,
    chain,
    clock,
    integer,
    number,
    optional,
    string,
    tool,
)
from toolkit.world.world import World

_CONDITIONS = ("sunny", "partly cloudy", "cloudy", "light rain", "heavy rain", "windy", "foggy", "snow")
_NEW_MOON = day_of(2025, 1, 29)
_PHASES = (
    "new moon",
    "waxing crescent",
    "first quarter",
    "waxing gibbous",
    "full moon",
    "waning gibbous",
    "last quarter",
    "waning crescent",
)
_PLANTS = ("birch", "grass", "alder", "ragweed", "hazel")


def _known(place: str) -> str:
    if place not in cities():
        raise ToolFailure(f"no weather station in {place}")
    return place


def _celsius(w: World, r: Random, place: str) -> int:
    """What latitude suggests, a mood of the season for the place, and a little for the day."""
    warm = 32 - round(abs(cities()[place].latitude) * 0.45)
    return warm + w.random("season", place).randint(-8, 8) + r.randint(-3, 3)


def _condition(r: Random, celsius: int) -> str:
    return r.choice(_CONDITIONS if celsius < 3 else _CONDITIONS[:-1])


def _degrees(celsius: int, units: str) -> int:
    return round(celsius * 9 / 5 + 32) if units == "fahrenheit" else celsius


def _slots(r: Random, w: World) -> dict[str, Any]:
    return {
        "city": city(r),
        "days": small(r, 2, 7),
        "date": near_day(r, w.today),
        "plant": r.choice(_PLANTS),
        "hour": Said(hour := r.randint(6, 22), clock(hour * 60)),
    }


def _nowhere(r: Random, w: World) -> dict[str, Any]:
    return {
        "city": r.choice(("Little Harwick", "Upper Tolling", "Nowhere Bay", "Port Almond", "Saint Brell", "Ostermoor"))
    }


_CITY = string("City name, for example Lisbon.")
_UNITS = optional(string("Temperature unit; celsius if left out.", ("celsius", "fahrenheit")))


@tool(
    "weather",
    "Get the current weather in a city: temperature, conditions and wind. Not for other days.",
    sample=_slots,
    bad=_nowhere,
    near=("weather_forecast", "weather_on_date"),
    params={"city": _CITY, "units": _UNITS},
)
def current_weather(w: World, city: str, units: str = "celsius") -> Any:
    r = w.random("now", _known(city))
    celsius = _celsius(w, r, city)
    return {
        "city": city,
        "temperature": _degrees(celsius, units),
        "units": units,
        "conditions": _condition(r, celsius),
        "wind_kmh": r.randint(0, 45),
    }


@tool(
    "weather",
    "Get the daily weather forecast of a city for the coming days, starting tomorrow.",
    sample=_slots,
    bad=_nowhere,
    near=("weather_on_date",),
    params={"city": _CITY, "days": integer("How many days to forecast.", 1, 7), "units": _UNITS},
)
def weather_forecast(w: World, city: str, days: int, units: str = "celsius") -> Any:
    return {"city": city, "units": units, "forecast": [_day(w, city, n, units) for n in range(1, days + 1)]}


def _day(w: World, place: str, ahead: int, units: str) -> dict[str, Any]:
    r = w.random("day", _known(place), ahead)
    celsius = _celsius(w, r, place)
    return {
        "date": (w.today + timedelta(days=ahead)).isoformat(),
        "high": _degrees(celsius, units),
        "conditions": _condition(r, celsius),
        "rain_chance": r.randrange(0, 100, 5),
    }


@tool(
    "weather",
    "Get the forecast for a city on one given date, at most 14 days ahead.",
    sample=_slots,
    bad=lambda r, w: {"date": day(r, w.today, 40, 90, plain_only=True)},
    near=("weather_forecast", "current_weather"),
    params={"city": _CITY, "date": string("The day, as YYYY-MM-DD.")},
)
def weather_on_date(w: World, city: str, date: str) -> Any:
    ahead = (as_date(date) - w.today).days
    if not 0 <= ahead <= 14:
        raise ToolFailure("forecasts reach from today to 14 days ahead")
    return {"city": city, **_day(w, city, ahead, "celsius")}


@tool(
    "weather",
    "Get the current air quality index of a city and the main pollutant.",
    sample=_slots,
    bad=_nowhere,
    near=(),
    params={"city": _CITY},
)
def air_quality(w: World, city: str) -> Any:
    r = w.random("air", _known(city))
    index = r.randint(8, 160)
    level = "good" if index <= 50 else "moderate" if index <= 100 else "unhealthy"
    return {"city": city, "aqi": index, "level": level, "main_pollutant": r.choice(("PM2.5", "PM10", "ozone", "NO2"))}


@tool(
    "weather",
    "Get the times of sunrise and sunset in a city on a date.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"city": _CITY, "date": string("The day, as YYYY-MM-DD.")},
)
def sun_times(w: World, city: str, date: str) -> Any:
    as_date(date)
    r = w.random("sun", _known(city), date)
    return {"city": city, "date": date, "sunrise": clock(r.randint(320, 470)), "sunset": clock(r.randint(1010, 1290))}


@tool(
    "weather",
    "Get today's pollen count in a city for one plant.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"city": _CITY, "plant": string("Which pollen.", _PLANTS)},
)
def pollen_count(w: World, city: str, plant: str) -> Any:
    r = w.random("pollen", _known(city), plant)
    return {
        "city": city,
        "plant": plant,
        "level": r.choice(("low", "medium", "high")),
        "grains_per_m3": r.randint(1, 180),
    }


@tool(
    "weather",
    "Compute the wind chill: how cold a temperature feels at a wind speed.",
    sample=lambda r, w: {"temperature": r.randint(-15, 9), "wind_kmh": r.randrange(10, 60)},
    near=(),
    params={"temperature": number("Air temperature in celsius."), "wind_kmh": number("Wind speed in km/h.", 0)},
)
def wind_chill(w: World, temperature: float, wind_kmh: float) -> Any:
    if abs(temperature) > 100 or wind_kmh > 500:
        raise ToolFailure("need a temperature between -100 and 100 and a wind of at most 500")
    power = wind_kmh**0.16
    return {"feels_like": round(13.12 + 0.6215 * temperature - 11.37 * power + 0.3965 * temperature * power, 1)}


def _two_cities(r: Random, w: World) -> dict[str, Any]:
    return {**dict(zip(("_city", "_other"), r.sample(tuple(cities()), 2), strict=True)), "_days": small(r, 2, 5)}


@chain("weather", "current_weather", "weather_forecast", sample=_two_cities)
def warmer_city(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do.all(("current_weather", {"city": s["_city"]}), ("current_weather", {"city": s["_other"]}))
    cold, warm = sorted(rows, key=lambda row: row["temperature"])
    if warm["temperature"] == cold["temperature"]:
        raise Unsuitable("equally warm")
    heat = [row["temperature"] for row in rows]
    do.because("which", **versus([row["city"] for row in rows], heat, rows.index(warm), "higher"))
    ahead = do("weather_forecast", city=warm["city"], days=s["_days"])["forecast"]
    highs = [row["high"] for row in ahead]
    return {
        "warm": warm["city"],
        "now": warm["temperature"],
        "highs": highs,
        "cold": cold["city"],
        "less": cold["temperature"],
    }


@chain("weather", "air_quality", "current_weather", sample=_two_cities)
def run_outside(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    air = do("air_quality", city=s["_city"])
    if air["level"] == "unhealthy":
        place = s["_other"]
        way = "other"
    else:
        place = s["_city"]
        way = "here"
    do.because("state", noun="the air", value=air["level"], then=f"look at {place}")
    now = do("current_weather", city=place)
    return {"way": way, "aqi": air["aqi"], "level": air["level"], **{k: now[k] for k in ("conditions", "temperature")}}


@chain("weather", "sun_times", "pollen_count", sample=lambda r, w: {**_slots(r, w), **_two_cities(r, w)})
def early_sun(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do.all(*(("sun_times", {"city": s[key], "date": s["date"]}) for key in ("_city", "_other")))
    first, last = sorted(rows, key=lambda row: row["sunrise"])
    if first["sunrise"] == last["sunrise"]:
        raise Unsuitable("the same sunrise")
    pollen = do("pollen_count", city=first["city"], plant=s["plant"])
    return {"first": first["city"], "sunrise": first["sunrise"], "level": pollen["level"]}


@tool(
    "weather",
    "Get the highest UV index of today in a city, and how strong that is.",
    sample=_slots,
    bad=_nowhere,
    test=True,
    near=(),
    params={"city": string("The city to look at, for example Porto.")},
)
def uv_index(w: World, city: str) -> Any:
    index = w.random("uv", _known(city)).randint(0, 11)
    return {"city": city, "uv": index, "strength": ("low", "moderate", "high", "very high")[min(index // 3, 3)]}


@tool(
    "weather",
    "Tell which phase the moon is in on a given date.",
    sample=_slots,
    test=True,
    near=(),
    params={"date": string("Which night, as YYYY-MM-DD.")},
)
def moon_phase(w: World, date: str) -> Any:
    age = (as_date(date) - _NEW_MOON).days % 29.53
    return {"date": date, "phase": _PHASES[round(age / 29.53 * 8) % 8], "age_days": int(age)}
