"""Where a micro-batch's time goes on a device, by what its kernels do.

    the card:  products      FLOPs of the frozen and adapter weights and of the head / what large products sustain
             + attention     FLOPs of scores and values / what attention kernels sustain
             + between       bytes that all kernels between them move / the memory's sustained rate
             + unpacking     bytes of NF4 weights turned to 16 bits before each product / that rate
    the host:  launches      seconds a layer

A micro-batch takes the longer of the two, and a gap; they run beside each other, while kernels on the card run one
after the other. What the kernels between products move is counted in passes over the features that go into and come
out of a layer's linear modules. Passes, launches and gaps are fitted to updates and kernels measured on an H200
(docs/benchmarks; tests/bench/test_stored.py compares every stored row); a card's rates are in
`toolkit.planning.cards`, and what is not a measurement there says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.engines.setup import Setup
from toolkit.planning.flops import attention_flops

WITHOUT_FLASH = 2.5  # passes more: keys and values repeated for their query heads, and copies
REPLAY = 0.004  # seconds a micro-batch whose kernels are recorded
GAP = 0.002  # seconds of a micro-batch in which the card waits, as for what it is to work on
UPDATE_GAP = 0.008  # and of an update: gradients clipped, the optimizer, what is logged
LOGIT_BYTES = 11.0  # moved for each logit of a loss in chunks
FULL_LOGIT_BYTES = 24.0  # and where all are held at once
NF4_BYTES_MOVED = 4.5  # for each weight made 16-bit again
FLOAT8 = 1.9  # times as fast as products in 16 bits; measured


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device sustains: FLOP/s of large products and of attention, bytes/s of memory.

    `memory`: None where kernels between products are part of the products' rate, as on a CPU; there is no host to
    wait for there either.
    """

    products: float
    attention: float
    memory: float | None


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of a micro-batch or an update, by kind; `total` is what passes on the clock."""

    products: float
    attention: float
    between: float
    unpacking: float
    host: float
    total: float

    @property
    def card(self) -> float:
        """Seconds in which the card works."""
        return self.products + self.attention + self.between + self.unpacking

    def times(self, count: float, more: float = 0.0) -> Seconds:
        """`count` such micro-batches, one after the other, and `more` seconds in which the card waits."""
        return Seconds(
            products=self.products * count,
            attention=self.attention * count,
            between=self.between * count,
            unpacking=self.unpacking * count,
            host=self.host * count,
            total=self.total * count + more,
        )


def training(setup: Setup, rates: Rates, tokens: float, width: float, trained: float) -> Seconds:
    """A micro-batch forward and backward: `tokens` in all, padding and filling included, in rows that cost attention
    as much as rows of `width`; `trained` of them have a label."""
    shape, again = setup.shape, setup.recomputed
    head = tokens if setup.whole_head else trained
    layers = tokens * (4 + 2 * again) * shape.linear_parameters / (FLOAT8 if setup.products == "float8" else 1)
    flops = layers + tokens * (6 + 2 * again) * setup.trainable + head * 4 * shape.head_parameters
    attention = tokens * (3.5 + again) * attention_flops(shape, width)
    passes, recompute, dropped = setup.engine.passes(setup)
    passes += recompute * again + (dropped if setup.dropped else 0) + (0 if setup.flash else WITHOUT_FLASH)
    launch = setup.engine.launch.usual + setup.engine.launch.recomputed * again
    return _seconds(setup, rates, flops, attention, passes, tokens, head, 2 + again, launch)


def evaluating(setup: Setup, rates: Rates, tokens: float, width: float, trained: float) -> Seconds:
    """A micro-batch forward only."""
    shape = setup.shape
    flops = tokens * 2 * (shape.linear_parameters + setup.trainable) + trained * 2 * shape.head_parameters
    attention = tokens * attention_flops(shape, width)
    engine = setup.engine
    passes = engine.passes(setup).recomputed
    return _seconds(setup, rates, flops, attention, passes, tokens, trained, 1, engine.launch.recomputed)


def _seconds(
    setup: Setup,
    rates: Rates,
    flops: float,
    attention: float,
    passes: float,
    tokens: float,
    head: float,
    unpacked: float,
    launch: float,
) -> Seconds:
    products, attention = flops / rates.products, attention / rates.attention
    if rates.memory is None:
        return Seconds(products, attention, 0.0, 0.0, 0.0, products + attention)
    shape, layers, four_bit = setup.shape, setup.shape.num_hidden_layers, setup.held == "nf4"
    logits = head * shape.vocab_size * (FULL_LOGIT_BYTES if setup.full_logits else LOGIT_BYTES)
    between = (tokens * layers * shape.layer_features * setup.element * passes + logits) / rates.memory
    unpacking = unpacked * shape.linear_parameters * NF4_BYTES_MOVED / rates.memory if four_bit else 0.0
    host = REPLAY if setup.replayed else layers * launch * (setup.engine.launch.four_bit if four_bit else 1)
    card = products + attention + between + unpacking
    # what is replayed costs its own little time; what is launched runs beside the card's work
    total = card + host + GAP if setup.replayed else max(card, host) + GAP
    return Seconds(products, attention, between, unpacking, host, total)
