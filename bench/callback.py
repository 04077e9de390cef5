"""The trainer's callback in a worker: what each update took and was, and when it has to wait for the parent."""

from __future__ import annotations

import hashlib
import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from bench import gauges
from bench.channel import Finished
from toolkit.engines import ENGINES, versions
from toolkit.training.packing import MICRO_BATCHES

if TYPE_CHECKING:
    from bench.worker import Worker

FIRST_CHATS = 128  # whose order is reported


def finite(value: Any) -> float | None:
    """A number that JSON can hold; None for NaN and infinities."""
    return float(value) if math.isfinite(float(value)) else None


class RecordingCollator:
    """Passes chats on to the product's collator and keeps what they were."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate
        self.chats: list[str] = []

    def __call__(self, chats: Any) -> Any:
        for chat in chats:
            if len(self.chats) < FIRST_CHATS:
                digest = hashlib.sha256()
                for ids, labels in chat["rows"]:
                    digest.update(ids.tobytes() + labels.tobytes())
                self.chats.append(digest.hexdigest()[:16])
        return self.collate(chats)


class TurnsCallback(TrainerCallback):
    """Times the trainer's updates, and makes it wait for the parent between turns.

    On a GPU by its own clock, an event after each update, so that measuring makes the host wait no more than training.
    """

    def __init__(self, worker: Worker, load_seconds: float) -> None:
        self.worker, self.load_seconds = worker, load_seconds
        self.turn, self.settle, self.left = 0, 0, worker.job.warmup
        self.padded = 0
        self.widest = (0, 0)
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0
        self.marks: list[Any] = []  # the turn's start, and each update's end
        self.logged = 0  # of rows
        self.ahead = False
        self.tokens = (0, 0)
        self.product = 0.0
        self.probe: list[float] = []
        self.first: list[Any] = []
        self.number = 0
        self.compile_seconds, self.shapes = 0.0, 0
        self.profile: Any = None  # of a turn whose kernels are asked for, from its first update that is timed
        self.wanted = False

    def count_padding(self, trainer: Any) -> None:
        """Count padding as well: the product counts real tokens only."""
        original = trainer.get_batch_samples

        def counted(*args: Any, **kwargs: Any) -> Any:
            batches, items = original(*args, **kwargs)
            for batch in (one for update in batches for one in update.get(MICRO_BATCHES, [update])):
                rows, width = batch["input_ids"].shape
                self.padded += rows * width
                self.widest = max(self.widest, (rows, width), key=lambda size: size[0] * size[1])
            return batches, items

        trainer.get_batch_samples = counted

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.worker.trainer
        self.worker.stage = "probe"
        self.probe = gauges.probe(
            trainer, trainer.data_collator.collate, self.worker.job.table(), packed=self.worker.variant.packed
        )
        if ENGINES[self.worker.variant.engine].compiles:
            self._compile()
        self.first = gauges.sample(trainer.model)
        self.worker.stage = "warm-up"
        gauges.reset_peak(self.worker.device)
        self.started = time.perf_counter()
        self.ahead = bool(trainer.ahead)
        self.marks = [gauges.mark(self.worker.device)]

    def _compile(self) -> None:
        self.worker.stage = "compiling"
        trainer, recipe = self.worker.trainer, self.worker.recipe
        longest = int(self.worker.job.table().lengths.max())
        sizes = gauges.packed_sizes(trainer, trainer.args.max_steps)
        recorder = self.worker.recorder
        # one code for all lengths: the second is to show that it needs none of its own
        compiled = [sizes[0], sizes[-1]] if recipe.train.compile == "dynamic" else sizes
        started = time.perf_counter()
        gauges.warm_shapes(trainer, compiled, longest)
        self.compile_seconds, self.shapes = time.perf_counter() - started, len(compiled)
        if recorder is not None and recorder.allowed():
            gauges.warm_shapes(trainer, sizes, longest)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An update has been handed to the device."""
        trainer = self.worker.trainer
        if self.wanted and self.settle == 1:
            gauges.synchronize(self.worker.device)
            self.profile = gauges.profiler()
            self.profile.start()
        self.marks.append(gauges.mark(self.worker.device))
        tokens = (trainer.real_tokens, self.padded)
        self.number += 1
        skipped = bool(trainer.args.fp16 and trainer.accelerator.optimizer_step_was_skipped)
        self.rows.append(
            {
                "turn": self.turn,
                "number": self.number,
                "real_tokens": int(tokens[0] - self.tokens[0]),
                "padded_tokens": int(tokens[1] - self.tokens[1]),
                "settle": self.turn > 0 and self.settle > 0,
                "skipped": skipped,
            }
        )
        self.settle = max(0, self.settle - 1)
        self.tokens = tokens
        self.left -= 1
        trainer.ahead = self.ahead and self.left > 0  # nothing of the next turn is begun in this one

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """An update's numbers are known."""
        if not logs or "loss" not in logs:
            return
        row = self.rows[self.logged]
        row |= {"loss": finite(logs["loss"]), "grad_norm": finite(logs.get("grad_norm", 0.0))}
        self.logged += 1
        if self.left > 0 or self.logged < len(self.rows):
            return
        gauges.synchronize(self.worker.device)
        now = time.perf_counter()
        for place, row in enumerate(self.rows):
            row["seconds"] = gauges.seconds(self.marks[place], self.marks[place + 1])
        self._send(now)
        self._wait()
        self.logged, self.marks = 0, [gauges.mark(self.worker.device)]

    def _send(self, now: float) -> None:
        if self.profile is not None:
            self._send_kernels()
            return
        allocated, reserved = gauges.peaks(self.worker.device)
        turn = {"turn": self.turn, "allocated": allocated, "reserved": reserved, "product": self.product}
        values: dict[str, Any]
        if self.turn == 0:
            event, values = "ready", {"facts": self._facts(now)}
        else:
            moved = gauges.moved(self.first, gauges.sample(self.worker.trainer.model))
            event, values = "turn", {"widest": list(self.widest), "moved": moved}
        rows, self.rows = self.rows, []
        gauges.empty(self.worker.device)  # before the parent knows: it may ask the driver what is in use
        self.worker.channel.send(event, rows=rows, memory=turn, **values)

    def _send_kernels(self) -> None:
        self.profile.stop()
        updates = sum(not row["settle"] for row in self.rows)
        found = gauges.sum_kernels(gauges.kernel_intervals(self.profile), updates)
        self.rows, self.profile = [], None
        gauges.empty(self.worker.device)
        self.worker.channel.send("kernels", kernels=found)

    def _facts(self, now: float) -> dict[str, Any]:
        trainer, report, budget = self.worker.trainer, self.worker.report, self.worker.budget
        recorder = self.worker.recorder

        return {
            "load_seconds": self.load_seconds,
            "warmup_seconds": now - self.started,
            "trainable": report.trainable,
            "total": report.total,
            "patched": report.patched,
            "expected_layers": report.expected_layers,
            "precision": report.precision.value,
            "attention": report.attention,
            "held": report.weights,
            "checkpointed": gauges.checkpointed(trainer.model),
            "checkpointed_wanted": budget.checkpointed if budget else None,
            "compile_seconds": self.compile_seconds,
            "shapes": self.shapes,
            "recorded": len(recorder.records) if recorder else 0,
            "not_recorded": recorder.problem if recorder else "",
            "token_budget": budget.tokens if budget else None,
            "parts": gauges.static_parts(trainer.model, trainer.optimizer),
            "widest": list(self.widest),
            "probe": self.probe,
            "chats": trainer.data_collator.chats,
            "versions": versions(),
        }

    def _wait(self) -> None:
        message = self.worker.channel.receive()
        if message.get("quit"):
            raise Finished
        self.worker.stage = f"turn {message['turn']}"
        self.turn, self.settle = int(message["turn"]), int(message["settle"])
        self.left = self.settle + int(message["updates"])
        self.wanted = bool(message.get("kernels"))
        if not self.wanted:
            self.product = gauges.product(self.worker.device, self.worker.kind())
        gauges.reset_peak(self.worker.device)
