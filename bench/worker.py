"""One variant in a process of its own: what its parent holds of it, and what runs in it.

Messages are dictionaries over a pipe. Once loaded, the worker sends {"event": "loaded"} and waits for {"warm": True};
once warm, {"event": "ready", ...}; then, for each {"turn": n, "settle": a, "updates": b}, it trains a + b updates and
sends {"event": "turn", ...}, or, with {"kernels": True} in it, {"event": "kernels", ...}; {"quit": True} ends it. No
memory left is {"event": "oom", ...}, any other failure {"event": "failed", ...}. Updates are those of the product's
own trainer, whose callback makes it wait between turns.

numpy, torch and what is built on them are imported within functions: a variant's environment and packages come first,
and Unsloth before the libraries that it changes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.channel import Channel, Finished
from bench.imposed import believe
from bench.variants import Variant, find
from toolkit import engines
from toolkit.environment import quiet
from toolkit.errors import first_line
from toolkit.hardware import Gpu, detect
from toolkit.planning.cards import Card
from toolkit.recipe.schema import Recipe
from toolkit.terminal import warn

ENDS = ("oom", "failed", "bye")
PRELOADED = ["torch", "transformers.trainer", "trl.trainer.sft_trainer", "peft", "datasets"]


def context(*, gpu: bool) -> Any:
    """How workers are started: from nothing where CUDA or Unsloth is in play, else forked off one process that has
    imported the slow libraries and done nothing with them."""
    if gpu or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


@dataclass(frozen=True, slots=True)
class Job:
    """What the parent gives a worker to do: one variant to measure. `recipe` has
    the variant's values in it.

    `share`: of trained tokens in fixed shapes. `cap`: bytes that torch may take, None for all. `flash`: flash
    attention may be used. `warmup` updates before the first turn. `vocab`: ids of synthetic rows are below it. `site`:
    a folder of packages before those installed. `card`: the one that is imposed.
    """

    name: str
    recipe_json: str
    model_folder: str
    output: str
    rows: int | None
    tokens: int | None
    share: float
    vocab: int
    chats: int
    warmup: int
    cap: int | None
    flash: bool
    threads: int
    env: dict[str, str] = field(default_factory=dict)
    site: str | None = None
    card: Card | None = None

    @property
    def recipe(self) -> Recipe:
        return Recipe.model_validate_json(self.recipe_json)

    @property
    def variant(self) -> Variant:
        return find(self.name)

    def table(self) -> Any:
        """The rows to train on: the recipe's token table, or synthetic ones of a fixed shape."""
        if self.rows is not None and self.tokens is not None:
            from bench.profiles import SyntheticTable

            return SyntheticTable(self.chats, self.tokens, self.share, self.vocab)
        from toolkit.data.table import build

        return build(self.recipe, Path(self.model_folder), "train", progress=False)


class WorkerProcess:
    """A worker as its parent sees it. What it prints goes to `log`."""

    def __init__(self, job: Job, log: Path, *, gpu: bool) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.job, self.log = job, log
        self._connection: Connection
        start = context(gpu=gpu)
        self._connection, theirs = start.Pipe()
        self._process = start.Process(target=enter, args=(theirs, job, str(log)))
        self._process.start()
        theirs.close()

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next event. A worker that says nothing for `timeout` seconds is ended and counts as failed."""
        try:
            if self._connection.poll(timeout):
                message: dict[str, Any] = self._connection.recv()
                return message
        except (EOFError, OSError):
            self._process.join(5)
            return {"event": "failed", "stage": "", "message": self._last_line()}
        self.kill()
        return {"event": "failed", "stage": "", "message": f"said nothing for {timeout:.0f} s; see {self.log}"}

    def _last_line(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        return f"ended with code {self._process.exitcode}: {lines[-1][:300] if lines else 'no message'}"

    @property
    def connection(self) -> Connection:
        return self._connection

    def warm_up(self) -> None:
        """Let a worker that has loaded begin its warm-up."""
        self._send({"warm": True})

    def turn(self, number: int, settle: int, updates: int, timeout: float, *, kernels: bool = False) -> dict[str, Any]:
        self._send({"turn": number, "settle": settle, "updates": updates, "kernels": kernels})
        return self.receive(timeout)

    def quit(self, timeout: float = 60) -> dict[str, Any]:
        """End the worker; returns its last message, with the bytes it still had reserved."""
        self._send({"quit": True})
        last = self.receive(timeout)
        self.kill(grace=timeout)
        return last

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send(message)
        except OSError:
            return  # it has ended; `receive` says so

    def kill(self, grace: float = 0.0) -> None:
        self._process.join(grace)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


def enter(connection: Connection, job: Job, log: str) -> None:
    """A worker process from start to end; what it prints goes to the file `log`."""
    with Path(log).open("w", encoding="utf-8") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    quiet()
    os.environ.update(job.env, OMP_NUM_THREADS=str(job.threads))
    if job.site is not None:
        sys.path.insert(0, job.site)
    channel = Channel(connection)
    worker = Worker(job, channel)
    try:
        worker.run()
    except Finished:
        from bench.gauges import reserved

        # as it is while the parent asks the driver: nothing is given back in between
        channel.send("bye", reserved=reserved(worker.device))
    except BaseException as error:
        warn(traceback.format_exc().rstrip())
        if out_of_memory(error):
            from bench.gauges import at_failure

            channel.send("oom", stage=worker.stage, message=first_line(error)[:500], **at_failure(worker.device))
        else:
            channel.send("failed", stage=worker.stage, message=f"{type(error).__name__}: {first_line(error)[:500]}")
    sys.stdout.flush()
    sys.stderr.flush()
    if worker.device == "cuda":
        os._exit(0)  # what libraries do at exit takes seconds and measures nothing


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the GPU's memory ran out; libraries beside torch raise their own."""
    return "out of memory" in str(error).lower() or type(error).__name__ == "OutOfMemoryError"


class Worker:
    """Loads a variant, warms it up and measures turns."""

    def __init__(self, job: Job, channel: Channel) -> None:
        self.job, self.channel = job, channel
        self.recipe, self.variant = job.recipe, job.variant
        self.stage = "start"
        self.trainer: Any = None
        self.report: Any = None
        self.budget: Any = None
        self.recorder: Any = None
        self.device = "cpu"

    def run(self) -> None:
        import torch

        torch.set_num_threads(self.job.threads)
        self._impose_profile()
        self.stage = "loading"
        started = time.perf_counter()
        loaded = self._load()
        self.report, self.recorder = loaded.report, loaded.recorder
        load_seconds = time.perf_counter() - started
        self.stage = "building the trainer"
        self.trainer = self._build(loaded, load_seconds)
        self.channel.send("loaded")
        self.channel.receive()  # the parent says when there is room for the warm-up
        self.stage = "warm-up"
        self.trainer.train()
        raise RuntimeError("the trainer ran out of updates before the parent said quit")

    def _impose_profile(self) -> None:
        import torch

        if not torch.cuda.is_available():
            return
        self.device = "cuda"
        card = self.job.card
        if card is not None and card.capability < torch.cuda.get_device_capability():
            believe(card)
        elif self.job.cap is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.job.cap / total))
        if not self.job.flash:
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_cudnn_sdp(False)

    def _load(self) -> Any:
        hardware = detect()
        engine, precision = engines.choose(self.recipe, hardware)  # imports Unsloth first where it is the engine

        from toolkit.data.tokenizers import load_tokenizer

        folder = Path(self.job.model_folder)
        tokenizer = load_tokenizer(folder)
        if self.variant.trained == "adapter":
            return engines.load(self.recipe, folder, tokenizer, engine, precision, hardware)
        from bench.baselines import load_full

        return load_full(self.recipe, self.variant, folder, tokenizer, precision, hardware)

    def _build(self, loaded: Any, load_seconds: float) -> Any:
        import torch

        from bench.baselines import AllLogits, fp32_state_adamw
        from bench.callback import RecordingCollator, TurnsCallback
        from toolkit.planning.budget import budget_of
        from toolkit.planning.steps import updates_of
        from toolkit.training.methods import method_of
        from toolkit.training.prepared import Prepared, Tables
        from toolkit.training.trainer import Trainer

        callback = TurnsCallback(self, load_seconds)
        table = self.job.table()
        full = self.variant.trained != "adapter"
        # the product's head for the CPU takes it for granted that the head is frozen
        logits = self.variant.full_logits or (full and self.device == "cpu")
        hardware = detect()
        card = self.job.card
        if card is not None and hardware.gpu is not None:
            # micro-batches are cut as on the card that is imposed
            gpu = Gpu(card.title, min(hardware.gpu.memory, card.memory), card.capability)
            hardware = replace(hardware, gpu=gpu)
        report = loaded.report
        # where nothing is autocast, products are in the precision that the weights are held in
        products = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
        precision = products[report.weights] if report.precision.value == "none" else report.precision.value
        budget = budget_of(self.recipe, report.engine.value, precision, hardware, table)
        self.budget = budget
        updates = updates_of(self.recipe, table.n_chats)
        prepared = Prepared(self.recipe, loaded, Tables(table), updates, budget)
        method = AllLogits(prepared) if logits else method_of(prepared)
        trainer = Trainer(method, Path(self.job.output), [callback])
        if self.variant.trained == "all 16-bit" and not self.variant.adam8:
            trainer.optimizer = fp32_state_adamw(trainer)
        trainer.data_collator = RecordingCollator(trainer.data_collator)
        callback.count_padding(trainer)
        torch.manual_seed(self.recipe.train.seed)
        return trainer

    def kind(self) -> Any:
        """The dtype of the matrix products."""
        import torch

        if self.report.precision.value == "fp32":
            return torch.float32
        return torch.float16 if self.recipe.train.fp16 else torch.bfloat16
