"""Each claim's verdict follows what was derived or measured: planted rows turn it over."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.claims import CLAIMS, check_all, complete, gather
from bench.measurements import Evidence, Finding
from tests.bench.planted import plant, run
from toolkit.bench_results import Results
from toolkit.errors import InputError
from toolkit.models.families import KNOWN
from toolkit.recipe import load

RECIPE = load(Path("recipes/tools.toml")).recipe
SHAPE = KNOWN["Qwen/Qwen3-1.7B"]
BY_NAME = {claim.name: claim for claim in CLAIMS}


def evidence(*results: Results, **values: Any) -> Evidence:
    return Evidence(recipe=values.pop("recipe", RECIPE), shape=values.pop("shape", SHAPE), results=results, **values)


def verdict(name: str, *results: Results, **values: Any) -> str:
    return check(name, *results, **values).verdict


def check(name: str, *results: Results, **values: Any) -> Finding:
    return BY_NAME[name].check(evidence(*results, **values))


def changed(section: str, **values: Any) -> Any:
    """The recipe with other values in a section."""
    return RECIPE.model_copy(update={section: getattr(RECIPE, section).model_copy(update=values)})


def one(name: str, *, profile: str = "this", shape: str = "real", card: str = "h200", **values: Any) -> Results:
    results = run(shape, profile, card)
    plant(results, name, **values)
    return results


DERIVED: list[tuple[str, str, dict[str, Any], str, dict[str, Any]]] = [
    # claim, verdict here, with what it turns over, and to what
    ("weights", "holds if", {}, "holds", {"shape": replace(SHAPE, intermediate_size=7600)}),
    ("weights", "holds if", {}, "does not hold", {"shape": KNOWN["Qwen/Qwen3-4B"]}),
    ("gradients", "holds if", {}, "does not hold", {"shape": KNOWN["Qwen/Qwen3-4B"]}),
    ("adam", "holds if", {}, "does not hold", {"shape": KNOWN["Qwen/Qwen3-4B"]}),
    ("full does not fit", "holds if", {}, "does not hold", {"shape": KNOWN["Qwen/Qwen3-0.6B"]}),
    ("full does not fit", "holds if", {}, "holds", {"shape": KNOWN["Qwen/Qwen3-4B"]}),
    ("lora layer", "holds", {}, "does not hold", {"recipe": changed("lora", r=8)}),
    ("hundred times", "holds", {}, "does not hold", {"recipe": changed("lora", r=32)}),
    ("vocabulary", "does not hold", {}, "holds", {"shape": replace(SHAPE, vocab_size=100_352)}),
    ("updates", "holds", {}, "does not hold", {"recipe": changed("train", num_train_epochs=2)}),
    (
        "sample log",
        "does not hold",
        {},
        "holds",
        {"recipe": changed("train", max_steps=245)},
    ),
    ("schedule", "holds", {}, "does not hold", {"recipe": changed("train", lr_scheduler_type="linear")}),
    ("schedule", "holds", {}, "does not hold", {"recipe": changed("train", warmup_ratio=0.3)}),
    ("hours", "holds if", {}, "does not hold", {"recipe": changed("train", num_train_epochs=1)}),
]


@pytest.mark.parametrize(("name", "here", "same", "turned", "other"), DERIVED)
def test_derived_claims_turn_over(
    name: str, here: str, same: dict[str, Any], turned: str, other: dict[str, Any]
) -> None:
    assert verdict(name, **same) == here
    assert verdict(name, **other) == turned


def test_logarithms_hold() -> None:
    assert verdict("logarithms") == "holds"


def test_the_sample_logs_rates_are_not_the_schedules() -> None:
    assert verdict("sample rates") == "does not hold"


@pytest.mark.parametrize(("peak", "expected"), [(24.5, "holds if"), (30.0, "does not hold"), (18.0, "does not hold")])
def test_full_total(peak: float, expected: str) -> None:
    assert verdict("full total", one("full", peak=peak, trained="all 16-bit")) == expected


@pytest.mark.parametrize(("status", "expected"), [("out of memory", "holds if"), ("measured", "does not hold")])
def test_full_does_not_fit_follows_the_measurement(status: str, expected: str) -> None:
    assert verdict("full does not fit", one("full", profile="t4", status=status, peak=12.0)) == expected


def test_full_does_not_fit_even_with_small_states() -> None:
    results = one("full", profile="t4", status="out of memory")
    plant(results, "full-adam8", status="out of memory")
    assert verdict("full does not fit", results) == "holds"


@pytest.mark.parametrize(
    ("unsloth", "peft", "expected"),
    [(5.0, 5.5, "holds"), (5.0, 9.0, "holds if"), (2.0, 9.0, "does not hold")],
)
def test_lora_memory(unsloth: float, peft: float, expected: str) -> None:
    results = one("unsloth", peak=unsloth)
    plant(results, "peft", peak=peft)
    assert verdict("lora memory", results) == expected


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("measured", "measured"), "holds"),
        (("measured", "out of memory"), "holds if"),
        (("out of memory", "out of memory"), "does not hold"),
    ],
)
def test_lora_fits(statuses: tuple[str, str], expected: str) -> None:
    results = one("unsloth", profile="t4", status=statuses[0])
    plant(results, "peft-logits", status=statuses[1])
    assert verdict("lora fits", results) == expected


def test_lora_does_not_fit_when_the_driver_counts_more_than_the_card_has() -> None:
    assert verdict("lora fits", one("unsloth", profile="t4", peak=15.0, driver=16 * 2**30)) == "does not hold"


def test_update_time_is_measured_on_a_t4_and_predicted_elsewhere() -> None:
    real = one("unsloth", profile="t4", card="t4", seconds=(2.4, 2.5, 2.6))
    assert verdict("update time", real) == "holds"
    assert "measured" in check("update time", real).found
    slow = one("unsloth", profile="t4", card="t4", seconds=(5.0, 5.1, 5.2))
    assert verdict("update time", slow) == "does not hold"
    long, short = one("unsloth", profile="t4"), one("unsloth", profile="t4")
    for results, tokens in ((long, 16 * 950), (short, 16 * 210)):
        for update in results.updates:
            update.real_tokens = update.padded_tokens = tokens
    assert verdict("update time", long) == "does not hold"
    assert verdict("update time", short) == "holds"
    assert re.search(
        r"predicted from real, NVIDIA H200 as a t4 \([\d.]+ to [\d.]+ s\): 2\.\d s", check("update time", short).found
    )


def test_hours_and_cost_follow_the_update_time() -> None:
    fast = one("unsloth", profile="t4", card="t4", seconds=(2.4, 2.5, 2.6))
    slow = one("unsloth", profile="t4", card="t4", seconds=(5.0, 5.1, 5.2))
    for name in ("hours", "cost"):
        assert verdict(name) == "holds if"
        assert verdict(name, fast) == "holds"
        assert verdict(name, slow) == "does not hold"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(8.0, 5.0, "holds"), (17.0, 5.0, "does not hold"), (8.0, 7.5, "does not hold")],
)
def test_checkpointing(before: float, after: float, expected: str) -> None:
    results = one("unsloth", peak=after)
    plant(results, "unsloth-nockpt", peak=before)
    assert verdict("checkpointing", results) == expected


def test_checkpointing_holds_for_some() -> None:
    results = one("unsloth", peak=5.0)
    plant(results, "unsloth-nockpt", peak=8.0)
    other = run("4x2048")
    plant(other, "unsloth", peak=5.5)
    plant(other, "unsloth-nockpt", peak=18.0)
    assert verdict("checkpointing", results, other) == "holds if"


@pytest.mark.parametrize(("status", "expected"), [("out of memory", "holds"), ("measured", "does not hold")])
def test_four_at_once(status: str, expected: str) -> None:
    assert verdict("four at once", one("unsloth-1x", profile="t4", status=status)) == expected


@pytest.mark.parametrize(("peak", "expected"), [(16, "holds"), (10, "does not hold")])
def test_four_at_once_without_the_cap(peak: int, expected: str) -> None:
    assert verdict("four at once", one("unsloth-1x", peak=peak * 1.0737)) == expected


@pytest.mark.parametrize(("whole", "expected"), [((0.6, 0.6, 0.6), "holds"), ((1.1, 1.1, 1.1), "does not hold")])
def test_accumulation(whole: tuple[float, ...], expected: str) -> None:
    results = one("unsloth", seconds=(1.0, 1.1, 1.2))
    plant(results, "unsloth-1x", seconds=whole)
    assert verdict("accumulation", results) == expected


class Table:
    def __init__(self, lengths: list[int], longest: int) -> None:
        self.lengths = np.array(lengths)
        self.n_rows = len(lengths)
        self.meta = {"longest_row": longest}


@pytest.mark.parametrize(
    ("lengths", "longest", "expected"),
    [
        ([500, 800, 1500], 1500, "holds"),
        ([500, 800, 2048], 3000, "holds if"),
        ([500, 1800, 1500], 1800, "does not hold"),
    ],
)
def test_lengths(lengths: list[int], longest: int, expected: str) -> None:
    assert verdict("lengths", table=Table(lengths, longest)) == expected


@pytest.mark.parametrize(
    ("name", "key", "inside", "outside"),
    [("first loss", "first_loss", 3.0, 1.5), ("last loss", "last_loss", 1.0, 0.3)],
)
def test_losses_of_a_run(name: str, key: str, inside: float, outside: float) -> None:
    assert verdict(name, run={key: inside}) == "holds"
    assert verdict(name, run={key: outside}) == "does not hold"
    assert verdict(name) == "not checked here"


def test_every_claim_is_listed_once_and_none_is_checked_without_evidence_that_needs_it() -> None:
    assert len(BY_NAME) == len(CLAIMS) == 25
    unchecked = {claim.name for claim, finding in check_all(evidence()) if finding.verdict == "not checked here"}
    assert unchecked == {
        *("full total", "lora memory", "lora fits", "four at once", "accumulation", "checkpointing", "update time"),
        *("lengths", "first loss", "last loss", "tenth"),
    }


def test_claims_are_complete_unless_this_machine_could_have_checked_more() -> None:
    assert complete(check_all(evidence()))
    assert not complete(check_all(evidence(gpu=True)))
    assert not complete(check_all(evidence(tokenizer_here=True)))


def test_a_small_models_rows_say_nothing_of_this_one(tmp_path: Path) -> None:
    run(parameters=134_515_008).save(tmp_path / "results.jsonl")
    with pytest.raises(InputError, match="none of them is of a model with"):
        gather(Path("recipes/tools.toml"), (), [tmp_path], None)
