"""Processes, services, disks and a small shell over the files of the simulated machine."""

from __future__ import annotations

import posixpath
import shlex
from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import words
from toolkit.world.spec import (
    ToolFailure,
    Unsuitable,
    boolean,
    chain,
    integer,
    optional,
    part,
    string,
    tool,
)
from toolkit.world.tools import files
from toolkit.world.world import World

_PROGRAMS = (
    "node",
    "python3",
    "postgres",
    "nginx",
    "java",
    "redis-server",
    "vite",
    "celery",
    "jupyter",
    "gunicorn",
    "ollama",
    "syncthing",
)
_SERVICES = ("nginx", "postgresql", "redis", "cron", "docker", "ssh", "cups", "grafana", "mosquitto", "bluetooth")
_VARIABLES = (
    "EDITOR",
    "LANG",
    "SHELL",
    "TZ",
    "PAGER",
    "BROWSER",
    "DATABASE_URL",
    "HTTP_PROXY",
    "NODE_ENV",
    "JAVA_HOME",
)


@part("shell")
def build(r: Random, w: World) -> dict[str, Any]:
    ports = r.sample((3000, 5000, 5173, 5432, 6379, 8000, 8080, 8443, 8888, 9090, 9200, 11434), 7)
    processes = [
        {
            "pid": r.randint(1000, 9000) * 10 + n,
            "name": name,
            "port": ports[n],
            "cpu_percent": round(r.uniform(0, 70), 1),
        }
        for n, name in enumerate(r.sample(_PROGRAMS, 7))
    ]
    return {
        "processes": processes,
        "services": {name: r.choice(("running", "running", "stopped", "failed")) for name in r.sample(_SERVICES, 8)},
        "disks": {mount: r.randint(12, 98) for mount in ("/", "/home", "/var", "/data")},
        "variables": {
            name: r.choice(("vim", "de_DE.UTF-8", "/bin/bash", "UTC", "less", "production"))
            for name in r.sample(_VARIABLES, 6)
        },
    }


def _slots(r: Random, w: World) -> dict[str, Any]:
    process = r.choice(w["shell"]["processes"])
    found = files.slots(r, w)
    path, folder = found["path"], found["folder"]
    command = r.choice(
        (
            f"ls {folder}",
            f"cat {path}",
            f"wc -l {path}",
            f"head -n {r.randint(1, 6)} {path}",
            f"tail -n {r.randint(1, 6)} {path}",
            f"grep {r.choice(('invoice', 'supplier', 'ERROR', 'WARN', 'meeting', 'INFO'))} {path}",
            f"basename {path}",
            f"dirname {path}",
            f"echo {r.choice(words('stem'))}-{r.choice(words('project'))}-{r.randint(1, 99)}",
        )
    )
    return {
        "command": Said(command, f"`{command}`"),
        "pid": process["pid"],
        "port": process["port"],
        "service": r.choice(list(w["shell"]["services"])),
        "mount": r.choice(list(w["shell"]["disks"])),
        "name": process["name"],
        "variable": r.choice(list(w["shell"]["variables"])),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    command = f"cat {w.home}/Documents/{r.choice(words('stem'))}_{r.choice(words('project'))}.txt"
    return {
        "command": Said(command, f"`{command}`"),
        "pid": r.randint(90_001, 99_999),
        "port": r.randint(20_000, 60_000),
        "service": r.choice(("httpd", "mysql", "kafka", "samba", "vault", "squid", "tor", "minio")),
        "mount": f"/mnt/{r.choice(words('project'))}",
    }


def _run(w: World, words_: list[str]) -> str:
    name, *rest = words_
    if name == "ls" and len(rest) == 1:
        return "\n".join(files.names_in(w, rest[0]))
    if name == "cat" and len(rest) == 1:
        return files.read(w, rest[0])
    if name == "wc" and len(rest) == 2 and rest[0] == "-l":
        return f"{len(files.read(w, rest[1]).splitlines())} {rest[1]}"
    if name in ("head", "tail") and len(rest) == 3 and rest[0] == "-n" and rest[1].isdecimal():
        lines, count = files.read(w, rest[2]).splitlines(), int(rest[1])
        return "\n".join(lines[:count] if name == "head" else lines[max(0, len(lines) - count) :])
    if name == "grep" and len(rest) == 2:
        return "\n".join(line for line in files.read(w, rest[1]).splitlines() if rest[0] in line)
    if name in ("basename", "dirname") and len(rest) == 1:
        return posixpath.basename(rest[0]) if name == "basename" else posixpath.dirname(rest[0])
    if name == "echo":
        return " ".join(rest)
    raise ToolFailure(f"command not allowed here: {name}")


@tool(
    "shell",
    "Run one command line that the user gave word for word. For anything else use the dedicated tools.",
    sample=_slots,
    bad=_bad,
    params={"command": string("The command line, exactly as the user wrote it.")},
)
def shell_exec(w: World, command: str) -> Any:
    try:
        parsed = shlex.split(command)
    except ValueError:
        raise ToolFailure("unbalanced quotes") from None
    if not parsed:
        raise ToolFailure("empty command")
    output = _run(w, parsed).strip("\n")
    return {"exit_code": 0, "stdout": output or "(no output)"}


@tool(
    "shell",
    "Find out which process listens on a port: its process id and name.",
    sample=_slots,
    bad=_bad,
    near=("list_processes",),
    params={"port": integer("The TCP port.", 1, 65535)},
)
def process_on_port(w: World, port: int) -> Any:
    for process in w["shell"]["processes"]:
        if process["port"] == port:
            return {"port": port, "pid": process["pid"], "name": process["name"]}
    raise ToolFailure(f"nothing listens on port {port}")


@tool(
    "shell",
    "List the running processes, sorted by CPU use.",
    sample=lambda r, w: {**_slots(r, w), "limit": r.randint(2, 5)},
    near=("process_on_port",),
    params={"limit": optional(integer("Only this many; all if left out.", 1))},
)
def list_processes(w: World, limit: int | None = None) -> Any:
    rows = sorted(w["shell"]["processes"], key=lambda process: -process["cpu_percent"])
    return {"processes": [{key: row[key] for key in ("pid", "name", "cpu_percent")} for row in rows[:limit]]}


@tool(
    "shell",
    "End a process by its process id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={
        "pid": integer("Process id.", 1),
        "force": optional(boolean("Kill it without letting it clean up; false if left out.")),
    },
)
def kill_process(w: World, pid: int, force: bool = False) -> Any:
    for process in w["shell"]["processes"]:
        if process["pid"] == pid:
            w["shell"]["processes"].remove(process)
            return {"ended": pid, "name": process["name"], "signal": "SIGKILL" if force else "SIGTERM"}
    raise ToolFailure(f"no process {pid}")


@tool(
    "shell",
    "Tell how full a disk is, by where it is mounted.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"mount": string("Mount point, as in /home.")},
)
def disk_usage(w: World, mount: str) -> Any:
    if mount not in w["shell"]["disks"]:
        raise ToolFailure(f"nothing is mounted at {mount}")
    return {"mount": mount, "used_percent": w["shell"]["disks"][mount]}


def _service(w: World, service: str) -> str:
    if service not in w["shell"]["services"]:
        raise ToolFailure(f"unknown service {service}; there are: {', '.join(w['shell']['services'])}")
    return str(w["shell"]["services"][service])


@tool(
    "shell",
    "Tell whether a system service is running, stopped or failed.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"service": string("Name of the service.")},
)
def service_status(w: World, service: str) -> Any:
    return {"service": service, "status": _service(w, service)}


@tool(
    "shell",
    "Restart a system service.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"service": string("Name of the service.")},
)
def restart_service(w: World, service: str) -> Any:
    before = _service(w, service)
    w["shell"]["services"][service] = "running"
    return {"service": service, "before": before, "status": "running"}


@tool(
    "shell",
    "Read one environment variable.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"variable": string("Name of the variable.")},
)
def read_variable(w: World, variable: str) -> Any:
    if variable not in w["shell"]["variables"]:
        raise ToolFailure(f"not set: {variable}")
    return {"variable": variable, "value": w["shell"]["variables"][variable]}


@tool(
    "shell",
    "Stop a system service until it is started again.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"service": string("Name of the service.")},
)
def stop_service(w: World, service: str) -> Any:
    before = _service(w, service)
    w["shell"]["services"][service] = "stopped"
    return {"service": service, "before": before, "status": "stopped"}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {f"_{key}": value for key, value in _slots(r, w).items()}


@chain("shell", "process_on_port", "kill_process", sample=_chain_slots)
def free_port(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    pid = do("process_on_port", port=s["_port"])["pid"]
    return do("kill_process", pid=pid)


@chain("shell", "service_status", "restart_service", sample=_chain_slots)
def restart_if_down(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    if do("service_status", service=s["_service"])["status"] == "running":
        raise Unsuitable("nothing to restart")
    return do("restart_service", service=s["_service"])


@chain("shell", "list_processes", "kill_process", sample=_chain_slots)
def kill_busiest(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row, other, *_ = do("list_processes")["processes"]
    if row["cpu_percent"] == other["cpu_percent"]:
        raise Unsuitable("equally busy")
    return {**row, **do("kill_process", pid=row["pid"])}
