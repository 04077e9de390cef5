"""A plan learns from runs that ran out of memory: of the same shape, device and versions, and of no other."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from tests.command import toolkit
from toolkit.engines import versions
from toolkit.planning import ran_out
from toolkit.planning.cuts import Cut
from toolkit.planning.plan import Plan, plan_recipe
from toolkit.planning.show import show
from toolkit.recipe import load
from toolkit.terminal import new_console

TOOLS = Path(__file__).parents[2] / "recipes" / "tools.toml"
PADDED = ("train.micro_batch=fixed", "train.gradient_checkpointing=true")


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))


def planned(*overrides: str, gpu: str = "t4") -> Plan:
    return plan_recipe(load(TOOLS, overrides), gpu)


def shown(plan: Plan) -> str:
    out = io.StringIO()
    show(plan, new_console(file=out, width=200))
    return " ".join(out.getvalue().split())


def row(cut: Cut, rows: int, tokens: int, stage: str = "training") -> dict[str, Any]:
    """As a run writes it."""
    return cut.row(3, stage) | {"tried": {"rows": rows, "tokens": tokens}}  # type: ignore[arg-type]


def keep(plan: Plan, *found: dict[str, Any], date: str = "2026-11-30") -> None:
    assert plan.case is not None
    for one in found:
        ran_out.record(plan.case, date, one)


def test_the_next_plan_has_the_smaller_cut_and_says_why() -> None:
    before = planned()
    assert before.budget is not None and before.ran_out is None
    keep(before, row(Cut(tokens=2048), 9, 4096))
    after = planned()
    assert after.budget is not None and after.budget.tokens == 2048 < before.budget.tokens
    assert after.budget.reason == "ran out of memory at 4,096 tokens on 2026-11-30: 2,048 now"
    assert after.budget.checkpointed == before.budget.checkpointed
    assert after.memory.total < before.memory.total and (after.pieces or 0) > (before.pieces or 0)
    assert "ran out of memory at 4,096 tokens on 2026-11-30: a run begins with micro-batches of at most" in shown(after)
    # names and chats are not the shape
    assert planned("train.learning_rate=1e-5", "train.seed=3").budget == after.budget


@pytest.mark.parametrize(
    "other", ["lora.r=8", "model.load_in_4bit=true", "train.engine=peft", "lora.lora_dropout=0.0", "padded", "gpu"]
)
def test_another_shape_or_device_is_not_affected(other: str) -> None:
    keep(planned(), row(Cut(tokens=512), 9, 1024))
    found = planned(gpu="l4") if other == "gpu" else planned(*(PADDED if other == "padded" else (other,)))
    assert found.ran_out is None and (found.budget is None or found.budget.tokens > 512)


def test_other_versions_are_not_affected(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(planned(), row(Cut(tokens=2048), 9, 4096))
    assert planned().ran_out is not None
    usual = versions()
    monkeypatch.setattr(ran_out, "versions", lambda: usual | {"torch": "9.9"})
    assert planned().ran_out is None


def test_the_smallest_of_several_counts_and_a_larger_one_changes_nothing() -> None:
    plan = planned()
    keep(plan, row(Cut(tokens=4096), 9, 8192), row(Cut(tokens=2048), 5, 4096))
    keep(plan, row(Cut(tokens=2048, eval_rows=4), 8, 8192, "evaluation"), date="2026-12-01")
    found = planned().ran_out
    assert found is not None and found.cut == Cut(tokens=2048, eval_rows=4)
    assert found.told == "ran out of memory at 4,096 tokens on 2026-11-30"
    asked = planned("train.micro_batch=2000")  # fewer than what fits
    assert asked.budget is not None and asked.budget.reason != found.told


def test_padded_rows_are_told_of_and_a_row_that_recomputes() -> None:
    plan = planned(*PADDED)
    keep(plan, row(Cut(rows=2), 4, 4096))
    text = shown(planned(*PADDED))
    assert "ran out of memory at 4 rows on 2026-11-30: a run begins with micro-batches of at most 2 rows" in text
    assert planned(*PADDED, "train.max_length=512").ran_out is None  # other rows
    keep(plan, row(Cut(rows=1, recompute=True), 1, 2048))
    assert "at a row of 2,048 tokens on 2026-11-30: a run begins with" in shown(planned(*PADDED))


def test_what_is_damaged_is_passed_over() -> None:
    plan = planned()
    keep(plan, row(Cut(tokens=2048), 9, 4096))
    whole = ran_out.store().read_text()
    with ran_out.store().open("ab") as file:
        file.write(b'{"date": 3}\n\xff\n[]\n' + whole.replace("2048", '"2048"').encode())
        file.write(whole.replace("2048", "-1").encode() + whole.replace("2048", "1e999").encode() + whole.encode()[:40])
    found = planned().ran_out
    assert found is not None and found.cut == Cut(tokens=2048)


def test_it_is_forgotten_when_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    keep(planned(), row(Cut(tokens=2048), 9, 4096))
    keep(planned(*PADDED), row(Cut(rows=2), 4, 4096))
    words = ("plan", str(TOOLS), "--gpu", "t4", "--forget")
    code, said, _ = toolkit(capsys, monkeypatch, *words)
    assert code == 0 and "forgot      that memory ran out 1 time\n" in said and "4,096 tokens on" not in said
    assert planned().ran_out is None and planned(*PADDED).ran_out is not None
    assert "forgot      nothing: memory did not run out here" in toolkit(capsys, monkeypatch, *words)[1]
