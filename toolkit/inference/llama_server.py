"""llama.cpp's own server, alone in a process: run as a script by `toolkit.inference.process`.

It takes its settings as one line of JSON on standard input and says one line of JSON on standard output: {"address"}
where it listens, or {"failed", "at"}: the reason, and what failed. It ends when standard input does, which is when its
parent is gone.

It imports nothing of the toolkit, so that it starts at once and needs no import path of its own. The process is there
because loading holds Python's lock (no signal would be heard meanwhile) and because llama.cpp aborts, instead of
raising, on some files.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    settings = json.loads(sys.stdin.buffer.readline())
    # From now on nothing more comes: the kernel ends this process when the other end closes, at any point of its work.
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    try:
        import xllamacpp
    except (ImportError, OSError) as error:
        say({"failed": str(error), "at": "import"})
        return
    try:
        server = xllamacpp.Server(params_of(xllamacpp, settings))
    except RuntimeError as error:
        say({"failed": str(error), "at": "load"})
        return
    say({"address": server.listening_address})
    sys.stdin.buffer.read()
    os._exit(0)  # at once: nothing here is worth a tidy end


def params_of(module: Any, settings: dict[str, Any]) -> Any:
    """llama.cpp's parameters. `settings` has what `toolkit.inference.process.start` puts in."""
    params = module.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["alias"]}
    params.hostnames = [settings["socket"]]
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["n_ctx"] * settings["parallel"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.warmup = params.fit_params = False
    params.offline = True
    # For measuring, special tokens are written out. For people they are not, and no grammar is made of tools' schemas.
    params.special = not settings["plain"]
    params.force_pure_content_parser = settings["plain"]
    params.prefill_assistant = False  # an assistant's turn at the end is a whole turn, as in training
    params.ui = False
    params.verbosity = 1  # errors only
    params.cache_ram_mib = 512  # of prompts that no slot holds any more; its own default is 8 GiB
    if settings["lora"]:
        adapter = module.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = settings["lora"], 1.0
        params.lora_adapters = [adapter]
    return params


def say(value: dict[str, Any]) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main()
