"""Times on another card: the formula of the planner over what was measured here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.plan import VariantPlan, fixed_lengths
from bench.variants import BY_NAME, VARIANTS, Variant
from tests.bench.planted import plant, run
from toolkit.bench_results import Results
from toolkit.models.families import KNOWN
from toolkit.planning.cards import CARDS
from toolkit.planning.lengths import assumed
from toolkit.planning.plan import make_plan
from toolkit.recipe import load
from toolkit.recipe.schema import Recipe
from toolkit.reports.bench_prediction import predicted, products_of, shape_of

SHAPE = KNOWN["Qwen/Qwen3-1.7B"]
RECIPE = load(Path("recipes/tools.toml")).recipe


def one(name: str = "unsloth", shape: str = "real", tokens: int = 16_000, **values: Any) -> Results:
    results = run(shape, "t4")
    plant(results, name, precision="fp16", **values)
    for update in results.updates:
        update.real_tokens = update.padded_tokens = tokens
    return results


def test_a_prediction_stands_between_its_bounds_and_says_how_far_off_it_is_here() -> None:
    found = predicted(one(seconds=(1.2, 1.3, 1.4)), "unsloth")
    assert found is not None
    assert found.least < found.seconds < found.most
    assert found.seconds == found.kinds.total
    assert found.error == pytest.approx(found.here / 1.3 - 1)


def test_time_grows_with_tokens() -> None:
    short, long = (predicted(one(tokens=tokens), "unsloth") for tokens in (8_000, 16_000))
    assert short is not None and long is not None
    assert 1.8 < long.seconds / short.seconds < 2.3


def test_the_bench_and_the_planner_say_the_same() -> None:
    """The planner's update over the very lengths that were measured."""
    recipe = RECIPE.model_copy(
        update={"train": RECIPE.train.model_copy(update={"micro_batch": "fixed", "gradient_checkpointing": True})}
    )
    lengths = fixed_lengths(assumed(recipe), 1000)
    planned = make_plan(recipe, CARDS["t4"], lengths)
    assert planned.time is not None
    results = one(tokens=16 * 1000, shape="4x1000", dropout=recipe.lora.lora_dropout)
    results.run["trained_share"] = lengths.trained
    found = predicted(results, "unsloth")
    assert found is not None
    assert found.seconds == pytest.approx(planned.time.update, rel=0.01)
    plan = VariantPlan(SHAPE, BY_NAME["unsloth"], recipe)
    assert plan.seconds(lengths, CARDS["t4"], "fp16") == pytest.approx(planned.time.update)


def test_four_bit_is_not_predicted_to_be_faster() -> None:
    results = one()
    plant(results, "unsloth-4bit", precision="fp16")
    for update in results.updates:
        update.real_tokens = update.padded_tokens = 16_000
    plain, four = predicted(results, "unsloth"), predicted(results, "unsloth-4bit")
    assert plain is not None and four is not None
    assert four.seconds > plain.seconds


@pytest.mark.parametrize(
    ("name", "shape", "values"),
    [
        ("full", "real", {"trained": "all 16-bit"}),  # every weight's own gradient and state
        ("peft", "4x2048", {}),  # SDPA without flash attention held all scores
    ],
)
def test_what_nothing_is_known_of_is_not_predicted(name: str, shape: str, values: dict[str, Any]) -> None:
    assert predicted(one(name, shape, **values), name) is None


def test_nothing_is_predicted_without_a_card_or_sizes() -> None:
    assert predicted(run("real", "this"), "unsloth") is None
    measured = run("real", "t4", "t4")
    plant(measured, "unsloth")
    assert predicted(measured, "unsloth") is None, "it was measured on one"
    unknown = one()
    unknown.run["parameters"] = 123
    assert predicted(unknown, "unsloth") is None
    kept = one()
    kept.run.update(parameters=123, model_shape={**asdict(SHAPE), "biased": []})
    assert shape_of(kept) == SHAPE
    assert predicted(kept, "unsloth") == predicted(one(), "unsloth")


@pytest.mark.parametrize(
    ("variant", "products"),
    [
        ("unsloth", "separate"),
        ("compiled-nockpt", "separate"),
        ("compiled-fused-autockpt", "fused"),
        ('compiled-float8-nockpt+train.compile="static"', "float8"),
        ('compiled-nockpt+train.products="fused"', "fused"),
        ("of another version", "separate"),
    ],
)
def test_products_are_read_off_the_variant(variant: str, products: str) -> None:
    assert products_of(variant) == products


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
def test_a_name_says_the_products(variant: Variant) -> None:
    asked = dict(override.split("=") for override in variant.overrides).get("train.products", "separate").strip('"')
    assert products_of(variant.name) == asked


def test_packed_variants_have_a_plan_of_their_time() -> None:
    recipe = Recipe.model_validate(
        {"train": {"engine": "compiled", "micro_batch": "auto", "gradient_checkpointing": "auto"}}
    )
    variant = BY_NAME["compiled-fused-autockpt"]
    found = VariantPlan(SHAPE, variant, recipe).seconds(assumed(recipe), CARDS["t4"], "fp16")
    plan = make_plan(recipe, CARDS["t4"], assumed(recipe))
    assert plan.time is not None and found == pytest.approx(plan.time.update)


def test_flops_of_variants() -> None:
    sizes = {"padded": 32768, "width": 2048, "trained": 3736, "trainable": 17_432_576}
    plain = VariantPlan(SHAPE, BY_NAME["peft"], RECIPE).flops(**sizes)
    # 6 x 1.409e9 x tokens for forward, recomputation and backward, and the head and attention on top
    assert 6 * SHAPE.linear_parameters * 32768 < plain < 1.2 * 6 * SHAPE.linear_parameters * 32768
    everywhere = VariantPlan(SHAPE, BY_NAME["peft-logits"], RECIPE).flops(**sizes)
    assert everywhere - plain == pytest.approx(4 * SHAPE.head_parameters * (32768 - 3736))
    full = VariantPlan(SHAPE, BY_NAME["full"], RECIPE).flops(**{**sizes, "trainable": 0})
    assert full > plain + 1.9 * SHAPE.linear_parameters * 32768 - 8 * 17_432_576 * 32768
