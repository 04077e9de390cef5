"""The user's calendar."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import Said, day, moment, near_day
from toolkit.world.lexicon import address, words
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
    array,
    as_date,
    as_minutes,
    chain,
    clock,
    integer,
    only,
    optional,
    part,
    string,
    tool,
)
from toolkit.world.world import World


@part("calendar")
def build(r: Random, w: World) -> list[dict[str, Any]]:
    """Events of the next two weeks, none of them at the same time on the same day."""
    events: list[dict[str, Any]] = []
    titles = r.sample(words("event"), r.randint(10, 14))
    for number, title in enumerate(titles):
        when = w.today + timedelta(days=number % 9 if number < 12 else r.randint(0, 14))
        taken = sum(event["date"] == when.isoformat() for event in events)
        event: dict[str, Any] = {
            "id": f"ev{100 + r.randrange(9) + number * 10}",
            "title": title,
            "date": when.isoformat(),
            "start": clock(8 * 60 + 30 + taken * 180 + r.randrange(0, 120, 15)),
            "minutes": r.choice((30, 45, 60)),
            "attendees": [],
        }
        events.append(event)
    return sorted(events, key=lambda event: (event["date"], event["start"]))


def _find(w: World, event_id: str) -> dict[str, Any]:
    events: list[dict[str, Any]] = w["calendar"]
    for event in events:
        if event["id"] == event_id:
            return event
    raise ToolFailure(f"no event with id {event_id}")


def _clash(w: World, date: str, start: int, minutes: int, but: str = "") -> dict[str, Any] | None:
    for event in w["calendar"]:
        begin = as_minutes(event["start"])
        if (
            event["date"] == date
            and event["id"] != but
            and begin < start + minutes
            and start < begin + event["minutes"]
        ):
            return dict(event)
    return None


def _check_free(w: World, date: str, start: str, minutes: int, but: str = "") -> None:
    as_date(date)
    if other := _clash(w, date, as_minutes(start), minutes, but):
        raise ToolFailure(f"overlaps with {other['title']} at {other['start']}")


def _slots(r: Random, w: World) -> dict[str, Any]:
    event = r.choice(w["calendar"])
    for _ in range(20):
        when, start, minutes = day(r, w.today), moment(r, 8, 19), r.choice((15, 30, 45, 60, 90))
        if _clash(w, when.value, as_minutes(start.value), minutes) is None:
            break
    title = (
        f"{r.choice(words('event'))} {r.choice(('', 'II', 'follow-up', 'with ' + r.choice(words('first'))))}".strip()
    )
    return {
        "event_id": event["id"],
        "title": Said(title, f'"{title}"'),
        "date": when,
        "start": start,
        "minutes": minutes,
        "location": Said(place := r.choice(words("place")), place),
        "attendees": [address(r) for _ in range(r.choice((1, 1, 2)))],
        "attendee": address(r),
        "keyword": Said(word := event["title"].split()[0], f'"{word}"'),
    }


def _clashing(r: Random, w: World) -> dict[str, Any]:
    event = r.choice(w["calendar"])
    start = event["start"]
    return {
        "date": Said(event["date"], event["date"]),
        "start": start,
        "minutes": 30,
        "event_id": f"ev{r.randint(500, 999)}",
    }


_DATE = string("Date as YYYY-MM-DD.")
_START = string("Start time as HH:MM on the 24-hour clock.")
_ID = string("The event's id, as in ev123.")


@tool(
    "calendar",
    "List the events in the calendar on one day.",
    sample=lambda r, w: {**_slots(r, w), "date": near_day(r, w.today)},
    near=("search_events",),
    params={"date": _DATE},
)
def list_events(w: World, date: str) -> Any:
    as_date(date)
    rows = [event for event in w["calendar"] if event["date"] == date]
    return {"date": date, "events": [{k: event[k] for k in ("id", "title", "start", "minutes")} for event in rows]}


@tool(
    "calendar",
    "Search coming events by a word in their title.",
    sample=_slots,
    near=("list_events",),
    params={"keyword": string("Word or words in the title.")},
)
def search_events(w: World, keyword: str) -> Any:
    rows = [event for event in w["calendar"] if keyword.lower() in event["title"].lower()]
    return {"events": [{k: event[k] for k in ("id", "title", "date", "start", "minutes")} for event in rows[:5]]}


@tool(
    "calendar",
    "Put a new event into the calendar. Fails if another event overlaps.",
    sample=_slots,
    bad=_clashing,
    near=(),
    params={
        "title": string("What the event is called."),
        "date": _DATE,
        "start": _START,
        "minutes": optional(integer("Length in minutes; 60 if left out.", 5, 720)),
        "location": optional(string("Where it takes place.")),
        "attendees": optional(array("E-mail addresses of the people to invite.")),
    },
)
def create_event(
    w: World,
    title: str,
    date: str,
    start: str,
    minutes: int = 60,
    location: str | None = None,
    attendees: list[str] | None = None,
) -> Any:
    _check_free(w, date, start, minutes)
    number = max(int(event["id"][2:]) for event in w["calendar"]) + 1 if w["calendar"] else 100
    event: dict[str, Any] = {
        "id": f"ev{number}",
        "title": title,
        "date": date,
        "start": start,
        "minutes": minutes,
        "attendees": attendees or [],
    }
    if location:
        event["location"] = location
    w["calendar"].append(event)
    return {"created": event["id"], "title": title, "date": date, "start": start, "minutes": minutes}


@tool(
    "calendar",
    "Move an event to another date and time. Needs the event's id.",
    sample=_slots,
    bad=_clashing,
    near=("create_event",),
    params={
        "event_id": _ID,
        "date": string("New date as YYYY-MM-DD."),
        "start": string("New start time as HH:MM, 24-hour clock."),
    },
)
def move_event(w: World, event_id: str, date: str, start: str) -> Any:
    event = _find(w, event_id)
    _check_free(w, date, start, event["minutes"], event_id)
    event.update(date=date, start=start)
    return {"moved": event_id, "title": event["title"], "date": date, "start": start}


@tool(
    "calendar",
    "Cancel an event and remove it from the calendar. Needs the event's id.",
    sample=_slots,
    bad=_clashing,
    near=(),
    params={"event_id": _ID},
)
def cancel_event(w: World, event_id: str) -> Any:
    event = _find(w, event_id)
    w["calendar"].remove(event)
    return {"cancelled": event_id, "title": event["title"], "date": event["date"]}


@tool(
    "calendar",
    "Find the first free gap of a given length on a day between 08:00 and 20:00.",
    sample=lambda r, w: {**_slots(r, w), "date": near_day(r, w.today)},
    held_out=True,
    near=("list_events",),
    params={"date": _DATE, "minutes": integer("How long the gap must be, in minutes.", 5, 720)},
)
def find_free_time(w: World, date: str, minutes: int) -> Any:
    as_date(date)
    for start in range(8 * 60, 20 * 60 - minutes + 1, 15):
        if _clash(w, date, start, minutes) is None:
            return {"date": date, "start": clock(start), "end": clock(start + minutes)}
    raise ToolFailure(f"no free gap of {minutes} minutes on {date}")


@tool(
    "calendar",
    "Invite one person to an event that is in the calendar.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"event_id": _ID, "attendee": string("E-mail address of the person to invite.")},
)
def invite_to_event(w: World, event_id: str, attendee: str) -> Any:
    event = _find(w, event_id)
    if attendee in event["attendees"]:
        raise ToolFailure(f"{attendee} is already invited")
    event["attendees"].append(attendee)
    return {"event": event["title"], "date": event["date"], "invited": attendee, "attendees": len(event["attendees"])}


def _by_title(r: Random, w: World) -> dict[str, Any]:
    """An event that its title alone finds, and one that is alone on its day."""
    titles = [event["title"] for event in w["calendar"]]
    event = r.choice([e for e in w["calendar"] if sum(e["title"].lower() in t.lower() for t in titles) == 1])
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    dates = [e["date"] for e in w["calendar"]]
    alone = [date for date in dict.fromkeys(dates) if dates.count(date) == 1]
    if not alone:
        raise Unsuitable("no day with one event")
    return {
        **found,
        "_name": Said(event["title"], f'"{event["title"]}"'),
        "_busy": r.choice(alone),
        "_other_id": r.choice([e["id"] for e in w["calendar"] if e["id"] != found["_event_id"]]),
    }


@chain("calendar", "search_events", "move_event", sample=_by_title)
def move_by_title(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    event = only(do("search_events", keyword=s["_name"])["events"])
    moved = do("move_event", event_id=event["id"], date=s["_date"], start=s["_start"])
    return {
        "title": event["title"],
        "old": f"{event['date']} {event['start']}",
        "date": moved["date"],
        "start": moved["start"],
    }


@chain("calendar", "search_events", "cancel_event", sample=_by_title)
def cancel_by_title(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    event = only(do("search_events", keyword=s["_name"])["events"])
    return do("cancel_event", event_id=event["id"])


@chain("calendar", "list_events", "cancel_event", sample=_by_title)
def cancel_on_day(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    event = only(do("list_events", date=s["_busy"])["events"])
    return do("cancel_event", event_id=event["id"])


@chain("calendar", "list_events", "create_event", sample=_by_title)
def if_free(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """One event on a busy day moves the new one to the other day."""
    events = do("list_events", date=s["_busy"])["events"]
    return {
        "count": len(events),
        "title": events[0]["title"],
        **do("create_event", title=s["_title"], date=s["_date"], start=s["_start"]),
    }


@chain("calendar", "find_free_time", "invite_to_event", sample=_by_title)
def first_free_day(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Invites to one of two events, by which day has room earlier."""
    first, second = do.all(
        *(("find_free_time", {"date": s[key], "minutes": s["_minutes"]}) for key in ("_busy", "_date"))
    )
    if first["start"] == second["start"]:
        raise Unsuitable("equally early")
    early = min(first, second, key=lambda gap: gap["start"])
    event = s["_event_id"] if early is first else s["_other_id"]
    return {**early, **do("invite_to_event", event_id=event, attendee=s["_attendee"])}
