"""A plan for several cards: who has most of an update, what that takes, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from toolkit.errors import InputError
from toolkit.planning import plan as plan_module
from toolkit.planning.micro_batches import spread
from toolkit.planning.plan import Plan, plan_recipe
from toolkit.planning.show import show
from toolkit.recipe import load

RECIPE = Path(__file__).parents[2] / "recipes" / "tools.toml"


def plan(gpus: int, gpu: str = "l4", sets: Sequence[str] = ()) -> Plan:
    return plan_recipe(load(RECIPE, sets), gpu=gpu, price=1.0, gpus=gpus)


@given(st.lists(st.integers(1, 2048), max_size=40), st.integers(1, 9))
def test_every_chat_has_one_rank_and_none_has_much_more(lengths: list[int], ranks: int) -> None:
    groups = spread(lengths, ranks)
    assert len(groups) == ranks and sorted(i for group in groups for i in group) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in group) for group in groups]
    assert max(filled) - min(filled) <= max(lengths, default=0)


def test_two_cards_take_half_the_time_and_a_sum() -> None:
    one, two = plan(1), plan(2)
    assert one.sharing.share == 1 and one.sharing.summing == 0
    assert 0.5 <= two.sharing.share < 0.55 and two.sharing.summing > 0
    assert one.time is not None and two.time is not None and one.cost is not None and two.cost is not None
    expected = one.time.update * two.sharing.share + two.sharing.summing
    assert two.time.update == pytest.approx(expected, rel=0.05)
    assert two.time.total == pytest.approx(0.53 * one.time.total, rel=0.06) and two.cost > one.cost
    assert two.updates == one.updates
    summed = two.memory.parts["gradients summed over ranks"]
    assert summed > 4 * two.trainable and "gradients summed over ranks" not in one.memory.parts


def test_padded_chats_are_shared_too() -> None:
    padded = ["train.micro_batch=fixed", "train.gradient_checkpointing=true"]
    one, two, sixteen = (plan(gpus, sets=padded) for gpus in (1, 2, 16))
    times = [made.time.update for made in (one, two, sixteen) if made.time is not None]
    assert times[0] > 1.8 * times[1] and times[1] > times[2] and two.pieces is None
    assert sixteen.sharing.share > 1.4 / 16  # each has one chat, and the longest of them is waited for


def test_what_can_not_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match="GPUs can't share an update of 16 chats"):
        plan(10**30)  # before it is shared by so many
    with pytest.raises(InputError, match="17 GPUs can't share an update of 16 chats"):
        plan(17)
    with pytest.raises(InputError, match="--gpus 2: processes on a CPU share its cores"):
        plan(2, gpu="cpu")


def test_without_a_gpu_the_card_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "seen_gpus", list)
    assert shown(plan_recipe(load(RECIPE), gpus=2), "card") == [
        "T4 16 GB, 14.56 GiB usable (no GPU found here, so a T4 is taken; --gpu NAME chooses another)"
    ]
    (line,) = shown(plan_recipe(load(RECIPE), gpu="l4", gpus=2), "gpus")
    assert line.startswith("2 x L4 24 GB, which share an update's chats")


def shown(made: Plan, label: str) -> list[str]:
    """What is printed beside a label."""
    text = io.StringIO()
    show(made, Console(file=text, width=400))
    lines = [line for line in text.getvalue().splitlines() if line.startswith(f"{label} ")]
    return [line.removeprefix(label).strip() for line in lines]
