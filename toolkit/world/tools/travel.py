"""Flights, hotels, trains and the user's bookings."""

from __future__ import annotations

from random import Random
from typing import Any

from toolkit.world.language import day
from toolkit.world.lexicon import cities, person
from toolkit.world.rationale import among, versus
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
    as_date,
    chain,
    clock,
    integer,
    number,
    optional,
    part,
    string,
    tool,
)
from toolkit.world.world import World

_CLASSES = ("economy", "business")


@part("travel")
def build(r: Random, w: World) -> dict[str, Any]:
    bookings = [
        {
            "id": f"BK{200 + n * 17 + r.randrange(15)}",
            "what": r.choice(("flight", "hotel", "train")) + f" {r.choice(tuple(cities()))}",
            "price": r.randrange(60, 800),
            "seat": None,
        }
        for n in range(4)
    ]
    return {"bookings": bookings}


def _book(w: World, what: str, price: float, **more: Any) -> dict[str, Any]:
    rows = w["travel"]["bookings"]
    number = max((int(row["id"][2:]) for row in rows), default=199) + 1
    rows.append({"id": f"BK{number}", "what": what, "price": price, "seat": None, **more})
    return {"booking": f"BK{number}", "what": what, "price": price}


def _known(w: World, date: str, *places: str) -> None:
    for place in places:
        if place not in cities():
            raise ToolFailure(f"unknown city: {place}")
    if as_date(date) < w.today:
        raise ToolFailure(f"{date} is in the past")


def _flights(w: World, origin: str, destination: str, date: str, cabin: str) -> list[dict[str, Any]]:
    r = w.random("flights", origin, destination, date)
    rows: list[dict[str, Any]] = [
        {
            "flight": f"{r.choice(('KS', 'NW', 'AL', 'ZE'))}{r.randint(100, 990)}",
            "departs": clock(r.randrange(330, 1320, 5)),
            "price": r.randrange(60, 620),
        }
        for _ in range(3)
    ]
    for row in rows:
        row["price"] *= 3 if cabin == "business" else 1
    return sorted(rows, key=lambda row: row["departs"])


def _slots(r: Random, w: World) -> dict[str, Any]:
    start, end = r.sample(tuple(cities()), 2)
    date = day(r, w.today, 2, 80)
    return {
        "origin": start,
        "destination": end,
        "date": date,
        "cabin": r.choice(_CLASSES),
        "city": end,
        "checkin": date,
        "nights": r.randint(2, 9),
        "max_price": r.randrange(80, 300, 5),
        "passenger": person(r),
        "booking_id": r.choice(w["travel"]["bookings"])["id"],
        "seat": f"{r.randint(1, 40)}{r.choice('ABCDEF')}",
        "flight": f"{r.choice(('KS', 'NW', 'AL', 'ZE'))}{r.randint(100, 990)}",
    }


def _flight_slots(r: Random, w: World) -> dict[str, Any]:
    """Values for booking a flight that exists."""
    found = _slots(r, w)
    rows = _flights(w, found["origin"], found["destination"], found["date"].value, "economy")
    return {**found, "flight": r.choice(rows)["flight"]}


def _bad(r: Random, w: World) -> dict[str, Any]:
    place = r.choice(("Little Harwick", "Upper Tolling", "Nowhere Bay", "Port Almond", "Saint Brell", "Ostermoor"))
    past = day(r, w.today, -50, -3, plain_only=True)
    return {"destination": place, "city": place, "booking_id": f"BK{r.randint(600, 999)}", "checkin": past}


_DATE = string("Day of travel, as YYYY-MM-DD.")
_BOOKING = string("Booking id, as in BK217.")


@tool(
    "travel",
    "Search flights between two cities on a day.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={
        "origin": string("City to fly from."),
        "destination": string("City to fly to."),
        "date": _DATE,
        "cabin": optional(string("Class; economy if left out.", _CLASSES)),
    },
)
def search_flights(w: World, origin: str, destination: str, date: str, cabin: str = "economy") -> Any:
    _known(w, date, origin, destination)
    return {"flights": _flights(w, origin, destination, date, cabin)}


@tool(
    "travel",
    "Book a flight by its number for one passenger.",
    sample=_flight_slots,
    near=(),
    params={
        "flight": string("Flight number, as in KS417."),
        "date": _DATE,
        "passenger": string("Full name of the passenger."),
    },
)
def book_flight(w: World, flight: str, date: str, passenger: str) -> Any:
    _known(w, date)
    return _book(
        w, f"flight {flight}", w.random("fare", flight, date).randrange(60, 620), passenger=passenger, date=date
    )


@tool(
    "travel",
    "Search hotels in a city for a stay.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={
        "city": string("City to stay in."),
        "checkin": string("First night, as YYYY-MM-DD."),
        "nights": integer("How many nights.", 1, 60),
        "max_price": optional(number("Highest price for a night, in euros.", 0)),
    },
)
def search_hotels(w: World, city: str, checkin: str, nights: int, max_price: float | None = None) -> Any:
    _known(w, checkin, city)
    r = w.random("hotels", city)
    names = r.sample(
        (
            "Hotel Astra",
            "Pension Linde",
            "The Harbour Inn",
            "Grand Meridian",
            "Casa Verde",
            "Hostel Kite",
            "Park Lodge",
            "Hotel Nova",
        ),
        4,
    )
    rows: list[dict[str, Any]] = [{"hotel": name, "night": r.randrange(45, 260)} for name in names]
    return {
        "city": city,
        "hotels": [
            {**row, "total": row["night"] * nights} for row in rows if max_price is None or row["night"] <= max_price
        ],
    }


@tool(
    "travel",
    "Book a hotel by name for a stay.",
    sample=lambda r, w: {
        **_slots(r, w),
        "hotel": r.choice(("Hotel Astra", "Pension Linde", "The Harbour Inn", "Casa Verde", "Park Lodge")),
    },
    bad=_bad,
    near=(),
    params={
        "hotel": string("Name of the hotel."),
        "city": string("City of the hotel."),
        "checkin": string("First night, as YYYY-MM-DD."),
        "nights": integer("How many nights.", 1, 60),
    },
)
def book_hotel(w: World, hotel: str, city: str, checkin: str, nights: int) -> Any:
    _known(w, checkin, city)
    prices = {row["hotel"]: row["total"] for row in search_hotels(w, city, checkin, nights)["hotels"]}
    price = prices.get(hotel, nights * w.random("night", hotel, city).randrange(45, 260))
    return _book(w, f"hotel {hotel}, {city}", price, date=checkin, nights=nights)


@tool(
    "travel",
    "Cancel a booking by its id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"booking_id": _BOOKING},
)
def cancel_booking(w: World, booking_id: str) -> Any:
    rows = w["travel"]["bookings"]
    for row in rows:
        if row["id"] == booking_id:
            rows.remove(row)
            return {"cancelled": booking_id, "what": row["what"], "refund": row["price"] // 2}
    raise ToolFailure(f"no booking {booking_id}")


@tool(
    "travel",
    "Show one booking: what it is, its price and its seat.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"booking_id": _BOOKING},
)
def show_booking(w: World, booking_id: str) -> Any:
    for row in w["travel"]["bookings"]:
        if row["id"] == booking_id:
            return {"id": row["id"], "what": row["what"], "price": row["price"], "seat": row["seat"] or "not chosen"}
    raise ToolFailure(f"no booking {booking_id}")


@tool(
    "travel",
    "Look up whether a flight is on time, and its gate.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"flight": string("Flight number, as in KS417."), "date": string("Day of departure, as YYYY-MM-DD.")},
)
def flight_status(w: World, flight: str, date: str) -> Any:
    as_date(date)
    r = w.random("status", flight, date)
    return {
        "flight": flight,
        "date": date,
        "delay_minutes": r.choice((0, 0, 0, 15, 40, 95)),
        "gate": f"{r.choice('ABCD')}{r.randint(1, 40)}",
    }


@tool(
    "travel",
    "Reserve a seat for a booking.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"booking_id": _BOOKING, "seat": string("Seat, as in 12C.")},
)
def reserve_seat(w: World, booking_id: str, seat: str) -> Any:
    for row in w["travel"]["bookings"]:
        if row["id"] == booking_id:
            row["seat"] = seat
            return {"booking": booking_id, "what": row["what"], "seat": seat}
    raise ToolFailure(f"no booking {booking_id}")


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    other = r.choice(w["travel"]["bookings"])["id"]
    return {**found, "_other_booking": other}


def _search(do: Any, s: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = do(
        "search_flights", origin=s["_origin"], destination=s["_destination"], date=s["_date"]
    )["flights"]
    if len({row["price"] for row in rows}) < len(rows) or len({row["departs"] for row in rows}) < len(rows):
        raise Unsuitable("equal prices or times")
    return rows


@chain("travel", "search_flights", "book_flight", sample=_chain_slots)
def book_cheapest_flight(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = _search(do, s)
    best = min(rows, key=lambda row: row["price"])
    do.because("most", **among([row["price"] for row in rows], best["price"], "lowest", best["flight"]))
    return {**best, **do("book_flight", flight=best["flight"], date=s["_date"], passenger=s["_passenger"])}


@chain("travel", "search_flights", "book_flight", sample=_chain_slots)
def book_earliest_flight(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = _search(do, s)
    first = min(rows, key=lambda row: row["departs"])
    do.because("most", **among([row["departs"] for row in rows], first["departs"], "earliest", first["flight"]))
    return {**first, **do("book_flight", flight=first["flight"], date=s["_date"], passenger=s["_passenger"])}


@chain("travel", "search_hotels", "book_hotel", sample=_chain_slots)
def book_cheapest_hotel(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    stay = {"city": s["_city"], "checkin": s["_checkin"], "nights": s["_nights"]}
    rows = do("search_hotels", **stay)["hotels"]
    if len({row["night"] for row in rows}) < len(rows):
        raise Unsuitable("equal prices")
    best = min(rows, key=lambda row: row["night"])
    do.because("most", **among([row["night"] for row in rows], best["night"], "lowest", best["hotel"]))
    return {**best, **do("book_hotel", hotel=best["hotel"], **stay)}


@chain("travel", "show_booking", "cancel_booking", sample=_chain_slots)
def cancel_dearer(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    if s["_booking_id"] == s["_other_booking"]:
        raise Unsuitable("the same booking")
    rows = do.all(*(("show_booking", {"booking_id": s[key]}) for key in ("_booking_id", "_other_booking")))
    cheap, dear = sorted(rows, key=lambda row: row["price"])
    if cheap["price"] == dear["price"]:
        raise Unsuitable("equally dear")
    paid = [row["price"] for row in rows]
    do.because("which", **versus([row["id"] for row in rows], paid, rows.index(dear), "higher"))
    return {"price": dear["price"], **do("cancel_booking", booking_id=dear["id"])}


@chain("travel", "flight_status", "reserve_seat", sample=_chain_slots)
def seat_if_punctual(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    delay = do("flight_status", flight=s["_flight"], date=s["_date"])["delay_minutes"]
    booking = s["_other_booking"] if delay else s["_booking_id"]
    if s["_booking_id"] == s["_other_booking"]:
        raise Unsuitable("the same booking")
    return {"delay": delay, **do("reserve_seat", booking_id=booking, seat=s["_seat"])}
