"""A run's time is that of its micro-batches; money is time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.engines import ENGINES
from toolkit.engines.setup import Setup
from toolkit.models.families import KNOWN
from toolkit.planning.cards import CARDS, Card, cpu_card
from toolkit.planning.cost import Time, Work, dollars, predict, range_of, rates_of
from toolkit.planning.kernel_time import Rates, training
from toolkit.planning.lengths import Lengths
from toolkit.planning.steps import updates_of
from toolkit.recipe.schema import Recipe

SHAPE = KNOWN["Qwen/Qwen3-1.7B"]
ENGINE = st.sampled_from(sorted(ENGINES))
CARD = st.sampled_from(sorted(CARDS))


def lengths() -> Lengths:
    """940 tokens on average, some chats cut at 2,048, 4 of them padded by 1.56: as in measured runs."""
    tokens = np.concatenate([np.linspace(30, 1780, 1940).round(), np.full(60, 2048)]).astype(np.int64)
    return Lengths(15_694, tokens, 1.0, 0.114, "test", True)


def way(engine: str = "unsloth", recomputed: float = 1.0, **values: Any) -> Setup:
    """`recomputed`: the share of the layers that run forward again."""
    usual: dict[str, Any] = {"shape": SHAPE, "held": "16-bit", "trainable": 17_432_576, "packed": True}
    setup = Setup(engine=ENGINES[engine], checkpointing="on", **usual | values)
    return setup.recomputing(round(recomputed * setup.shape.num_hidden_layers))


def work(batch: int = 4, accumulation: int = 4, evaluations: int = 0, **values: Any) -> Work:
    recipe = Recipe.model_validate(
        {"train": {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}}
    )
    updates = updates_of(recipe, 15_694)
    return Work(way(**values), lengths(), updates, batch, accumulation, evaluations, 200, 4)


def rates(card: str, precision: str = "bf16") -> Rates:
    found = rates_of(CARDS[card], precision)
    assert found is not None
    return found


def predicted(card: str, **values: Any) -> Time:
    return predict(work(**values), rates(card, "bf16" if CARDS[card].flash else "fp16"))


@pytest.mark.parametrize(
    ("seconds", "engine", "batch", "accumulation"),
    [(2.03, "peft", 4, 4), (1.39, "unsloth", 4, 4), (0.85, "unsloth", 16, 1)],
)
def test_measured_updates(seconds: float, engine: str, batch: int, accumulation: int) -> None:
    found = predicted("h200", engine=engine, batch=batch, accumulation=accumulation, packed=False)
    assert found.update == pytest.approx(seconds, rel=0.2)


def test_padding_is_what_was_measured() -> None:
    assert predicted("h200").padding == pytest.approx(1.56, abs=0.08)


def test_slow_cards_compute_and_fast_ones_wait() -> None:
    slow, fast = predicted("t4"), predicted("h200")
    assert not slow.host_bound
    assert fast.host_bound
    assert slow.kinds.host == pytest.approx(fast.kinds.host), "the host is the same"
    assert slow.total == pytest.approx(2_943 * slow.update)
    assert fast.update < 0.2 * slow.update


def test_a_t4_sustains_what_was_measured_of_one_and_not_its_data_sheet() -> None:
    found = rates("t4", "fp16")
    assert found.memory is not None
    assert 20e12 <= found.products <= 24e12
    assert found.memory == pytest.approx(239.6e9)
    assert found.attention < found.products / 2, "there is no flash attention for it"
    # 16 chats of 981 tokens, the layers forward and backward: 4.1 to 4.8 s in products alone
    products = training(way(recomputed=0.0), found, 16 * 981, 981, 0.114 * 16 * 981).products
    assert 4.1 < products < 4.8


def test_the_range_is_that_of_products() -> None:
    one = work(flash=False)
    least, most = range_of(one, CARDS["t4"], rates("t4", "fp16"))
    assert least < predict(one, rates("t4", "fp16")).update < most < 1.2 * least


def test_an_unknown_card_has_no_rates() -> None:
    assert rates_of(Card("some", "some", 8, (8, 0), None, None, None), "bf16") is None


def test_a_cpu_waits_for_no_host_and_has_no_memory_of_its_own() -> None:
    found = rates_of(cpu_card(2, 2**34, "some"), "fp32")
    assert found is not None and found.memory is None
    kinds = predict(work(), found).kinds
    assert (kinds.host, kinds.between, kinds.unpacking) == (0, 0, 0)
    assert kinds.total == pytest.approx(kinds.products + kinds.attention)


@given(
    engine=ENGINE,
    card=CARD,
    tokens=st.integers(64, 60_000),
    width=st.integers(16, 4096),
    recomputed=st.floats(0, 1),
    dropout=st.booleans(),
    recorded=st.booleans(),
    model=st.sampled_from(sorted(KNOWN)),
)
def test_four_bit_weights_are_never_faster(
    engine: str,
    card: str,
    tokens: int,
    width: int,
    recomputed: float,
    dropout: bool,
    recorded: bool,
    model: str,
) -> None:
    """NF4 is made 16-bit again before each product, which is then the same product."""
    plain = way(shape=KNOWN[model], engine=engine, recomputed=recomputed, dropped=int(dropout), recorded=recorded)
    plain = replace(plain, flash=CARDS[card].flash)
    given_ = rates(card, "fp16")
    one = training(plain, given_, tokens, width, 0.1 * tokens)
    four = training(replace(plain, held="nf4"), given_, tokens, width, 0.1 * tokens)
    assert four.unpacking > 0
    assert four.card > one.card
    assert four.total >= one.total


@given(engine=ENGINE, card=CARD, tokens=st.integers(64, 60_000), recomputed=st.floats(0, 0.9))
def test_more_work_takes_longer(engine: str, card: str, tokens: int, recomputed: float) -> None:
    some, given_ = way(engine=engine, recomputed=recomputed, flash=CARDS[card].flash), rates(card, "fp16")

    def total(one: Setup, count: int) -> float:
        return training(one, given_, count, 900, 0.1 * count).total

    assert total(some, tokens) <= total(some, tokens + 64)
    assert total(some, tokens) < total(some.recomputing(3 + round(28 * recomputed)), tokens)
    assert total(some, tokens) <= total(replace(some, dropped=1), tokens)
    assert total(some, tokens) < total(replace(some, full_logits=True), tokens) or total(some, tokens) > 1e-3


def test_checkpointing_and_evaluation_take_time() -> None:
    assert predicted("t4", recomputed=0.0).update < predicted("t4").update
    once, twice = predicted("t4", evaluations=1), predicted("t4", evaluations=2)
    assert twice.evaluation == pytest.approx(2 * once.evaluation)
    assert once.total == pytest.approx(once.training + once.evaluation)


def test_dollars() -> None:
    assert dollars(7_200, 0.60) == pytest.approx(1.20)
