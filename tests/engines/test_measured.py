"""`train.engine = "auto"` goes by what was measured on this GPU, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import engines
from toolkit.engines import measured
from toolkit.engines.base import Choice, Has
from toolkit.engines.choice import choose_engine
from toolkit.engines.measured import Measured, Store, kind_of, load, record, signature, store
from toolkit.hardware import Gpu, Hardware
from toolkit.models.families import KNOWN
from toolkit.recipe.schema import LoraSection, ModelSection, Recipe, TrainSection

GIB = 2**30
CPU = Hardware(gpu=None, cpu="some CPU", cores=2, cpu_bf16=True, memory=8 * GIB)
H200 = Hardware(Gpu("NVIDIA H200", 140 * GIB, (9, 0)), "some CPU", 16, True, 100 * GIB)
T4 = Hardware(Gpu("Tesla T4", 15 * GIB, (7, 5)), "some CPU", 2, False, 8 * GIB)
NOW = {"torch": "2.13.0", "unsloth": "2026.10.9"}
BF16 = "16-bit bf16"
QWEN = signature(KNOWN["Qwen/Qwen3-1.7B"])


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "versions", lambda: NOW)


def row(engine: str, speed: float, **values: Any) -> Measured:
    made: dict[str, Any] = {
        "date": "2026-01-02 03:04:05",
        "card": "H200 141 GB",
        "arm": engine,
        "engine": engine,
        "model": "Qwen/Qwen3-1.7B",
        "shape": QWEN,
        "lengths": "real",
        "chats": 16,
        "batch": 4,
        "micro_batch": "fixed",
        "gradient_checkpointing": True,
        "lora_dropout": 0.05,
        "products": "fused" if engine == "compiled" else "separate",
        "tokens_per_second": float(speed),
        "versions": NOW,
    }
    return Measured(**(made | values))


def kept(*rows: Measured, gpu: str = "NVIDIA H200", kind: str = BF16) -> Store:
    return Store({gpu: {kind: list(rows)}})


def every(package: str) -> bool:
    return True


def none(package: str) -> bool:
    return False


def fastest_engine(asked: Recipe, hardware: Hardware, rows: Store, has: Has = every) -> Choice:
    """Where Unsloth is installed, unless it is said that nothing is."""
    return measured.fastest_engine(asked, hardware, rows, has)


def recipe(**train: Any) -> Recipe:
    return Recipe(train=TrainSection(**train))


PACKED = recipe(micro_batch="auto")
PADDED = (row("unsloth", 11_000), row("peft", 7_000))
AUTO = {"micro_batch": "auto", "batch": 4}
FAST = (row("compiled", 55_000, **AUTO), row("unsloth", 20_000, **AUTO))


def test_nothing_measured_is_as_it_was() -> None:
    for hardware, has in ((CPU, every), (H200, every), (H200, none)):
        assert fastest_engine(Recipe(), hardware, Store(), has) == choose_engine(Recipe(), hardware, has)


def test_the_fastest_is_taken_with_its_figure_and_date() -> None:
    choice = fastest_engine(Recipe(), H200, kept(row("unsloth", 6_000), row("peft", 7_249)))
    assert choice.value == "peft"
    for part in ("7,249 real tokens/s", "2026-01-02", "unsloth 6,000", "Qwen/Qwen3-1.7B", "NVIDIA H200"):
        assert part in choice.reason
    assert choice.note == ""


def test_the_planners_title_of_the_card_finds_it_too() -> None:
    here = Hardware(Gpu("H200 141 GB", 140 * GIB, (9, 0)), "", 1, True, GIB)
    assert fastest_engine(Recipe(), here, kept(*PADDED)).reason.startswith("the fastest measured")


@pytest.mark.parametrize(
    ("asked", "hardware", "rows"),
    [
        (Recipe(), T4, kept(*PADDED[1:], row("unsloth", 1))),  # another card
        (Recipe(model=ModelSection(load_in_4bit=True)), H200, kept(*PADDED[1:], row("unsloth", 1))),
        (recipe(bf16=False), H200, kept(*PADDED[1:], row("unsloth", 1))),
        (PACKED, H200, kept(*PADDED[1:], row("unsloth", 1))),  # padded figures say nothing of packed ones
        (recipe(gradient_checkpointing="unsloth"), H200, kept(*PADDED[1:], row("unsloth", 1))),
        (Recipe(), H200, kept(row("peft", 7_000), row("unsloth", 6_000, shape="another"))),  # not alike
        (Recipe(), H200, kept(row("peft", 7_000), row("unsloth", 6_000, lora_dropout=0.0))),
        (Recipe(), H200, kept(row("peft", 7_000), row("unsloth", 6_000, batch=16))),
        (Recipe(), H200, kept(row("peft", 7_000))),  # one alone is no comparison
    ],
)
def test_what_does_not_compare_changes_nothing(asked: Recipe, hardware: Hardware, rows: Store) -> None:
    choice = fastest_engine(asked, hardware, rows)
    assert choice.value == "unsloth"
    assert "the fastest measured" not in choice.reason


def test_engines_that_can_not_run_it_are_not_taken() -> None:
    rows = kept(row("unsloth", 11_000), row("peft", 7_000))
    assert fastest_engine(Recipe(), H200, rows, none).value == "peft"
    slow = kept(row("unsloth", 1), row("peft", 7_000), *FAST)
    for lora in (LoraSection(bias="all"), LoraSection(use_dora=True)):
        assert fastest_engine(Recipe(lora=lora, train=PACKED.train), H200, slow).value == "peft"
    for engine in ("peft", "unsloth"):
        choice = fastest_engine(recipe(engine=engine), H200, slow)
        assert (choice.value, choice.reason) == (engine, "the recipe asks for it")


def test_other_versions_are_left_out_and_it_is_said() -> None:
    old = {"torch": "2.11.0", "unsloth": "2026.10.7"}
    rows = kept(row("peft", 9_000, versions=old), row("unsloth", 6_000, versions=old))
    choice = fastest_engine(Recipe(), H200, rows)
    assert choice.value == "unsloth"
    assert "2 measured with other versions (torch 2.11.0, unsloth 2026.10.7) left out" in choice.reason
    other = row("peft", 7_000, versions=NOW | {"unsloth": "another"})  # not of Unsloth: its version does not matter
    choice = fastest_engine(Recipe(), H200, kept(other, row("unsloth", 6_000)))
    assert (choice.value, "left out" in choice.reason) == ("peft", False)


def test_a_faster_way_to_pack_is_named_and_not_taken() -> None:
    choice = fastest_engine(Recipe(), H200, kept(*PADDED, *FAST))
    assert choice.value == "unsloth"
    assert choice.note.count("\n") == 0
    for part in ("--set train.micro_batch=auto --set train.engine=compiled:", "55,000", "against 11,000"):
        assert part in choice.note
    assert fastest_engine(PACKED, H200, kept(*PADDED, *FAST)).value == "compiled"
    assert fastest_engine(PACKED, H200, kept(*PADDED, *FAST)).note == ""
    slow = (row("compiled", 5_000, **AUTO),)
    assert fastest_engine(Recipe(), H200, kept(*PADDED, *slow)).note == ""
    rounded = row("compiled", 90_000, products="float8", arm="compiled-float8", **AUTO)
    assert "float8" not in fastest_engine(Recipe(), H200, kept(*PADDED, *FAST, rounded)).note
    apart = row("compiled", 60_000, products="separate", gradient_checkpointing=False, **AUTO)
    note = fastest_engine(Recipe(), H200, kept(*PADDED, *FAST, apart)).note
    assert "--set train.gradient_checkpointing=false --set train.products=separate" in note


def test_the_advice_is_a_recipe(tmp_path: Path) -> None:
    from toolkit.recipe import load as load_recipe

    fused = row("compiled", 60_000, products="fused", gradient_checkpointing="auto", **AUTO)
    words = fastest_engine(Recipe(), H200, kept(*PADDED, fused)).note.partition(": ")[2].split(": ")[0].split()
    path = tmp_path / "x.toml"
    path.write_text("")
    train = load_recipe(path, [word for word in words if word != "--set"]).recipe.train
    assert (train.engine, train.micro_batch, train.products) == ("compiled", "auto", "auto")
    assert train.gradient_checkpointing == "auto"


def test_compiled_counts_with_the_products_that_it_would_have() -> None:
    apart = row("compiled", 55_000, **AUTO, products="separate", arm="compiled")
    fused = row("compiled", 60_000, **AUTO, arm="compiled-fused")
    float8 = row("compiled", 72_000, **AUTO, products="float8")
    unsloth = row("unsloth", 57_000, **AUTO)
    choice = fastest_engine(PACKED, H200, kept(apart, unsloth, fused, float8))
    assert choice.value == "compiled" and "60,000 real tokens/s" in choice.reason and not choice.note
    asked = recipe(micro_batch="auto", products="separate")
    choice = fastest_engine(asked, H200, kept(apart, unsloth, fused, float8))
    assert choice.value == "unsloth" and "compiled 55,000" in choice.reason
    assert "faster here: --set train.engine=compiled --set train.products=fused: 60,000 real tokens/s" in choice.note
    assert "against 57,000" in choice.note and "micro_batch" not in choice.note
    near = row("compiled", 57_500, **AUTO)
    assert not fastest_engine(asked, H200, kept(apart, unsloth, near, float8)).note
    four = Recipe(train=TrainSection(micro_batch="auto"), model=ModelSection(name="Qwen/Qwen3-1.7B", load_in_4bit=True))
    both = kept(apart, unsloth, kind="4-bit bf16")
    assert "compiled 55,000" in fastest_engine(four, H200, both).reason, "weights in 4 bits can't be fused"


def test_the_nearest_comparison_counts() -> None:
    small = {"shape": "another", "model": "small", "date": "2026-09-09 00:00:00"}
    rows = [row("unsloth", 1, **small), row("peft", 2, **small), *PADDED]
    assert fastest_engine(Recipe(), H200, kept(*rows)).value == "unsloth"
    assert fastest_engine(Recipe(model=ModelSection(name="./unknown")), H200, kept(*rows)).value == "peft"
    later = [row("unsloth", 6_000, date="2026-02-02"), *PADDED]
    assert fastest_engine(Recipe(), H200, kept(*later)).value == "peft", "the latest figure of each engine"


@given(st.dictionaries(st.sampled_from(["peft", "unsloth", "compiled"]), st.floats(1, 1e6), min_size=2))
def test_no_other_order_of_rows_gives_another_engine(speeds: dict[str, float]) -> None:
    rows = [row(engine, speed, **AUTO) for engine, speed in speeds.items()]
    forth, back = (fastest_engine(PACKED, H200, kept(*some)) for some in (rows, rows[::-1]))
    assert speeds[forth.value] == speeds[back.value] == max(speeds.values())


def test_what_is_kept_is_read_again_and_replaced_by_the_same_arm_only() -> None:
    assert load() == Store()
    record("NVIDIA H200", {BF16: PADDED})
    record("NVIDIA H200", {BF16: [row("peft", 7_500, date="2026-03-03")], "4-bit bf16": [row("peft", 5_000)]})
    record("Tesla T4", {"16-bit fp16": [row("peft", 900)]})
    rows = load()
    assert rows.problem == ""
    assert {r.engine: r.tokens_per_second for r in rows.on("NVIDIA H200", BF16)} == {"unsloth": 11_000, "peft": 7_500}
    assert [r.tokens_per_second for r in rows.on("NVIDIA H200", "4-bit bf16")] == [5_000]
    assert [r.tokens_per_second for r in rows.on("Tesla T4", "16-bit fp16")] == [900]
    record("NVIDIA H200", {BF16: [row("peft", 1, versions={"torch": "3"})]})
    assert len(load().on("NVIDIA H200", BF16)) == 3, "another version is another thing"


GOOD = row("peft", 1).model_dump()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "",
        "[]",
        '{"NVIDIA H200": 3}',
        json.dumps({"NVIDIA H200": {BF16: [{**GOOD, "tokens_per_second": -1}]}}),
        json.dumps({"NVIDIA H200": {BF16: [{**GOOD, "tokens_per_second": float("nan")}]}}),
        json.dumps({"NVIDIA H200": {BF16: [{**GOOD, "engine": "warp"}]}}),
        json.dumps({"NVIDIA H200": {BF16: [{key: value for key, value in GOOD.items() if key != "date"}]}}),
    ],
)
def test_a_broken_file_is_said_and_gone_past(text: str) -> None:
    store().parent.mkdir(parents=True, exist_ok=True)
    store().write_text(text)
    choice = fastest_engine(Recipe(), H200, load())
    assert choice.value == "unsloth"
    assert str(store()) in choice.note and "can't be used" in choice.note
    warning = record("NVIDIA H200", {BF16: PADDED})
    aside = store().with_suffix(".unreadable.json")
    assert str(aside) in warning and aside.read_text() == text
    assert not load().problem and len(load().on("NVIDIA H200", BF16)) == 2


def test_a_newer_toolkits_file_is_read() -> None:
    store().parent.mkdir(parents=True, exist_ok=True)
    store().write_text(json.dumps({"NVIDIA H200": {BF16: [{**GOOD, "more": 1}]}}))
    assert load().on("NVIDIA H200", BF16) == [row("peft", 1)]


def test_kinds_of_runs() -> None:
    assert kind_of(Recipe(), "bf16") == BF16
    assert kind_of(Recipe(), "fp32") == "32-bit fp32"
    assert kind_of(Recipe(model=ModelSection(load_in_4bit=True)), "fp16") == "4-bit fp16"


def test_a_run_goes_by_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    record("NVIDIA H200", {BF16: (*FAST, row("peft", 9_000, **AUTO))})
    engine, precision = engines.choose(PACKED, H200)
    assert (engine.value, precision.value) == ("compiled", "bf16")
    assert "55,000" in engine.reason
