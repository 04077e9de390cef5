"""A few made-up web hosts."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import person, words
from toolkit.world.spec import ToolFailure, Unsuitable, chain, integer, optional, part, string, tool
from toolkit.world.world import World

_KINDS = ("users", "orders", "tickets", "posts", "invoices", "devices")


@part("http")
def build(r: Random, w: World) -> dict[str, Any]:
    hosts: dict[str, Any] = {}
    for host in r.sample(words("host"), 6):
        kind = r.choice(_KINDS)
        rows = {
            str(n): {
                "id": n,
                "name": r.choice((person(r), f"{r.choice(words('topic'))}")),
                "status": r.choice(("open", "closed", "new")),
            }
            for n in sorted(r.sample(range(1, 400), 4))
        }
        hosts[host] = {
            "kind": kind,
            "rows": rows,
            "address": f"203.0.113.{r.randint(2, 250)}",
            "status": r.choice((200, 200, 200, 301, 500, 503)),
            "ms": r.randint(20, 900),
            "days_left": r.randint(1, 300),
            "failures": 0,
        }
    flaky = r.choice(list(hosts))
    hosts[flaky].update(status=200, failures=1)
    return {"hosts": hosts}


def _host(w: World, host: str) -> Any:
    hosts = w["http"]["hosts"]
    if host not in hosts:
        raise ToolFailure(f"could not resolve host {host}")
    return hosts[host]


def _split(w: World, url: str) -> tuple[Any, list[str]]:
    if not url.startswith("https://"):
        raise ToolFailure("url must start with https://")
    host, *path = url.removeprefix("https://").strip("/").split("/")
    return _host(w, host), path


def _slots(r: Random, w: World, steady: bool = True) -> dict[str, Any]:
    hosts = w["http"]["hosts"]
    host = r.choice([name for name in hosts if not (steady and hosts[name]["failures"])])
    entry = hosts[host]
    key = r.choice(list(entry["rows"]))
    name = f"{r.choice(words('topic'))} {r.randint(1, 99)}"
    body = json.dumps({"name": name, "status": r.choice(("open", "new", "closed"))})
    return {
        "url": f"https://{host}/{entry['kind']}/{key}",
        "collection": f"https://{host}/{entry['kind']}",
        "site": f"https://{host}",
        "body": Said(body, body),
        "host": host,
        "status": r.choice(("open", "closed", "new")),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    found = _slots(r, w)
    missing = f"www.{r.choice(words('project'))}{r.randint(1, 99)}.example"
    return {"url": f"{found['collection']}/{r.randint(500, 999)}", "host": missing, "site": f"https://{missing}"}


_URL = string("Full address, starting with https://.")


@tool("http", "Fetch a web address with GET and return its body.", sample=_slots, bad=_bad, params={"url": _URL})
def http_get(w: World, url: str) -> Any:
    entry, path = _split(w, url)
    if entry["failures"]:
        entry["failures"] -= 1
        raise ToolFailure("timed out after 10 s, try again")
    if not path:
        return {"status": entry["status"], "body": f"Welcome to {url.removeprefix('https://').strip('/')}"}
    if path[0] != entry["kind"] or len(path) > 2:
        raise ToolFailure(f"404 not found: {url}")
    if len(path) == 1:
        return {"status": 200, "body": {"ids": [row["id"] for row in entry["rows"].values()]}}
    if path[1] not in entry["rows"]:
        raise ToolFailure(f"404 not found: {url}")
    return {"status": 200, "body": entry["rows"][path[1]]}


@tool(
    "http",
    "Send a JSON body to a web address with POST, which creates an entry there.",
    sample=lambda r, w: {**(found := _slots(r, w)), "url": found["collection"]},
    near=("http_get",),
    params={"url": _URL, "body": string("The JSON text to send, exactly as given.")},
)
def http_post(w: World, url: str, body: str) -> Any:
    entry, path = _split(w, url)
    if path != [entry["kind"]]:
        raise ToolFailure(f"405 can't post to {url}")
    try:
        value = json.loads(body)
    except ValueError:
        raise ToolFailure("400 body is not JSON") from None
    if not isinstance(value, dict):
        raise ToolFailure("400 body must be an object")
    number = max(map(int, entry["rows"])) + 1 if entry["rows"] else 1
    entry["rows"][str(number)] = {"id": number, **value}
    return {"status": 201, "id": number}


@tool(
    "http",
    "Send DELETE to a web address, which removes the entry there.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"url": _URL},
)
def http_delete(w: World, url: str) -> Any:
    entry, path = _split(w, url)
    if len(path) != 2 or path[0] != entry["kind"] or path[1] not in entry["rows"]:
        raise ToolFailure(f"404 not found: {url}")
    del entry["rows"][path[1]]
    return {"status": 204, "url": url}


@tool(
    "http",
    "Check whether a web site is up: its HTTP status and how long it took. Does not return the page.",
    sample=_slots,
    bad=_bad,
    near=("http_get",),
    params={"site": string("Address of the site, starting with https://.")},
)
def check_site(w: World, site: str) -> Any:
    entry, _ = _split(w, site)
    return {"site": site, "status": entry["status"], "up": entry["status"] < 500, "milliseconds": entry["ms"]}


@tool(
    "http",
    "Look up the IP address of a host name.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"host": string("Host name without https://.")},
)
def dns_lookup(w: World, host: str) -> Any:
    return {"host": host, "address": _host(w, host)["address"]}


@tool(
    "http",
    "Check how many days the TLS certificate of a host is still valid.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"host": string("Host name without https://.")},
)
def check_certificate(w: World, host: str) -> Any:
    return {"host": host, "days_left": _host(w, host)["days_left"]}


@tool(
    "http",
    "Ping a host and measure the mean round trip.",
    sample=lambda r, w: {**_slots(r, w), "count": r.randint(2, 9)},
    held_out=True,
    near=("check_site",),
    params={
        "host": string("Host name without https://."),
        "count": optional(integer("How many pings; 4 if left out.", 1, 20)),
    },
)
def ping_host(w: World, host: str, count: int = 4) -> Any:
    return {"host": host, "sent": count, "received": count, "mean_ms": max(1, _host(w, host)["ms"] // 10)}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    first, second = _slots(r, w), _slots(r, w)
    flaky = _slots(r, w, steady=False)["url"]
    return {**{f"_{key}": value for key, value in first.items()}, "_flaky": flaky, "_other": second["host"]}


@chain("http", "http_get", sample=_chain_slots)
def list_then_first(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    ids = do("http_get", url=s["_collection"])["body"]["ids"]
    return do("http_get", url=f"{s['_collection']}/{ids[0]}")["body"]


@chain("http", "http_get", sample=_chain_slots)
def retry_timeout(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """The first try times out and says to try again."""
    if "try again" not in do.attempt("http_get", url=s["_flaky"]).get("error", ""):
        raise Unsuitable("answered at once")
    return do("http_get", url=s["_flaky"])["body"]


@chain("http", "http_post", "http_get", sample=_chain_slots)
def post_then_get(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    number = do("http_post", url=s["_collection"], body=s["_body"])["id"]
    return do("http_get", url=f"{s['_collection']}/{number}")["body"]


@chain("http", "http_get", "http_delete", sample=_chain_slots)
def delete_last(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    ids = do("http_get", url=s["_collection"])["body"]["ids"]
    do("http_delete", url=f"{s['_collection']}/{ids[-1]}")
    return {"last": ids[-1], "left": len(ids) - 1}


@chain("http", "check_certificate", "ping_host", sample=_chain_slots)
def shorter_certificate(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    rows = do.all(("check_certificate", {"host": s["_host"]}), ("check_certificate", {"host": s["_other"]}))
    first, second = sorted(rows, key=lambda row: row["days_left"])
    if first["days_left"] == second["days_left"]:
        raise Unsuitable("the same")
    return {"days": first["days_left"], **do("ping_host", host=first["host"])}
