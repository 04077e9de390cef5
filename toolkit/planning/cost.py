"""How long a run takes and what it costs: `toolkit.planning.kernel_time` for each micro-batch, counted over the run.

What comes out is a prediction and is shown as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from toolkit.engines.setup import Setup
from toolkit.planning.cards import Card
from toolkit.planning.decode_time import decode_seconds
from toolkit.planning.export_time import export_seconds
from toolkit.planning.kernel_time import UPDATE_GAP, Rates, Seconds, evaluating, training
from toolkit.planning.lengths import Lengths
from toolkit.planning.sharing import Sharing
from toolkit.planning.steps import Updates
from toolkit.recipe.schema import EvalSection, ExportSection

ALONE = Sharing()
CPU_EFFICIENCY = {"fp32": 0.63, "bf16": 0.47}  # of a core's products; measured with SmolLM2-135M on two cores
PRODUCTS = 0.70  # of the data sheet's products, where nobody is known to have measured: the H200's share
SINGLE = 0.80  # of fp32's
COPIED = 0.75  # of the data sheet's bandwidth: the T4's share and the A100's
# what attention reaches of what products do, with flash attention and without: on Hopper measured, else assumed. The
# flash kernels written for Turing reach 63% of a T4 and are twice as fast as the memory-efficient ones that PyTorch has
HOPPER_ATTENTION = (0.30, 0.145)
ATTENTION = (0.60, 0.30)
OLD_ATTENTION = 0.40  # before Ampere, of products that power or heat holds down


def rates_of(card: Card, precision: str, *, flash: bool = True) -> Rates | None:
    """What a card sustains in a precision; None where its data sheet is not known. `flash`: it may be used."""
    if card.name == "cpu":
        rate = card.single if precision == "fp32" else card.half
        reached = (rate or 0) * 1e12 * CPU_EFFICIENCY.get(precision, CPU_EFFICIENCY["fp32"])
        return Rates(reached, reached, None) if reached else None
    if not (card.half and card.single and card.bandwidth):
        return None
    if precision == "fp32":
        products = SINGLE * card.single
    else:
        products = sum(card.sustained) / 2 if card.sustained else PRODUCTS * card.half
    if not card.flash:
        attention = OLD_ATTENTION
    else:
        attention = (HOPPER_ATTENTION if card.capability >= (9, 0) else ATTENTION)[0 if flash else 1]
    return Rates(products * 1e12, attention * products * 1e12, (card.copied or COPIED * card.bandwidth) * 1e9)


def doubt(card: Card) -> tuple[float, float]:
    """(least, most) that products sustain, as a share of what is taken: what was measured of this very card, or the
    spread of what plans and measurements differ by."""
    if card.sustained is None:
        return 0.8, 1.2
    middle = sum(card.sustained) / 2
    return card.sustained[0] / middle, card.sustained[1] / middle


@dataclass(frozen=True, slots=True)
class Time:
    """Predicted seconds. `update` for one update, `training` for all, `evaluation` for the evaluation losses,
    `decoding` for the answers that are measured, `export` for the files that are written after it, and their check.

    `kinds`: where an update's go. `host_bound`: launching takes longer than computing, so a faster card would not help.
    """

    kinds: Seconds
    training: float
    evaluation: float
    padding: float
    decoding: float = 0.0
    export: float = 0.0

    @property
    def update(self) -> float:
        return self.kinds.total

    @property
    def total(self) -> float:
        return self.trained + self.export

    @property
    def trained(self) -> float:
        """What train.max_minutes is about: all but the export."""
        return self.training + self.evaluation + self.decoding

    @property
    def host_bound(self) -> bool:
        return self.kinds.host > self.kinds.card


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed: how a model trains, the chats and how they are cut up.

    `pieces`: micro-batches of an update in the mean, where its chats are packed without padding; None where
    `accumulation` micro-batches of `batch` chats are padded. `sharing`: how ranks share them; `pieces` are those of the
    rank that has most. `decodings`: how often `decoded` chats are, as `settings` say.
    """

    setup: Setup
    lengths: Lengths
    updates: Updates
    batch: int
    accumulation: int
    evaluations: int = 0
    eval_chats: int = 0
    eval_batch: int = 1
    pieces: float | None = None
    sharing: Sharing = ALONE
    decodings: int = 0
    decoded: int = 0
    settings: EvalSection | None = None
    export: ExportSection | None = None


def predict(work: Work, rates: Rates) -> Time:
    """Seconds for the updates, evaluation losses, measured answers and export of a run; loading and saving are not in
    it."""
    lengths, updates = work.lengths, work.updates
    if work.pieces is None and work.sharing.ranks == 1:
        chats: float = work.batch
        micro_batches = math.ceil(updates.chats / chats) / updates.per_epoch  # the last update may be short
    else:
        whole = work.batch * work.accumulation
        mine = whole * work.sharing.share
        pieces = work.pieces or math.ceil(round(mine / work.batch, 6))
        chats = mine / pieces
        micro_batches = pieces * updates.chats / (updates.per_epoch * whole)
    tokens, width = _tokens(work, chats)
    real = lengths.mean * chats
    one = training(work.setup, rates, tokens, width, real * lengths.trained)
    kinds = one.times(micro_batches, (UPDATE_GAP if rates.memory is not None else 0.0) + work.sharing.summing)
    return Time(
        kinds=kinds,
        training=kinds.total * updates.total,
        evaluation=work.evaluations * _evaluation(work, rates),
        padding=tokens / real,
        decoding=work.decodings
        * decode_seconds(work.setup, rates, lengths, work.settings, -(-work.decoded // work.sharing.ranks))
        if work.settings
        else 0.0,
        export=export_seconds(work.setup, rates, lengths, work.settings, work.export)
        if work.settings and work.export
        else 0.0,
    )


def _tokens(work: Work, chats: float) -> tuple[float, int]:
    """(tokens with padding, the row length that attention costs as much as) of a micro-batch of some chats."""
    lengths = work.lengths
    if work.pieces is not None:
        return lengths.mean * chats, lengths.attention_width
    width = lengths.expected_width(max(1, round(chats)))
    return lengths.rows(max(1, round(chats))) * width, width


def _evaluation(work: Work, rates: Rates) -> float:
    if not work.eval_chats:
        return 0.0
    batch = min(work.eval_batch, work.eval_chats)
    tokens, width = _tokens(work, batch)
    trained = work.lengths.mean * batch * work.lengths.trained
    batches = -(-math.ceil(work.eval_chats / batch) // work.sharing.ranks)
    return batches * evaluating(work.setup, rates, tokens, width, trained).total


def range_of(work: Work, card: Card, rates: Rates) -> tuple[float, float]:
    """(least, most) seconds of an update, where products sustain the most and the least that is thought of them."""
    least, most = doubt(card)
    fast, slow = (
        replace(rates, products=rates.products * share, attention=rates.attention * share) for share in (most, least)
    )
    return predict(work, fast).update, predict(work, slow).update


def dollars(seconds: float, price: float) -> float:
    """The cost of `seconds` at `price` dollars an hour."""
    return seconds / 3600 * price
