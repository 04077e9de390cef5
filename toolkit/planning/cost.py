"""How long a run takes and what it costs, by a roofline: the slower of the device's arithmetic and its host.

A micro-batch takes max(FLOPs / (rate x efficiency), seconds that the host needs to launch it). The efficiencies and
launch times were fitted to updates measured on one H200 with real chat lengths (docs/benchmarks) and carry over to
other cards only roughly; what comes out is a prediction and is shown as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit.planning.architecture import ModelShape
from toolkit.planning.flops import forward_flops, training_flops
from toolkit.planning.lengths import Lengths
from toolkit.planning.steps import Updates


@dataclass(frozen=True, slots=True)
class Speed:
    """`rate`: peak FLOP/s. `efficiency`: the part of it that training reaches. `launch`: host seconds for each layer
    of a micro-batch with checkpointing, of which a forward pass is a third."""

    rate: float
    efficiency: float
    launch: float

    @property
    def reached(self) -> float:
        return self.rate * self.efficiency


# (efficiency, host seconds a layer and micro-batch)
GPU_SPEED = {"unsloth": (0.40, 0.0125), "peft": (0.30, 0.018), "compiled": (0.40, 0.003)}
CPU_EFFICIENCY = {"fp32": 0.63, "bf16": 0.47}  # measured with SmolLM2-135M on two cores


@dataclass(frozen=True, slots=True)
class Time:
    """Predicted seconds. `update` for one update, `training` for all, `evaluation` for the evaluation losses.

    `flops` are an update's. `host_bound`: launching takes longer than computing, so a faster card would not help.
    """

    update: float
    training: float
    evaluation: float
    flops: float
    padding: float
    host_bound: bool

    @property
    def total(self) -> float:
        return self.training + self.evaluation


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed: the model, the chats and how they are cut up.

    `checkpointing`: the share of the layers that run forward again. `pieces`: micro-batches of an update in the mean,
    where its chats are packed without padding; None where `accumulation` micro-batches of `batch` chats are padded.
    """

    shape: ModelShape
    lengths: Lengths
    updates: Updates
    batch: int
    accumulation: int
    trainable: int
    checkpointing: float
    evaluations: int
    eval_chats: int
    eval_batch: int
    pieces: float | None = None


def predict(work: Work, speed: Speed) -> Time:
    """Seconds for the updates and the evaluation losses of a run; loading, saving and decoding are not in it."""
    lengths, updates = work.lengths, work.updates
    if work.pieces is None:
        chats: float = work.batch
        micro_batches = math.ceil(updates.chats / chats) / updates.per_epoch  # the last update may be short
    else:
        whole = work.batch * work.accumulation
        chats = whole / work.pieces
        micro_batches = work.pieces * updates.chats / (updates.per_epoch * whole)
    tokens, width = _tokens(work, chats)
    real = lengths.mean * chats
    flops = training_flops(
        work.shape, tokens, width, real * lengths.trained, work.trainable, checkpointing=work.checkpointing
    )
    launch = speed.launch * work.shape.num_hidden_layers * (2 + work.checkpointing) / 3
    compute = flops / speed.reached
    update = max(compute, launch) * micro_batches
    return Time(
        update=update,
        training=update * updates.total,
        evaluation=work.evaluations * _evaluation(work, speed),
        flops=flops * micro_batches,
        padding=tokens / real,
        host_bound=launch > compute,
    )


def _tokens(work: Work, chats: float) -> tuple[float, int]:
    """(tokens with padding, the row length that attention costs as much as) of a micro-batch of some chats."""
    lengths = work.lengths
    if work.pieces is not None:
        return lengths.mean * chats, lengths.attention_width
    width = lengths.expected_width(round(chats))
    return lengths.rows(round(chats)) * width, width


def _evaluation(work: Work, speed: Speed) -> float:
    if not work.eval_chats:
        return 0.0
    batch = min(work.eval_batch, work.eval_chats)
    tokens, width = _tokens(work, batch)
    trained = work.lengths.mean * batch * work.lengths.trained
    flops = forward_flops(work.shape, tokens, width, trained, work.trainable)
    launch = speed.launch * work.shape.num_hidden_layers / 3
    return math.ceil(work.eval_chats / batch) * max(flops / speed.reached, launch)


def dollars(seconds: float, price: float) -> float:
    """The cost of `seconds` at `price` dollars an hour."""
    return seconds / 3600 * price
