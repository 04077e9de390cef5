"""A fitness log: workouts, steps, pulse and goals."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import day
from toolkit.world.spec import ToolFailure, Unsuitable, as_date, chain, integer, optional, part, string, tool
from toolkit.world.world import World

_ACTIVITIES = ("running", "swimming", "cycling", "rowing", "yoga", "climbing")


@part("fitness")
def build(r: Random, w: World) -> dict[str, Any]:
    return {
        "workouts": [
            {
                "workout_id": f"wo{500 + n * 8 + r.randrange(7)}",
                "activity": r.choice(_ACTIVITIES),
                "minutes": minutes,
                "date": (w.today - timedelta(days=n + 1)).isoformat(),
            }
            for n, minutes in enumerate(r.sample(range(15, 110), 7))
        ],
        "goal": r.randrange(5000, 12001, 500),
    }


def _slots(r: Random, w: World) -> dict[str, Any]:
    return {
        "activity": r.choice(_ACTIVITIES),
        "minutes": r.randint(10, 150),
        "date": day(r, w.today, -20, -1),
        "steps": r.choice([steps for steps in range(3000, 18001, 250) if steps != w["fitness"]["goal"]]),
        "limit": r.randint(2, 6),
        "workout_id": r.choice(w["fitness"]["workouts"])["workout_id"],
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {"date": day(r, w.today, 5, 40, plain_only=True), "workout_id": f"wo{r.randint(800, 999)}"}


def _past(w: World, date: str) -> str:
    if as_date(date) >= w.today:
        raise ToolFailure(f"nothing measured yet for {date}")
    return date


_DATE = string("A day before today, as YYYY-MM-DD.")


@tool(
    "fitness",
    "Enter a workout into the user's fitness log.",
    sample=_slots,
    test=True,
    near=(),
    params={
        "activity": string("What kind of workout.", _ACTIVITIES),
        "minutes": integer("How long it was.", 1, 600),
        "date": optional(string("When it was, as YYYY-MM-DD; today if left out.")),
    },
)
def log_workout(w: World, activity: str, minutes: int, date: str | None = None) -> Any:
    when = w.today.isoformat() if date is None else as_date(date).isoformat()
    workouts = w["fitness"]["workouts"]
    workout_id = f"wo{900 + len(workouts)}"
    workouts.insert(0, {"workout_id": workout_id, "activity": activity, "minutes": minutes, "date": when})
    return {"workout_id": workout_id, "activity": activity, "minutes": minutes, "date": when}


@tool(
    "fitness",
    "List the latest workouts in the user's fitness log.",
    sample=_slots,
    test=True,
    near=(),
    params={"limit": integer("How many workouts.", 1, 10)},
)
def recent_workouts(w: World, limit: int) -> Any:
    return {"workouts": [dict(row) for row in w["fitness"]["workouts"][:limit]]}


@tool(
    "fitness",
    "Remove a workout from the user's fitness log.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"workout_id": string("Id of the workout.")},
)
def remove_workout(w: World, workout_id: str) -> Any:
    workouts = w["fitness"]["workouts"]
    for row in workouts:
        if row["workout_id"] == workout_id:
            workouts.remove(row)
            return {"removed": workout_id, "activity": row["activity"], "minutes": row["minutes"]}
    raise ToolFailure(f"no workout {workout_id}")


@tool(
    "fitness",
    "Tell how many steps the user took on a day.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"date": _DATE},
)
def steps_on_day(w: World, date: str) -> Any:
    return {"date": date, "steps": w.random("steps", _past(w, date)).randint(1200, 19000)}


@tool(
    "fitness",
    "Tell the user's resting pulse on a day, in beats per minute.",
    sample=_slots,
    bad=_bad,
    test=True,
    near=(),
    params={"date": _DATE},
)
def resting_pulse(w: World, date: str) -> Any:
    return {"date": date, "pulse": w.random("pulse", _past(w, date)).randint(47, 78)}


@tool(
    "fitness",
    "Set the user's daily goal of steps.",
    sample=_slots,
    test=True,
    near=(),
    params={"steps": integer("Steps a day.", 500, 40000)},
)
def set_step_goal(w: World, steps: int) -> Any:
    before, w["fitness"]["goal"] = w["fitness"]["goal"], steps
    return {"before": before, "goal": steps}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    return {**found, "_other": day(r, w.today, -20, -1)}


@chain("fitness", "steps_on_day", "set_step_goal", sample=_chain_slots)
def goal_from_day(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("set_step_goal", steps=do("steps_on_day", date=s["_date"])["steps"])


@chain("fitness", "steps_on_day", "resting_pulse", sample=_chain_slots)
def pulse_of_lazier_day(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Of two days, the pulse on the one with fewer steps."""
    if s["_date"] == s["_other"]:
        raise Unsuitable("one day")
    rows = do.all(*(("steps_on_day", {"date": s[key]}) for key in ("_date", "_other")))
    lazy = min(rows, key=lambda row: row["steps"])
    return {"steps": lazy["steps"], **do("resting_pulse", date=lazy["date"])}


@chain("fitness", "recent_workouts", "remove_workout", sample=_chain_slots)
def remove_shortest(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do("recent_workouts", limit=s["_limit"])["workouts"]
    return do("remove_workout", workout_id=min(rows, key=lambda row: row["minutes"])["workout_id"])


@chain("fitness", "log_workout", "recent_workouts", "set_step_goal", sample=_chain_slots)
def log_then_goal(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """Logs a workout, looks at the latest two, and sets a goal by whether the new one was longer."""
    do("log_workout", activity=s["_activity"], minutes=s["_minutes"])
    new, last = do("recent_workouts", limit=2)["workouts"]
    if new["minutes"] <= last["minutes"]:
        raise Unsuitable("not longer")
    return {"last": last["minutes"], **do("set_step_goal", steps=s["_steps"])}
