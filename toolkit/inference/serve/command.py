"""The command: what to serve, to whom, and how it ends."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shlex
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from toolkit.data.seen import SeenTools, read_seen
from toolkit.errors import InputError, Problem, RunError
from toolkit.exports import ExportFolder
from toolkit.hardware import free_cores
from toolkit.inference.prompting import prompting_of
from toolkit.inference.serve.bounds import MAX_BODY, Limits, hosts_of
from toolkit.inference.standing import standing
from toolkit.inference.tools import Toolbox, choose_tools, unseen
from toolkit.inference.which_gguf import Taken, take
from toolkit.runs import holding
from toolkit.terminal import say
from toolkit.words import typed

LOOPBACK = "127.0.0.1"
NAMES = 6  # of the tools seen in training that are named at the start
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. origins: pages that may ask. tools: on offer where a client sends none."""

    model: str
    host: str = LOOPBACK
    port: int = 8080
    allow_remote: bool = False
    key: str | None = None
    origins: Sequence[str] = ()
    tools: str | None = None
    max_body: int = MAX_BODY
    context: int = 4096
    parallel: int = 1
    threads: int | None = None


def find_gguf(word: str, context: int, parallel: int) -> Taken:
    """The GGUF that a word means: the file, or the one that `take` takes of an export folder or of a run's export.

    Raises `RunError` with the command that makes one.
    """
    path = Path(word).expanduser()
    if path.suffix == ".gguf" or path.is_file():
        return Taken(path)
    for folder in (path, path / "export"):
        if (folder / "export.json").is_file():
            taken = take(ExportFolder(folder), "serve", context, parallel)
            if taken is None:
                raise RunError(f"{folder}: no GGUF in it; write one: {typed('export')} RUN --gguf q8_0 --out FOLDER")
            return taken
    if (path / "recipe.toml").is_file():
        raise RunError(f"{path}: no GGUF of this run yet; write one: {typed('export', path, '--gguf', 'q8_0')}")
    above = path.resolve().parent
    if path.is_dir() and (above / "export.json").is_file() and any(above.glob("*.gguf")):
        raise RunError(f"{word}: no GGUF in it; the folder above holds some: {typed('serve', above)}")
    if path.is_dir() and (inside := holding(path)):
        raise RunError(f"{word}: not a run folder{inside}")
    raise RunError(f"{word}: no GGUF file, export folder or run; llama.cpp serves GGUF files")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises `InputError` when it can't, with a port that is free."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise InputError(f"--host: {host} is no address of this machine") from None
    opened = _opened(kind, address)
    if opened is not None:
        return opened
    taken = f"--port: {host}:{port} is taken, or not yours to use"
    for other in range(port + 1, min(65536, port + 100)):
        if probe := _opened(kind, (address[0], other, *address[2:])):
            probe.close()
            raise InputError(f"{taken}; port {other} is free: --port {other}")
    raise InputError(taken)


def _opened(kind: int, address: Any) -> socket.socket | None:
    opened = socket.socket(kind, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        opened.listen(64)
    except OSError:
        opened.close()
        return None
    return opened


def limits_of(options: Options) -> Limits:
    """The bounds that the options ask for. Raises `InputError` for a server that would be open to others."""
    problems = []
    remote = not _is_loopback(options.host)
    if remote and not (options.allow_remote and options.key):
        problems.append(
            Problem("--host", f"{options.host} can be reached by others: that needs --allow-remote and an --api-key")
        )
    if options.key is not None and (not options.key.isascii() or not options.key.isprintable() or len(options.key) < 8):
        problems.append(Problem("--api-key", "wanted at least 8 plain characters (letters, digits, signs)"))
    for origin in options.origins:
        if origin == "*" and not options.key:
            problems.append(Problem("--cors", "every page of every site is only let in with an --api-key"))
        elif origin != "*" and not _ORIGIN.fullmatch(origin):
            problems.append(Problem("--cors", f"{origin!r}: wanted an origin, as http://localhost:3000"))
    if problems:
        raise InputError(problems)
    return Limits(
        hosts=None if remote else hosts_of(options.port),
        origins=frozenset(options.origins),
        key=options.key,
        max_body=options.max_body,
        running=options.parallel,
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(options: Options) -> None:
    """Serve a GGUF until SIGINT or SIGTERM. Raises an `InputError` for what can't be served."""
    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _serve(options, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    say("stopped", flush=True)


def _serve(options: Options, stop: threading.Event) -> None:
    taken = find_gguf(options.model, options.context, options.parallel)
    path = taken.path
    limits = limits_of(options)
    toolbox = choose_tools(options.tools or "none")
    prompting = prompting_of(path)
    notes = standing(path, prompting.template)
    threads = options.threads or free_cores()
    if taken.note:
        say(f"file    {taken.note}", flush=True)
    with contextlib.closing(listen(options.host, options.port)) as opened:
        from toolkit.inference.serve.server import Loading, run  # with uvicorn, once the address is ours

        loading = Loading(path, prompting, options.context, options.parallel, threads)

        def serving(n_ctx: int) -> None:
            address = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{options.port}/v1"
            say(f"serving {path.name} at {address} ({threads} CPU threads, {n_ctx:,} tokens a chat); Ctrl-C stops")
            if n_ctx < options.context:
                say(f"note    --context {options.context}: the model was made for {n_ctx} tokens and no more")
            for note in notes:
                say(f"note    {note}")
            seen = read_seen(path.parent)
            say(f"tools   {_tools_line(seen, toolbox)}")
            if strange := unseen(toolbox, seen):
                say(f"note    {strange}")
            say(_curl(address, options.key is not None), flush=True)

        run(loading, limits, toolbox.schemas, opened, stop, serving)


def _tools_line(seen: SeenTools | None, toolbox: Toolbox) -> str:
    """Which tools the model knows, and who offers them."""
    if seen is None:
        known = "what it was trained with is not known"
    elif not seen.schemas:
        known = "trained with none"
    else:
        names = [schema["function"]["name"] for schema in seen.schemas[:NAMES]]
        more = f" and {seen.distinct - len(names):,} more ({seen.path})" if seen.distinct > len(names) else ""
        known = f"trained with {', '.join(names)}{more}"
    if toolbox.names:
        return f"{known}; clients that send none get {', '.join(toolbox.names)} ({toolbox.source})"
    return f'{known}; clients send theirs as "tools", others get none (--tools FILE offers some to all)'


def _curl(address: str, key: bool) -> str:
    """A line to try the server with."""
    body = '{"messages": [{"role": "user", "content": "Hi"}]}'
    headers = "-H 'Content-Type: application/json'"
    headers += ' -H "Authorization: Bearer $TOOLKIT_API_KEY"' if key else ""
    return f"curl {address}/chat/completions {headers} -d {shlex.quote(body)}"
