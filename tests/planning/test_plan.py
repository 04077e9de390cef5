"""The plan as a whole: the chapter's figures, fits, advice, choices with their reasons, and what is imported for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from toolkit import models
from toolkit.errors import DataError, EngineError
from toolkit.hardware import Gpu
from toolkit.planning import plan as plan_module
from toolkit.planning.advice import same_update
from toolkit.planning.budget import budget_for
from toolkit.planning.cards import CARDS, Card, SeenGpu, cpu_card
from toolkit.planning.lengths import Lengths, lengths_of
from toolkit.planning.plan import Plan, make_plan, plan_recipe
from toolkit.planning.setup import setup_on
from toolkit.planning.show import plot, show
from toolkit.recipe import load
from toolkit.recipe.schema import Recipe
from toolkit.terminal import new_console

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token tables, no cached models, no GPU."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(plan_module, "seen_gpus", list)


def shown(plan: Plan, encoding: str = "utf-8") -> str:
    file = TextIOWrapper(BytesIO(), encoding=encoding)
    show(plan, new_console(file=file, width=40))
    file.seek(0)
    return file.read()


def planned(name: str = "tools", gpu: str = "t4", *overrides: str, price: float | None = None) -> Plan:
    return plan_recipe(load(ROOT / "recipes" / f"{name}.toml", overrides), gpu, price)


PADDED = ("train.micro_batch=fixed", "train.gradient_checkpointing=true")


def test_the_chapters_run_on_a_t4() -> None:
    plan = planned(price=0.60)
    assert (plan.shape.parameters, plan.trainable, plan.updates.total) == (1_720_574_976, 17_432_576, 2_943)
    assert plan.fits
    assert 4 < planned("tools", "t4", *PADDED).memory.total / 2**30 < 7
    assert plan.least is not None and plan.least[1] == 2048
    assert 4 < plan.least[0] / 2**30 < 5 < plan.memory.total / 2**30
    assert plan.full.total > plan.card.memory, "all weights would not fit"
    assert plan.precision.value == "fp16"
    assert "no bfloat16" in plan.precision.reason
    assert (plan.engine.value, plan.fast_path.value) == ("unsloth", "on")
    text = shown(plan)
    for part in (
        *("1,720,574,976 parameters", "17,432,576 trained", "2,943 of 4 x 4 = 16 chats (981 an epoch, 3 epochs)"),
        *("28 QKV, 28 O, 28 MLP of 28 layers fused", "fits in 14.56 GiB", "predicted at $0.60 an hour", "⣿"),
        *("warm-up over 295 updates", "estimated from the text of the first chats"),
        "GiB predicted at the least, slower: --set train.micro_batch=2048 --set train.gradient_checkpointing=true",
    ):
        assert part in text, text
    assert plan.time is not None
    assert plan.cost == pytest.approx(plan.time.total / 3600 * 0.60)


def test_no_line_is_wrapped_and_plain_terminals_get_plain_characters() -> None:
    plan = planned()
    assert len(shown(plan).splitlines()) == len(shown(plan, "ascii").splitlines()) < 35
    shown(plan, "ascii").encode("ascii")


@pytest.mark.parametrize(
    ("overrides", "value", "reason"),
    [
        ((), "on", "28 QKV, 28 O, 28 MLP of 28 layers fused; lora_dropout = 0.05 runs inside the kernels"),
        (("lora.lora_dropout=0",), "on", "28 QKV, 28 O, 28 MLP of 28 layers fused"),
        (
            ('lora.target_modules=["q_proj", "k_proj", "v_proj"]', "lora.lora_dropout=0"),
            "on",
            "28 QKV, 0 O, 0 MLP of 28",
        ),
        (('lora.target_modules=["q_proj", "v_proj"]',), "off", "0 QKV, 0 O, 0 MLP of 28 layers"),
        (("model.name=Qwen/Qwen2.5-1.5B",), "on", "0 QKV, 28 O, 28 MLP of 28 layers"),  # biases in QKV
        (("train.engine=peft",), "off", "only the unsloth engine has one"),
        (("lora.bias=all",), "off", "only the unsloth engine has one"),
    ],
)
def test_fast_path(overrides: tuple[str, ...], value: str, reason: str) -> None:
    plan = planned("tools", "l4", *overrides)
    assert plan.fast_path.value == value
    assert reason in plan.fast_path.reason


def test_what_a_card_can_not_run() -> None:
    with pytest.raises(EngineError, match=r"T4 16 GB .* has no bfloat16"):
        planned("tools", "t4", "train.bf16=true")
    with pytest.raises(EngineError, match=r"compute capability 7\.0, P100 16 GB has 6\.0"):
        planned("tools", "p100", "train.engine=unsloth")
    assert "compute capability" in planned("tools", "p100").engine.reason
    with pytest.raises(EngineError, match="needs a CUDA GPU"):
        planned("tools-t4", "cpu")


def small(gib: float) -> Card:
    return Card("small", "small card", gib, (8, 0), 100, 10, 500)


def uniform(longest: int = 2048) -> Lengths:
    return Lengths(1000, np.linspace(100, longest, 500).astype(np.int64), 1.0, 0.1, "test", True)


@pytest.mark.parametrize("gib", [1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 10, 20, 40])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_advice_makes_it_fit(tmp_path: Path, gib: float, checkpointing: bool) -> None:
    text = "[train]\ngradient_checkpointing = " + str(checkpointing).lower()
    path = tmp_path / "x.toml"
    path.write_text(text)
    plan = make_plan(load(path).recipe, small(gib), uniform())
    if plan.fits:
        assert not plan.advice
        assert plan.largest >= 4
    elif plan.advice:
        changed = load(path, plan.advice).recipe
        assert changed.chats_per_update == 16, "the update must stay the same"
        assert make_plan(changed, small(gib), uniform(changed.train.max_length)).fits
        assert "--set " + plan.advice[0] in shown(plan)
    else:
        assert gib < 3
        assert "no setting makes it fit" in shown(plan)


def test_the_largest_micro_batch_is_the_largest() -> None:
    plan = planned("tools", "t4", *PADDED)
    for chats, fits in ((plan.largest, True), (plan.largest + 1, False)):
        assert planned("tools", "t4", *PADDED, f"train.per_device_train_batch_size={chats}").fits == fits


@pytest.mark.parametrize(("largest", "cut"), [(1, (1, 16)), (3, (2, 8)), (4, (4, 4)), (15, (8, 2)), (99, (16, 1))])
def test_pieces_of_the_same_update(largest: int, cut: tuple[int, int]) -> None:
    assert same_update(Recipe(), largest) == cut


@pytest.mark.parametrize("gpu", ["t4", "l4", "h200"])
def test_packing_is_advised_with_the_time_that_it_is_predicted_to_take(gpu: str) -> None:
    plan = planned("tools", gpu, *PADDED)
    assert plan.time is not None and plan.packed_seconds is not None
    packed = planned("tools", gpu, *(f"train.{key}={value}" for key, value in plan_module.PACKED.items()))
    assert packed.time is not None and packed.fits
    assert plan.packed_seconds == packed.time.total < 0.9 * plan.time.total
    assert "--set train.micro_batch=auto --set train.gradient_checkpointing=auto" in shown(plan)
    assert packed.packed_seconds is None
    assert "without padding: --set" not in shown(packed)


def test_packing_is_not_advised_on_a_cpu() -> None:
    assert planned("quickstart", "cpu").packed_seconds is None


def test_the_card_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_these_cores", lambda: cpu_card(2, 64 * 2**30, "idle"))
    loaded = load(ROOT / "recipes" / "tools.toml", PADDED)
    plan = plan_recipe(loaded)
    assert plan.card is CARDS["t4"]
    assert "no GPU found here" in plan.card_reason
    assert "hours" in plan.card_reason
    monkeypatch.setattr(plan_module, "seen_gpus", lambda: [SeenGpu("Some GPU 9", 8 * 2**30, (8, 0), "1")])
    plan = plan_recipe(loaded)
    assert plan.card.title == "Some GPU 9"
    assert plan.time is None
    assert plan.cost is None
    assert "not predicted" in shown(plan)


def test_on_the_cpu() -> None:
    plan = planned("quickstart", "cpu")
    assert (plan.engine.value, plan.shape.parameters) == ("peft", 134_515_008)
    assert "CUDA context" not in shown(plan)


def test_without_a_gpu_a_small_recipe_is_planned_for_these_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_these_cores", lambda: cpu_card(2, 64 * 2**30, "idle"))
    plan = plan_recipe(load(ROOT / "recipes" / "quickstart.toml"))
    assert plan.card.name == "cpu"
    assert "no GPU found here" in plan.card_reason and "--gpu NAME" in plan.card_reason
    assert plan.time is not None and plan.time.total < plan_module.A_DAY
    needs = plan_recipe(load(ROOT / "recipes" / "quickstart.toml", ("train.fp16=true", "train.bf16=false")))
    assert needs.card is CARDS["t4"] and "only a GPU" in needs.card_reason


def test_without_a_gpu_what_does_not_fit_these_cores_is_planned_for_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_these_cores", lambda: cpu_card(2, 2**30, "small"))
    plan = plan_recipe(load(ROOT / "recipes" / "quickstart.toml"))
    assert plan.card is CARDS["t4"] and "does not fit the memory that is free" in plan.card_reason


def test_advice_where_less_memory_is_free_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_these_cores", lambda: cpu_card(2, 12 * 2**30, "busy"))
    monkeypatch.setattr(plan_module, "_all_memory", lambda card: 24 * 2**30)
    plan = planned("tools", "cpu")
    assert not plan.fits and plan.advice == ("train.gradient_checkpointing=true",)
    assert planned("tools", "cpu", *plan.advice).fits


def test_the_token_table_is_used_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = SimpleNamespace(n_chats=100, lengths=np.full(150, 640), trained=np.full(150, 64))
    calls: list[Any] = []
    monkeypatch.setattr(models, "find", lambda model: tmp_path)
    monkeypatch.setattr("toolkit.planning.lengths.find_table", lambda recipe, folder: calls.append(folder) or table)
    lengths = lengths_of(Recipe())
    assert calls == [tmp_path]
    assert (lengths.chats, lengths.mean, lengths.longest, lengths.trained) == (100, 960, 640, 0.1)
    assert (lengths.rows(4), lengths.expected_width(4)) == (6, 640)
    assert lengths.measured


def test_the_expected_width_is_that_of_drawn_micro_batches() -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(10, 2000, 700)
    drawn = random.choice(tokens, (20_000, 5)).max(axis=1).mean()
    assert Lengths(700, tokens, 1.0, 0.1, "", True).expected_width(5) == pytest.approx(drawn, rel=0.01)


def test_chats_without_a_table(tmp_path: Path) -> None:
    def counted(source: dict[str, Any], **sections: Any) -> int:
        return lengths_of(Recipe.model_validate({"data": {"sources": [source]}, **sections})).chats

    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"prompt": "2 and 2?", "completion": "4"}\n' * 1000 + "\n")
    assert counted({"source": "builtin:tools", "size": 400}) == 400
    assert counted({"source": "builtin:tools", "size": 400, "weight": 0.5}) == 200
    assert counted({"source": "builtin:tools", "limit": 30}) == 30
    assert counted({"source": str(chats)}) == 800, "200 are held out"
    assert counted({"source": str(chats)}, eval={"holdout": 0.1}) == 900
    assert counted({"source": "org/data"}, train={"max_steps": 5}) == 80
    with pytest.raises(DataError, match=r"chat\.jsonl: no such file, did you mean chats\.jsonl\?"):
        counted({"source": str(tmp_path / "chat.jsonl")})
    with pytest.raises(DataError, match=r"how many chats org/data has is not known .* run `toolkit data build`"):
        counted({"source": "org/data"})


def test_lengths_that_nobody_measured_are_not_called_the_longest(tmp_path: Path) -> None:
    plan = planned()
    assert (
        "none longer than train.max_length = 2,048" in shown(plan) and "longest" not in shown(plan).split("updates")[0]
    )
    known = replace(plan, lengths=Lengths(100, np.array([10, 300]), 1.0, 0.1, "token table", True))
    assert "longest 300" in shown(known)


def test_rows_that_cant_be_used_are_told_of(tmp_path: Path) -> None:
    good = '{"prompt": "2 and 2?", "completion": "4"}\n'
    path = tmp_path / "x.jsonl"
    text = f"[[data.sources]]\nsource = {json.dumps(str(path))}\n[eval]\nholdout = 0.05\n"
    (tmp_path / "x.toml").write_text(text)
    path.write_text(good * 3 + '{"a": 1}\n' + good * 96)
    told = shown(plan_recipe(load(tmp_path / "x.toml"), "t4"))
    assert f"of the first rows, 1 of 100 rows can't be used (1.00%): {path}:4: no known format: found a" in told
    assert "eval.holdout = 0.05 holds out 5 chats, too few to say" in told and "as eval.holdout = 12 or more" in told
    path.write_text('{"a": 1}\n' * 3)
    with pytest.raises(DataError) as error:
        plan_recipe(load(tmp_path / "x.toml"), "t4")
    first, last = error.value.problems
    assert str(first).startswith(f"{path}:1: no known format") and "nothing to train on" in last.message


def test_small_things() -> None:
    assert plot([0, 0, 1, 1]) == ["⠀⣿"] * 4


def test_a_plan_needs_no_heavy_imports(tmp_path: Path) -> None:
    code = """
import json, sys
sys.argv = ["toolkit", "plan", "recipes/tools.toml", "--gpu", "l4", "--price", "1"]
from toolkit.commands.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = ("torch", "transformers", "trl", "peft", "datasets", "pyarrow", "tokenizers", "huggingface_hub")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "TOOLKIT_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


PACKED = ("train.micro_batch=auto", "train.gradient_checkpointing=auto")
IN_PIECES = ("train.micro_batch=3000", "train.gradient_checkpointing=true")


@pytest.mark.parametrize("gpu", ["t4", "l4", "h200"])
@pytest.mark.parametrize("overrides", [PACKED, (*PACKED, "train.engine=compiled"), IN_PIECES])
def test_packed_micro_batches_are_planned_as_the_trainer_cuts_them(gpu: str, overrides: tuple[str, ...]) -> None:
    plan = planned("tools", gpu, *overrides)
    card = Gpu(plan.card.title, plan.card.memory, plan.card.capability)
    setup = setup_on(plan.recipe, plan.shape, plan.engine.value, plan.precision.value, card)
    assert plan.budget == budget_for(plan.recipe, setup, plan.card.memory, plan.lengths)
    assert plan.budget is not None
    assert plan.fits
    assert plan.time is not None and plan.time.padding == pytest.approx(1, abs=1e-3)
    text = shown(plan)
    assert f"packing     {plan.budget.tokens:,} tokens a micro-batch: " in text
    assert f"for {plan.budget.tokens:,} packed tokens" in text
    assert ("recompute" in text) == (overrides[-1] != "train.gradient_checkpointing=true")


def test_what_micro_batches_are_filled_up_with_takes_memory() -> None:
    tokens = [planned("tools", "h200", *PACKED, f"train.pad_to_multiple_of={most}").memory for most in (64, 2048)]
    wide = planned("tools", "h200", *PACKED, "train.max_length=1000000", "train.pad_to_multiple_of=1000000")
    assert tokens[0].total <= tokens[1].total < wide.memory.total and not wide.fits


def test_packing_is_planned_to_be_faster() -> None:
    times = [planned("tools", "t4", *overrides).time for overrides in (PADDED, PACKED)]
    assert times[0] is not None and times[1] is not None
    assert times[1].update < times[0].update


def test_advice_for_packed_chats_makes_them_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[train]\nmicro_batch = 8192\ngradient_checkpointing = false\n")
    plan = make_plan(load(path).recipe, small(6), uniform())
    assert not plan.fits and "train.micro_batch=auto" in plan.advice
    changed = load(path, plan.advice).recipe
    assert make_plan(changed, small(6), uniform(changed.train.max_length)).fits


@pytest.mark.parametrize(("steps", "times"), [('"eval"', 31), ("0", 2), ("100", 31), ("490", 7), ("5000", 2)], ids=str)
def test_decoding_held_out_chats_takes_its_time(steps: str, times: int) -> None:
    """Qwen3-1.7B's 200 chats on a T4: under two minutes each time."""
    decoding = planned("tools", "t4", "eval.generate=200", f"eval.generate_steps={steps}").time.decoding  # type: ignore[union-attr]
    once = planned("tools", "t4", "eval.generate=200", "eval.generate_steps=0").time.decoding / 2  # type: ignore[union-attr]
    assert decoding == pytest.approx(times * once) and 5 < once < 120
    assert planned("tools", "t4", "eval.generate=0").time.decoding == 0  # type: ignore[union-attr]


def test_a_time_budget_holds_what_fits() -> None:
    whole = planned("tools", "t4")
    assert whole.time is not None and whole.time.total > 3600
    answered = planned("tools", "t4", "train.max_minutes=30").time
    assert answered is not None and answered.decoding and answered.total <= 1800
    short = planned("tools", "t4", "train.max_minutes=30", "eval.generate=0")
    assert short.time is not None
    assert short.updates.planned == whole.updates.total and short.updates.warmup == -(-short.updates.total // 10)
    # one update more, and with it an evaluation where the last one was at the end
    more = planned(
        "tools", "t4", "train.max_minutes=30", "eval.generate=0", f"train.fitted_steps={short.updates.total + 1}"
    )
    assert more.time is not None and 1700 < short.time.total <= 1800 < more.time.total
    text = shown(short)
    assert f"{short.updates.total:,} of 2,943 updates fit into train.max_minutes = 30 (predicted)" in text
    known = planned("tools", "t4", "train.max_minutes=30", "train.fitted_steps=100")
    assert (known.updates.total, known.updates.planned) == (100, 2_943)
    assert "100 of 2,943 updates, as an earlier run was fitted to train.max_minutes = 30" in shown(known)
    tight = planned("tools", "t4", "train.max_minutes=0.1")
    assert tight.time is not None and tight.time.total > 6 and tight.updates.total == 2
    assert "2 of 2,943 updates take longer than train.max_minutes = 0.1 (predicted)" in shown(tight)
    assert tight.time.evaluation > 6, "which is why"
    roomy = planned("tools", "t4", "train.max_minutes=6000")
    assert roomy.updates == whole.updates and "all updates fit into train.max_minutes = 6000" in shown(roomy)
    assert "max_minutes" not in shown(whole)


def test_an_export_and_its_check_take_their_time() -> None:
    """Fitted to what was measured, 154 to 170 s for 4 chats of Qwen3-1.7B beside an H200, and bounded as a run."""
    none, four, many = (
        planned("tools", "h200", f"export.gguf={types}", f"export.chats={chats}").time
        for types, chats in (("[]", 4), ('["q8_0"]', 4), ('["q8_0", "q4_k_m"]', 400))
    )
    assert none is not None and four is not None and many is not None
    assert none.export == 0 and none.total == none.trained
    assert 120 < four.export < 220 and four.total == four.trained + four.export
    assert 600 < many.export < 720, "the comparison ends after export.max_minutes = 10"
    text = shown(planned("tools", "h200", 'export.gguf=["q8_0"]', "export.max_minutes=1"))
    assert " of decoding + 1 min " in text and "of export and its check" in text
    assert "export" not in shown(planned("tools", "h200", "export.gguf=[]")).partition("\ncost")[0]


def test_a_time_budget_is_not_for_the_export() -> None:
    plan = planned("tools", "t4", "train.max_minutes=30", 'export.gguf=["q8_0"]')
    assert plan.time is not None and plan.time.trained <= 1800 < plan.time.total
    assert "fit into train.max_minutes = 30 (predicted)" in shown(plan)
