"""The parent: starts workers, keeps as many on the card as fit, and lets them take turns."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.card_lock import CardLock
from bench.gates import judge
from bench.settings import Bench, slug
from bench.worker import ENDS, Job, WorkerProcess
from toolkit.bench_results import Arm, Kernel, Results, Turn, Update
from toolkit.engines import ENGINES
from toolkit.planning.cards import Card, query_smi
from toolkit.planning.lengths import from_table
from toolkit.planning.memory import CUDA_CONTEXT
from toolkit.recipe.schema import Recipe

ROOM = 0.94  # of the card, for what the planner does not see
SPREAD = 4  # standard deviations
NO_ROOM = 3 * 2**30  # free bytes below which it may have been the neighbours' fault


def measure(
    bench: Bench, results: Results, card: Card, logs: Path, console: Console, save: Callable[[], None], lock: CardLock
) -> Results:
    """Measure every variant of `bench`, filling `results`, and judge them. `save` is called after every turn."""
    for name in bench.jobs:
        results.arms[name] = new_arm(bench, name)
    groups = grouped(bench, card)
    again: list[str] = []

    def run(names: Sequence[str], turns: Sequence[int]) -> list[str]:
        return _Group(bench, results, card, logs, console, save, lock, names, turns).run()

    every = range(1, bench.settings.turns + 1)
    if bench.settings.restart and len(groups) > 1:
        for turn in every:
            for group in groups:
                again += run(group, [turn])
    else:
        for group in groups:
            again += run(group, every)
    for name in dict.fromkeys(again):
        console.print(f"  {name}: once more with the card to itself")
        results.arms[name] = new_arm(bench, name)
        results.updates = [u for u in results.updates if u.variant != name]
        results.turns = [t for t in results.turns if t.variant != name]
        results.kernels = [k for k in results.kernels if k.variant != name]
        run([name], every)
    _complete(bench, results, card)
    results.gates = judge(results)
    return results


def new_arm(bench: Bench, name: str) -> Arm:
    """What is known of a variant before it runs."""
    plan = bench.plan(name)
    variant, recipe = plan.variant, plan.recipe
    checkpointing = recipe.train.gradient_checkpointing
    return Arm(
        variant=name,
        title=variant.stands_for,
        engine=variant.engine,
        trained=variant.trained,
        held="",
        four_bit=variant.four_bit,
        full_logits=variant.full_logits,
        dropout=recipe.lora.lora_dropout if variant.trained == "adapter" else 0.0,
        checkpointing={True: "on", False: "off", "auto": "auto"}.get(checkpointing, "offloaded"),
        batch=recipe.chats_per_update if variant.packed else recipe.train.per_device_train_batch_size,
        accumulation=1 if variant.packed else recipe.train.gradient_accumulation_steps,
        expected_trainable=plan.trainable,
    )


def grouped(bench: Bench, card: Card) -> list[list[str]]:
    """Variants that can be on the card together: all at rest and any one of them at its peak.

    At rest a variant holds weights, adapter and optimizer states; sizes are the planner's. Adapters and full
    fine-tuning are kept apart, so that all of one kind take turns where they fit.
    """
    if not bench.settings.gpu:
        return [list(bench.jobs)]
    groups: list[list[str]] = []
    for full in (False, True):
        resting = peak = math.inf  # the first of its kind begins a group
        for name, job in bench.jobs.items():
            if (job.variant.trained != "adapter") != full:
                continue
            rest, more = _sizes(bench, name)
            if resting + rest + max(peak, more) > ROOM * card.memory:
                groups.append([])
                resting = peak = 0.0
            groups[-1].append(name)
            resting += rest
            peak = max(peak, more)
    return groups


def _sizes(bench: Bench, name: str) -> tuple[float, float]:
    """(bytes that a variant's process holds at rest, bytes more at its peak) by the planner."""
    job, plan = bench.jobs[name], bench.plan(name)
    recipe = plan.recipe
    rows, width = recipe.train.per_device_train_batch_size, recipe.train.max_length
    if plan.variant.packed:
        rows, width = 1, _widest(job, recipe)
    trained = round(rows * width * bench.share)
    memory = plan.memory("bf16", rows, width, trained, cuda=True, flash=job.flash, padded=job.rows is None)
    at_rest = ("base weights", "adapter", "weights", "optimizer states")
    rest = sum(size for part, size in memory.parts.items() if part.startswith(at_rest))
    highest = min(memory.peak, job.cap or math.inf)
    if ENGINES[plan.variant.engine].records(recipe) and recipe.train.gradient_checkpointing is not True:
        rest = max(rest, highest)  # what recordings use stays theirs
    return rest + CUDA_CONTEXT, max(highest - rest, 0.0)


def _widest(job: Job, recipe: Recipe) -> int:
    """Tokens of a packed micro-batch that hardly any is longer than."""
    chats, lengths = recipe.chats_per_update, job.table().lengths
    tokens = math.ceil(chats * lengths.mean() + SPREAD * chats**0.5 * lengths.std())
    budget = recipe.train.micro_batch
    return min(tokens, max(budget, int(lengths.max()))) if isinstance(budget, int) else tokens


class _Group:
    """Variants that are on the card together."""

    def __init__(
        self,
        bench: Bench,
        results: Results,
        card: Card,
        logs: Path,
        console: Console,
        save: Callable[[], None],
        lock: CardLock,
        names: Sequence[str],
        turns: Sequence[int],
    ) -> None:
        self.bench, self.results, self.logs, self.console = bench, results, logs, console
        self.names, self.turns, self.save, self.lock = names, turns, save, lock
        self.room = ROOM * card.memory
        self.sizes = {name: _sizes(bench, name) if bench.settings.gpu else (0.0, 0.0) for name in names}
        self.workers: dict[str, WorkerProcess] = {}
        self.again: list[str] = []

    def run(self) -> list[str]:
        """Measure; returns the variants that ran out of memory while others held much of it."""
        self.lock.beside()
        try:
            self._start()
            if not self.lock.alone():
                self.results.run["beside_others"] = True
                self.console.print("  others still load on this card: times are too long", highlight=False)
            self._take_turns()
            self._end()
        finally:
            for worker in self.workers.values():
                worker.kill()
            self.lock.free()
        return self.again

    def _start(self) -> None:
        """Load some at a time; warm up those that have loaded as long as all their peaks fit together."""
        settings = self.bench.settings
        waiting = list(self.names)
        loading: list[str] = []
        loaded: list[str] = []
        warming: list[str] = []
        while waiting or loading or loaded or warming:
            while waiting and len(loading) + len(loaded) + len(warming) < settings.parallel:
                name = waiting.pop(0)
                self.workers[name] = WorkerProcess(
                    self.bench.jobs[name], self.logs / f"{slug(name)}.log", gpu=settings.gpu
                )
                loading.append(name)
            for name in list(loaded):
                if not warming or self._fit([*warming, name]):
                    self.workers[name].warm_up()
                    loaded.remove(name)
                    warming.append(name)
            name = self._first_to_send([*loading, *warming])
            message = self.workers[name].receive(0)
            if message["event"] == "loaded":
                loading.remove(name)
                loaded.append(name)
            else:
                (loading if name in loading else warming).remove(name)
                self._received(name, message)

    def _fit(self, warming: Sequence[str]) -> bool:
        """Whether all that have started and the peaks of these fit the card."""
        resting = sum(self.sizes[name][0] for name in self.workers)
        return resting + sum(self.sizes[name][1] for name in warming) <= self.room

    def _first_to_send(self, names: Sequence[str]) -> str:
        """The first of these workers with a message, or the one longest silent after the time-out."""
        connections = {self.workers[name].connection: name for name in names}
        for connection in wait(list(connections), self.bench.settings.timeout):
            return connections[connection]  # type: ignore[index]
        return names[0]

    def _take_turns(self) -> None:
        settings = self.bench.settings
        for turn in self.turns:
            names = list(self.workers)
            first = (turn - 1) % max(1, len(names))
            for name in names[first:] + names[:first]:
                message = self.workers[name].turn(turn, settings.settle, settings.updates, settings.timeout)
                self._received(name, message)
            self.save()
        if settings.kernels and self.turns[-1] == settings.turns:
            for name in list(self.workers):
                message = self.workers[name].turn(
                    settings.turns + 1, 1, settings.kernels, settings.timeout, kernels=True
                )
                self._received(name, message)

    def _end(self) -> None:
        used = used_bytes() if self.bench.settings.gpu else None
        for name in list(self.workers):
            last = self.workers.pop(name).quit()
            left = used_bytes() if used is not None else None
            arm, reserved = self.results.arms[name], self.results.reserved(name)
            if used is not None and left is not None and reserved is not None and last["event"] == "bye":
                arm.driver = max(0, used - left - int(last["reserved"])) + reserved
            used = left

    def _received(self, name: str, message: dict[str, Any]) -> None:
        if message["event"] in ENDS:
            self._lost(name, self.results.arms[name], message)
            return
        if message["event"] == "kernels":
            self.results.kernels += [Kernel(variant=name, **row) for row in message["kernels"]]
            return
        absorb(self.results, name, message)
        memory, arm = message["memory"], self.results.arms[name]
        if message["event"] == "ready":
            self.console.print(
                f"  {name}: loaded in {arm.load_seconds:.1f} s, warm after {arm.warmup_seconds:.1f} s", highlight=False
            )
        else:
            timed = [row["seconds"] for row in message["rows"] if not row["settle"]]
            shown = ", ".join(f"{seconds:.3f}" for seconds in timed)
            self.console.print(
                f"  turn {memory['turn']} {name}: {shown} s, {memory['allocated'] / 2**30:.2f} GiB", highlight=False
            )

    def _lost(self, name: str, arm: Arm, message: dict[str, Any]) -> None:
        arm.status = "out of memory" if message["event"] == "oom" else "failed"
        arm.stage, arm.message = message.get("stage", ""), message.get("message", "")
        self.console.print(f"  {name}: {arm.status} while {arm.stage or 'running'}: {arm.message}", highlight=False)
        self.workers.pop(name).kill(grace=10)
        neighbours = len(self.workers) > 0
        if arm.status == "out of memory" and neighbours and message.get("free", NO_ROOM) < NO_ROOM:
            self.again.append(name)


def absorb(results: Results, name: str, message: dict[str, Any]) -> None:
    """Take a worker's "ready" or "turn" into the results."""
    arm = results.arms[name]
    results.updates += [Update(variant=name, **row) for row in message["rows"]]
    if message["event"] == "ready":
        for fact, value in message["facts"].items():
            setattr(arm, fact, value)
    else:
        results.turns.append(Turn(variant=name, **message["memory"]))
        arm.widest = max(arm.widest, message["widest"], key=lambda size: size[0] * size[1])
        arm.status, arm.stage, arm.moved = "measured", "", message["moved"]


def _complete(bench: Bench, results: Results, card: Card) -> None:
    """FLOPs and the planner's predictions, which need what was measured."""
    for name, job in bench.jobs.items():
        arm, plan = results.arms[name], bench.plan(name)
        timed = results.timed(name)
        if arm.status != "measured" or not timed:
            continue
        padded = sum(u.padded_tokens for u in timed) / len(timed)
        real = sum(u.real_tokens for u in timed) / len(timed)
        width = padded / plan.recipe.chats_per_update
        arm.width = float(from_table(job.table()).attention_width) if plan.variant.packed else width
        arm.flops = plan.flops(
            padded=padded,
            width=width,
            trained=real * bench.share,
            trainable=arm.trainable,
            recomputed=recomputed(arm, bench.shape.num_hidden_layers),
        )
        arm.predicted_memory, arm.predicted_seconds = plan.predicted(
            job.table(),
            card,
            arm.precision,
            arm.widest,
            flash=job.flash,
            padded=job.rows is None,
            checkpointed=arm.checkpointed_wanted,
        )


def recomputed(arm: Arm, layers: int) -> float:
    """Share of the layers that run forward once more in backward."""
    if arm.checkpointed_wanted is not None:
        return arm.checkpointed_wanted / layers
    return 0.0 if arm.checkpointing == "off" else 1.0


def used_bytes() -> int | None:
    """Bytes in use on the first visible GPU, by all processes, as its driver counts them; None without nvidia-smi."""
    text = query_smi("memory.used", gpu=first_gpu()).strip()
    return int(text) * 2**20 if text.isdigit() else None


def first_gpu() -> str:
    """The number of the GPU that CUDA takes."""
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
