"""What tests/gpu/families.py makes of a family's bench: true sizes, and rows that are JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from tests.bench.planted import run
from tests.gpu.families import rows_of, table
from tests.gpu.family_models import SHAPES, settings
from toolkit.bench_results import Arm, Results, Turn, Update
from toolkit.models.families import FAMILIES, shape_from_config


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_the_published_number_of_parameters(name: str) -> None:
    from transformers import AutoConfig

    published = SHAPES[name]
    for tiny in (False, True):
        config = AutoConfig.for_model(published.model_type, **settings(published, tiny=tiny)).to_dict()
        shape = shape_from_config(config, "config.json")
        assert tiny or shape.parameters == published.parameters
    assert published.not_compiled == bool(FAMILIES[published.model_type].not_compiled)


def test_rows_are_json() -> None:
    usual = {"title": "", "engine": "peft", "trained": "adapter", "held": "", "four_bit": False, "full_logits": False}
    good = Arm("peft", **usual, status="measured", predicted_memory=11 * 2**30)  # type: ignore[arg-type]
    bad = Arm("unsloth", **usual, stage="loading", message="no such family")  # type: ignore[arg-type]
    results = Results(run("real", hardware={"gpu": {"name": "card"}}).run, {"peft": good, "unsloth": bad})
    results.updates = [Update("peft", 1, n, 0.5, 1.0, 1.0, 1000, 1200) for n in range(3)]
    results.turns = [Turn("peft", 1, 10 * 2**30, 12 * 2**30, 1.0)]
    first, second = rows_of("llama-3.2-1b", results)
    assert json.loads(json.dumps(asdict(first)))["off"] == pytest.approx(0.1)
    assert (first.tokens_per_s, first.s_an_update, first.peak_gib, first.planned_gib) == (2000.0, 0.5, 10.0, 11.0)
    assert (second.status, second.message, second.off) == ("failed", "loading: no such family", None)
    assert "+10%" in table([first, second]) and "failed: loading: no such family" in table([first, second])
