"""Every gate passes for a healthy variant and fails for the fault that it is there for."""

from __future__ import annotations

from typing import Any

import pytest

from bench.gates import judge
from tests.bench.planted import plant, run
from toolkit.bench_results import Results


def judged(name: str = "unsloth", **faults: Any) -> set[str]:
    """The names of gates that fail for a variant with `faults`, beside a healthy reference."""
    results = run()
    plant(results, "peft")
    plant(results, name, **faults)
    results.gates = judge(results)
    assert not results.failed_gates("peft")
    return {gate.name for gate in results.failed_gates(name)}


def test_a_healthy_variant_passes_every_gate() -> None:
    assert judged() == set()
    results = run()
    plant(results, "peft")
    plant(results, "unsloth")
    names = {gate.name for gate in judge(results) if gate.variant == "unsloth"}
    assert names == {fault[0] for fault in FAULTS}


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("gradient norm above zero", {"norms": (0.0, 0.0, 0.0, 0.0)}),
    ("gradient norm above zero", {"norms": (0.5, None, 0.5, 0.5)}),
    ("trained weights move", {"moved": False}),
    ("trainable count", {"trainable": 0}),
    ("patched layers", {"patched": {"qkv": 28, "o": 28, "mlp": 27}}),
    ("patched layers", {"patched": {}}),
    ("checkpointing as asked", {"checkpointed": 0}),
    ("no skipped updates", {"skipped": (3,)}),
    ("same tokens in the same order", {"chats": ["b", "a", "c", "d"]}),
    ("same tokens in the same order", {"chats": []}),
    ("single tokens' losses", {"probe": [2.5, 3.5, 1.5, 4.5]}),
    ("single tokens' losses", {"probe": [float("nan")] * 4}),
    ("single tokens' losses", {"probe": []}),
    ("losses agree", {"losses": (3.1, 2.9, 2.8, 2.7)}),
    ("losses agree", {"losses": (3.0, 2.9, 3.3, 3.9)}),
    ("losses agree", {"losses": (3.0, None, None, None)}),
]


@pytest.mark.parametrize(("gate", "fault"), FAULTS, ids=[f"{name}-{next(iter(fault))}" for name, fault in FAULTS])
def test_a_fault_fails_its_gate_and_no_other(gate: str, fault: dict[str, Any]) -> None:
    assert judged(**fault) == {gate}


def test_scaling_may_skip_updates_while_it_finds_its_scale() -> None:
    assert judged(skipped=(1,), norms=(None, 0.5, 0.5, 0.5)) == set()


def test_a_family_without_fused_layers_has_none() -> None:
    assert judged("unsloth", patched={}, expected_layers=0) == set()


def test_plain_engines_may_not_be_patched() -> None:
    assert judged("peft-nodrop", patched={"qkv": 28}) == {"patched layers"}


def test_checkpointing_that_stays_on_is_seen() -> None:
    assert judged("unsloth-nockpt", checkpointed=28) == {"checkpointing as asked"}


def test_all_weights_training_is_held_to_the_first_loss_only() -> None:
    assert judged("full", trained="all 16-bit", losses=(3.0, 2.0, 1.0, 0.5)) == set()
    assert judged("full", trained="all 16-bit", losses=(3.2, 2.0, 1.0, 0.5)) == {"losses agree"}


def test_quantised_weights_are_compared_with_quantised_weights() -> None:
    results = run()
    plant(results, "peft")
    plant(results, "peft-4bit", probe=[3.0, 4.0, 2.0, 5.0], losses=(3.5, 3.4, 3.3, 3.2))
    plant(results, "unsloth-4bit", probe=[3.0, 4.0, 2.0, 5.0], losses=(3.5, 3.4, 3.3, 3.2))
    results.gates = judge(results)
    assert results.ok


def test_running_out_of_memory_is_a_result_and_a_failure_is_not() -> None:
    results = run()
    plant(results, "peft")
    plant(results, "full", status="out of memory")
    results.gates = judge(results)
    assert results.ok
    plant(results, "unsloth", status="failed")
    assert not results.ok


def test_results_survive_the_file(tmp_path: Any) -> None:
    results = run()
    plant(results, "peft", losses=(3.0, None, 2.8, 2.7))
    results.gates = judge(results)
    results.save(tmp_path / "results.jsonl")
    again = Results.load(tmp_path)
    assert (again.run, again.arms, again.turns, again.updates, again.gates) == (
        results.run,
        results.arms,
        results.turns,
        results.updates,
        results.gates,
    )


def test_layers_that_the_planner_chose_are_the_ones_that_recompute() -> None:
    asked: dict[str, Any] = {"checkpointing": "auto", "checkpointed_wanted": 12}
    assert judged(**asked, checkpointed=12) == set()
    assert judged(**asked, checkpointed=13) == {"checkpointing as asked"}
    assert judged(checkpointing="auto", checkpointed_wanted=0, checkpointed=0) == set()
