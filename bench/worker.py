"""One variant in a process of its own, driven over a pipe.

Once loaded it says {"event": "loaded"} and waits for {"warm": True}; once warm it says {"event": "ready", ...}; then,
for each {"turn": n, "settle": a, "updates": b}, it trains a + b updates and says {"event": "turn", ...}, or, with
{"kernels": True} in it, {"event": "kernels", ...}; {"quit": True} ends it. Running out of memory is said as
{"event": "oom", ...}, any other failure as {"event": "failed", ...}. Updates are those of the product's own trainer;
this only watches its log and makes it wait between turns.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.job import Job
from bench.watch import Finished, Recording, Watch
from toolkit.environment import quiet
from toolkit.terminal import warn


class Channel:
    """Messages to and from the parent, as dictionaries."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, event: str, **values: Any) -> None:
        self._connection.send({"event": event, **values})

    def hear(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = self._connection.recv()
        except EOFError:
            raise Finished from None
        return told


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
        channel.say("bye", reserved=reserved(worker.device))
    except BaseException as error:
        warn(traceback.format_exc().rstrip())
        if out_of_memory(error):
            from bench.gauges import at_failure

            channel.say("oom", stage=worker.stage, message=_first_line(error), **at_failure(worker.device))
        else:
            channel.say("failed", stage=worker.stage, message=f"{type(error).__name__}: {_first_line(error)}")
    sys.stdout.flush()
    sys.stderr.flush()
    if worker.device == "cuda":
        os._exit(0)  # what libraries do at exit takes seconds and measures nothing


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the GPU's memory ran out; libraries beside torch raise their own."""
    return "out of memory" in str(error).lower() or type(error).__name__ == "OutOfMemoryError"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


class Worker:
    """Loads a variant, warms it up and measures turns."""

    def __init__(self, job: Job, channel: Channel) -> None:
        self.job, self.channel = job, channel
        self.recipe, self.variant = job.settings, job.way
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
        watch = Watch(self, load_seconds)
        self.trainer = self._build(loaded, watch)
        self.channel.say("loaded")
        self.channel.hear()  # the parent says when there is room for the warm-up
        self.stage = "warm-up"
        self.trainer.train()
        raise RuntimeError("the trainer ran out of updates before the parent said quit")

    def _impose_profile(self) -> None:
        import torch

        if not torch.cuda.is_available():
            return
        self.device = "cuda"
        if self.job.cap is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.job.cap / total))
        if not self.job.flash:
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_cudnn_sdp(False)

    def _load(self) -> Any:
        from toolkit import engines
        from toolkit.hardware import detect

        hardware = detect()
        engine, precision = engines.choose(self.recipe, hardware)  # imports Unsloth first where it is the engine

        from toolkit.data.tokenizers import load_tokenizer

        folder = Path(self.job.model_folder)
        tokenizer = load_tokenizer(folder)
        if self.variant.trained == "adapter":
            return engines.load(self.recipe, folder, tokenizer, engine, precision, hardware)
        from bench.full import load_full

        return load_full(self.recipe, self.variant, folder, tokenizer, precision, hardware)

    def _build(self, loaded: Any, watch: Any) -> Any:
        import torch

        from bench.full import AllLogits, fp32_state_adamw
        from toolkit.hardware import detect
        from toolkit.planning.budget import budget_of
        from toolkit.planning.steps import updates_of
        from toolkit.training.methods import method_of
        from toolkit.training.prepared import Prepared, Tables
        from toolkit.training.trainer import Trainer

        table = self.job.table()
        full = self.variant.trained != "adapter"
        # the product's head for the CPU takes it for granted that the head is frozen
        logits = self.variant.full_logits or (full and self.device == "cpu")
        hardware = detect()
        if self.job.cap is not None and hardware.gpu is not None:
            # micro-batches are cut as on the card that is imposed
            name, memory = self.job.card or hardware.gpu.name, min(hardware.gpu.memory, self.job.cap)
            gpu = replace(
                hardware.gpu, name=name, memory=memory, capability=self.job.capability or hardware.gpu.capability
            )
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
        trainer = Trainer(method, Path(self.job.output), [watch.callback()])
        if self.variant.trained == "all 16-bit" and not self.variant.adam8:
            trainer.optimizer = fp32_state_adamw(trainer)
        trainer.data_collator = Recording(trainer.data_collator)
        watch.count(trainer)
        torch.manual_seed(self.recipe.train.seed)
        return trainer

    def kind(self) -> Any:
        """The dtype of the matrix products."""
        import torch

        if self.report.precision.value == "fp32":
            return torch.float32
        return torch.float16 if self.recipe.train.fp16 else torch.bfloat16
