"""Memory that runs out in the middle of a run: it goes on in smaller pieces, with the losses of a run that began so."""

from __future__ import annotations

import importlib
import io
import random
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.scarce import OutAt, out_in_update
from tests.tiny import write_recipe
from tests.training.runs import losses, tensors
from toolkit.errors import TrainingError
from toolkit.files import remove
from toolkit.planning.cuts import Cut
from toolkit.planning.ran_out import store
from toolkit.recipe import load
from toolkit.records import read_rows
from toolkit.reports.runview import RunView
from toolkit.runs import RunFolder
from toolkit.terminal import new_console
from toolkit.training.dataset import Row
from toolkit.training.out_of_memory import memory_told
from toolkit.training.packing import MICRO_BATCHES, PackingCollator
from toolkit.training.run import run
from toolkit.training.verify.run import verify_run

PADDED = ("train.micro_batch=fixed",)
PACKED = ("train.micro_batch=1000",)
HALF = ("train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=4")


class Place:
    """Runs of 3 updates of 8 chats with dropout, by their settings; those that nothing happens to are made once."""

    def __init__(self, folder: Path, recipe: Path) -> None:
        self.folder, self.recipe = folder, recipe
        self.known: dict[tuple[str, ...], RunFolder] = {}

    def train(self, *settings: str) -> RunFolder:
        return run(load(self.recipe, settings), self.folder / f"run-{len(list(self.folder.iterdir()))}")

    @cached_property
    def operations(self) -> int:
        """Of one padded micro-batch of 4 chats, forward and backward."""
        with out_in_update(1, 0) as counts:
            self.known[PADDED] = self.train(*PADDED)
        assert len(counts) == 2 and counts[0] == counts[1]
        return counts[0]

    def calm(self, *settings: str) -> RunFolder:
        """A run that nothing happens to."""
        if settings not in self.known:
            self.known[settings] = self.train(*settings)
        return self.known[settings]

    def same(self, cut: RunFolder, *settings: str) -> bool:
        """Whether a run has the weights of one of these settings, to the last bit, and its losses.

        The loss of an update is summed over pieces first, and so in another order.
        """
        ours, theirs = tensors(cut), tensors(self.calm(*settings))
        assert losses(cut) == pytest.approx(losses(self.calm(*settings)), rel=1e-6)
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def place(tiny_model: Path, cache_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("scarce")
    recipe = write_recipe(
        folder,
        tiny_model,
        24,
        lora={"lora_dropout": 0.1, "r": 2},
        train={
            "max_steps": 3,
            "save_steps": 2,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "gradient_checkpointing": False,
        },
        eval={"holdout": 0, "early_stopping_patience": 0},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(cache_root))
        yield Place(folder, recipe)


def cuts(folder: RunFolder) -> list[tuple[int, str, dict[str, Any]]]:
    return [
        (row["update"], row["stage"], row["memory_cut"]) for row in read_rows(folder.metrics) if "memory_cut" in row
    ]


@pytest.mark.parametrize(
    "share", [pytest.param(0.05, marks=pytest.mark.slow), pytest.param(0.5, marks=pytest.mark.slow), 0.95]
)
def test_the_first_update_is_made_again_as_in_a_run_that_began_so(
    place: Place, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with out_in_update(1, round(share * place.operations), cpu=share == 0.5):
        cut = place.train(*PADDED)
    assert place.same(cut, *PADDED, *HALF)  # dropout included
    assert cuts(cut) == [(1, "training", {"rows": 2})]
    assert "micro-batches of at most 2 rows from now on; update 1 is made again" in capsys.readouterr().out


def test_what_an_update_has_summed_up_by_then_is_thrown_away(place: Place) -> None:
    seen = []

    class Second(OutAt):
        def __init__(self, at: int, **how: Any) -> None:
            seen.append(at)
            super().__init__(at if len(seen) == 2 else 0, **how)  # in the second micro-batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.scarce.OutAt", Second)
        with out_in_update(1, place.operations // 2):
            cut = place.train(*PADDED)
    assert place.same(cut, *PADDED, *HALF) and cuts(cut) == [(1, "training", {"rows": 2})]


def test_packed_micro_batches_are_cut_by_half_their_tokens(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with out_in_update(1, 900, remembered=True):
        cut = place.train(*PACKED)
    ((update, stage, made),) = cuts(cut)
    assert (update, stage) == (1, "training") and 400 < made["tokens"] < 500
    assert place.same(cut, f"train.micro_batch={made['tokens']}")
    capsys.readouterr()
    again = place.train(*PACKED)  # which knows
    store().unlink()
    told = re.search(
        r"packing    (\d+) tokens a micro-batch: ran out of memory at [89]\d\d tokens on", capsys.readouterr().out
    )
    assert told is not None and int(told[1]) == made["tokens"]
    assert place.same(again, f"train.micro_batch={made['tokens']}")
    assert cuts(again) == [(0, "start", made)] and not RunView.load(again.path).log.cuts


@pytest.mark.slow
def test_the_next_run_begins_with_the_smaller_rows_and_is_resumed_and_verified_so(place: Place) -> None:
    with out_in_update(1, place.operations // 2, remembered=True):
        cut = place.train(*PADDED)
    again = place.train(*PADDED)
    assert place.same(again, *PADDED, *HALF) and tensors(again).keys() == tensors(cut).keys()
    assert cuts(again) == [(0, "start", {"rows": 2})]
    store().unlink()
    said = io.StringIO()
    assert verify_run(again.path, new_console(file=said, soft_wrap=True), 3)[0] == "equal", said.getvalue()
    wanted = losses(again)
    for path in (again.summary, again.checkpoints / "checkpoint-3"):
        remove(path)
    resumed = run(load(place.recipe, PADDED), resume=again.path)  # cut as it was, though that was forgotten
    assert losses(resumed) == wanted and place.same(resumed, *PADDED, *HALF)


@pytest.mark.slow
def test_a_later_update_is_made_again_and_a_resumed_run_goes_on_so(place: Place) -> None:
    still = ("lora.lora_dropout=0.0",)
    with out_in_update(2, 400):
        cut = place.train(*PADDED, *still)
    # other sums of the same numbers: float32's rounding, and what three updates make of it
    assert losses(cut) == pytest.approx(losses(place.calm(*PADDED, *still)), rel=1e-5)
    assert cuts(cut) == [(2, "training", {"rows": 2})]
    for path in (cut.summary, cut.checkpoints / "checkpoint-3"):
        remove(path)
    wanted = losses(cut)
    with out_in_update(3, 0) as counts:
        again = run(load(place.recipe, [*PADDED, *still]), resume=cut.path)
    assert losses(again) == wanted and len(counts) == 4  # pieces of 2 rows, of 8 chats


@pytest.mark.slow
def test_a_single_row_makes_all_layers_recompute_and_then_nothing_is_left(place: Place) -> None:
    single = ("train.per_device_train_batch_size=1", "train.gradient_accumulation_steps=8", *PADDED)
    with out_in_update(1, 300):
        cut = place.train(*single)
    assert cuts(cut) == [(1, "training", {"recompute": True})]
    assert losses(cut) == pytest.approx(losses(place.calm(*single)), rel=1e-6)
    with out_in_update(2, 200, times=99), pytest.raises(TrainingError) as caught:
        place.train(*PADDED)
    told = str(caught.value)
    assert "tried: micro-batches of at most 2 rows, then micro-batches of at most 1 rows, then all layers" in told
    assert "Try --set model.load_in_4bit=true or a smaller train.max_length\nkept: " in told


@pytest.mark.slow
def test_held_out_chats_are_evaluated_in_smaller_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.training.mixins.eval_loss import EvalLoss

    settings = (*PADDED, "eval.holdout=8", "eval.per_device_eval_batch_size=8", "train.max_steps=1")
    usual, seen = EvalLoss.held_out_loss, []

    def held_out_loss(self: Any, batch: Any) -> tuple[float, int]:
        seen.append(batch["input_ids"].shape[0])
        with OutAt(60 if len(seen) < 3 else 0):
            return usual(self, batch)

    whole = [row for row in read_rows(place.train(*settings).metrics) if "eval_loss" in row]
    monkeypatch.setattr(EvalLoss, "held_out_loss", held_out_loss)
    cut = place.train(*settings)
    pieces = [row for row in read_rows(cut.metrics) if "eval_loss" in row]
    assert seen[:3] == [8, 4, 2] and set(seen[3:]) == {2}
    assert cuts(cut) == [(0, "evaluation", {"eval_rows": 4}), (0, "evaluation", {"eval_rows": 2})]
    again = place.train(*settings)
    store().unlink()
    assert cuts(again) == [(0, "start", {"eval_rows": 2})]
    for one, other in zip(whole, pieces, strict=True):
        assert other["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)
        assert other["eval_groups"] == pytest.approx(one["eval_groups"], rel=1e-5)


@pytest.mark.parametrize(
    "stage", ["torch.save", pytest.param("peft.peft_model.safe_save_file", marks=pytest.mark.slow)]
)
def test_saving_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    module, _, name = stage.rpartition(".")
    usual: Callable[..., Any] = getattr(importlib.import_module(module), name)
    failed: list[Any] = []

    def save(*given: Any, **more: Any) -> Any:
        if not failed:
            failed.append(given)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return usual(*given, **more)

    monkeypatch.setattr(stage, save)
    made = place.train(*PADDED)
    assert failed and place.same(made, *PADDED)
    assert made.adapter_damage() is None and made.last_checkpoint() is not None


@pytest.mark.slow
def test_a_cut_is_verified_with_the_cut(place: Place) -> None:
    with out_in_update(2, 400):
        cut = run(load(place.recipe, PADDED), place.folder / "verified")
    said = io.StringIO()
    assert verify_run(cut.path, new_console(file=said, soft_wrap=True), 3)[0] == "equal", said.getvalue()


def rows_of(draw: random.Random, count: int) -> list[Row]:
    made = []
    for _ in range(count):
        size = draw.randint(2, 60)
        labels = np.array([draw.choice([-100, i]) for i in range(size)], dtype=np.int64)
        made.append((np.array(draw.choices(range(9), k=size), dtype=np.int64), labels))
    return made


@pytest.mark.parametrize("seed", range(5))
def test_an_update_that_is_cut_again_is_as_if_it_had_been_cut_so(seed: int) -> None:
    draw = random.Random(seed)
    chats = [{"rows": rows_of(draw, draw.randint(1, 2))} for _ in range(9)]
    large, small = (PackingCollator(0, budget, multiple=8) for budget in (200, 70))
    whole = large(chats)
    found, wanted = small.recut(whole, 70), small(chats)
    assert found["groups"] == wanted["groups"] != whole["groups"]
    for one, other in zip(found[MICRO_BATCHES], wanted[MICRO_BATCHES], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("input_ids", "labels", "cu_seq_lens", "predicting"))
    assert large.recut(whole, 200) is whole


def test_what_is_tried_in_which_order() -> None:
    cut, tried = Cut(), []
    sizes = [(8, 800), (4, 390), (2, 180), (1, 90), (1, 90)]
    for rows, tokens in sizes:
        smaller = cut.smaller("training", rows, tokens, packed=True, may_recompute=True)
        if smaller is None:
            break
        tried.append(smaller.told(cut))
        cut = smaller
    assert tried == [
        "micro-batches of at most 400 tokens from now on",
        "micro-batches of at most 195 tokens from now on",
        "micro-batches of at most 90 tokens from now on",
        "all layers recompute what backward needs, from now on",
    ]
    assert cut.smaller("training", 1, 90, packed=True, may_recompute=True) is None
    assert Cut().smaller("training", 1, 90, packed=False, may_recompute=False) is None
    assert Cut().smaller("evaluation", 1, 90, packed=False, may_recompute=True) is None
    assert Cut.of(cut.row(4, "training")) == cut and Cut.of({"update": 4, "loss": 1.0}) is None


def test_a_line_says_what_was_asked_for_and_what_is_free() -> None:
    """PyTorch's own goes on with each process on the card, in 900 characters."""
    message = (
        "CUDA out of memory. Tried to allocate 50.00 MiB. GPU 0 has a total capacity of 139.80 GiB of which 68.99 GiB "
        "is free. Process 8129 has 2.23 GiB memory in use. See documentation (https://docs.pytorch.org/docs/)"
    )
    told = memory_told(torch.OutOfMemoryError(message))
    assert told is not None and told.endswith("Tried to allocate 50.00 MiB. " + message.split(". ")[2])
    assert memory_told(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")) == (
        "out of GPU memory: CUDA out of memory. Tried to allocate 1.00 GiB"
    )
