from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding import PROMPTS, adapted, by_generate, enliven, load_lively
from toolkit.inference.decode import decode
from toolkit.inference.meter import Meter

torch = pytest.importorskip("torch")
continuous = pytest.importorskip("toolkit.inference.continuous")

Ids = list[int]
Way = Any  # continuous.Schedule, which is there with torch only
LOOKED_AT_LATER = continuous.Schedule(every=4, refill=2, shrinks=False)  # as on a GPU, but for the recording
WAYS = {
    "cpu": continuous.Schedule(every=1, refill=1, shrinks=True),
    "looked at later": LOOKED_AT_LATER,
    "recorded": continuous.Schedule(every=4, refill=2, shrinks=False, record=lambda work: work),
}


@functools.cache
def model_of(family: str) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return load_lively(Path(folder), family)[0]


def run(
    model: Any,
    prompts: Sequence[Ids],
    rows: int,
    way: Way | None = None,
    *,
    most: int = 12,
    stop_ids: Sequence[int] = (0,),
    temperature: float = 0.0,
) -> list[Ids]:
    """New tokens of each prompt; prompts need not be sorted."""
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    made: dict[int, Ids] = {}
    with pytest.MonkeyPatch.context() as patch, Meter(len(prompts), shown=False) as meter:
        if way is not None:
            patch.setattr(continuous, "schedule_of", lambda model, rows: way)
        for number, row in continuous.decode_continuously(
            model,
            [list(prompts[index]) for index in order],
            rows,
            max_new_tokens=most,
            stop_ids=stop_ids,
            temperature=temperature,
            meter=meter,
        ):
            assert order[number] not in made
            made[order[number]] = row
    return [made[index] for index in range(len(prompts))]


def prompts_of(*lengths: int) -> list[Ids]:
    return [[(7 * length + 3 * place) % 380 + 5 for place in range(length)] for length in lengths]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("way", WAYS)
def test_rows_give_what_generate_gives_each_prompt_alone(family: str, way: str) -> None:
    model = model_of(family)
    prompts = prompts_of(9, 30, 1, 17, 2, 28, 4)
    full = [by_generate(model, ids, 12, [0]) for ids in prompts]
    assert len({tuple(row) for row in full}) == len(prompts), "texts should differ by prompt"
    stops = sorted({row[place] for row, place in zip(full, (2, 5, 0, 9), strict=False)})
    alone = [by_generate(model, ids, 12, stops) for ids in prompts]
    assert len({len(row) for row in alone}) > 2, "rows should stop at different steps"
    for rows in (1, 2, 3, 7):
        assert run(model, prompts, rows, WAYS[way], stop_ids=stops) == alone


@settings(max_examples=25)
@given(
    prompts=st.lists(st.lists(st.integers(3, 380), min_size=1, max_size=40), min_size=1, max_size=6),
    rows=st.integers(1, 6),
    most=st.integers(1, 10),
    stop_ids=st.lists(st.integers(0, 380), min_size=1, max_size=60),
    way=st.sampled_from(sorted(WAYS)),
)
def test_whatever_the_lengths(prompts: list[Ids], rows: int, most: int, stop_ids: Ids, way: str) -> None:
    model = model_of("llama")
    expected = [by_generate(model, ids, most, stop_ids) for ids in prompts]
    assert run(model, prompts, min(rows, len(prompts)), WAYS[way], most=most, stop_ids=stop_ids) == expected


@pytest.mark.parametrize("way", WAYS)
def test_adapters_are_decoded_with(way: str) -> None:
    model, prompts = model_of("qwen3"), prompts_of(9, 30, 1, 17)
    peft = adapted(model)
    expected = [by_generate(peft.get_base_model(), ids, 12, [0]) for ids in prompts]
    assert run(peft.get_base_model(), prompts, 3, WAYS[way]) == expected != run(model, prompts, 3)


def test_chats_longer_than_the_context() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16,
        )
    ).eval()
    enliven(model)
    prompts = prompts_of(40, 3, 14)
    assert run(model, prompts, 2, most=20) == [by_generate(model, ids, 20, [0]) for ids in prompts]


@pytest.mark.parametrize("at_once", [1, 20, 2048])
def test_what_is_read_is_kept_in_its_row(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    monkeypatch.setitem(continuous.AT_ONCE, "cpu", at_once)
    prompts, places = prompts_of(6, 4, 3, 1), [3, 0, 2, 4]
    rows = continuous.Rows(model, 5, 9, LOOKED_AT_LATER)
    rows.read(places, prompts)
    assert rows.tokens[places, 0].tolist() == [ids[-1] for ids in prompts]
    assert rows.places.positions[places, 0].tolist() == [len(ids) - 1 for ids in prompts]
    for row, ids in zip(places[:3], prompts, strict=False):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([ids[:-1]]), use_cache=True).past_key_values
        for layer, own in zip(rows.cache.layers, alone.layers, strict=True):
            for which in ("keys", "values"):
                found, wanted = getattr(layer, which)[row], getattr(own, which)[0]
                assert torch.allclose(found[:, : len(ids) - 1], wanted, atol=1e-5)


def test_rows_that_have_ended_stay_within_their_places() -> None:
    rows = continuous.Rows(model_of("llama"), 2, 6, LOOKED_AT_LATER)
    rows.read([0, 1], prompts_of(5, 2))
    made = rows.steps(9, 6)
    assert len(made) == 9 and rows.places.positions[:, 0].tolist() == [5, 5]


def test_on_a_cpu_rows_that_have_ended_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = model_of("llama"), prompts_of(*range(2, 17))
    full = [by_generate(model, ids, 24, [0]) for ids in prompts]
    stops = sorted({row[2] for row in full[:8]})
    kept: list[int] = []
    keep = continuous.Rows.keep
    monkeypatch.setattr(continuous.Rows, "keep", lambda self, rows: (kept.append(len(rows)), keep(self, rows))[1])
    alone = [by_generate(model, ids, 24, stops) for ids in prompts]
    assert run(model, prompts, 15, most=24, stop_ids=stops) == alone
    assert kept == sorted(kept, reverse=True) and 0 < kept[0] <= 7


def test_a_row_that_is_free_takes_the_next_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = model_of("llama"), prompts_of(20, 18, 16, 14, 12, 10)
    full = [by_generate(model, ids, 16, [0]) for ids in prompts]
    stops = [full[1][1]]  # the second is done early
    read: list[int] = []
    original = continuous.Rows.read
    monkeypatch.setattr(
        continuous.Rows, "read", lambda self, rows, ids: (read.append(len(rows)), original(self, rows, ids))[1]
    )
    alone = [by_generate(model, ids, 16, stops) for ids in prompts]
    assert run(model, prompts, 3, most=16, stop_ids=stops) == alone
    assert read[:2] == [3, 1] and sum(read) == len(prompts)
    read.clear()
    assert run(model, prompts, 4, LOOKED_AT_LATER, most=16, stop_ids=stops) == alone
    assert read[0] == 4 and sum(read) == len(prompts)


def test_a_recording_that_fails_or_gives_other_tokens_is_told_and_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    model, prompts = model_of("llama"), prompts_of(9, 30, 1, 17)
    expected = [by_generate(model, ids, 12, [0]) for ids in prompts]

    def fails(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    def wrong(work: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    for record, said in ((fails, "not permitted when stream is capturing"), (wrong, "a replay gave other tokens")):
        way = continuous.Schedule(every=4, refill=2, shrinks=False, record=record)
        assert run(model, prompts, 3, way) == expected
        rows = continuous.Rows(model, 1, 20, way)
        rows.read([0], prompts_of(3))
        rows.steps(2, 5)
        assert said in rows.problem and "more" not in rows.problem and rows.replay is None


def test_sampling_follows_the_chances() -> None:
    model = model_of("llama")
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1] / 2.0
    wanted = scores.softmax(-1)
    torch.manual_seed(0)
    drawn = [row[0] for row in run(model, [[5, 6, 7]] * 2000, 500, most=1, temperature=2.0)]
    counts = torch.bincount(torch.tensor(drawn), minlength=len(wanted)) / len(drawn)
    assert float((counts - wanted).abs().sum()) < float(wanted.sqrt().sum()) * 2 / len(drawn) ** 0.5


def tiny_mistral(**changes: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**shape | changes)).eval()
    enliven(model)
    return model


def test_plain_is_what_a_model_can_do_and_not_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("llama", "qwen3"):
        assert continuous.is_plain(model_of(family))
        assert continuous.is_plain(adapted(model_of(family)).get_base_model())
    assert continuous.is_plain(tiny_mistral(sliding_window=None))
    assert not continuous.is_plain(tiny_mistral(sliding_window=8))
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    assert not continuous.is_plain(tiny_mistral(sliding_window=None, rope_parameters=dynamic))
    eager = tiny_mistral(sliding_window=None)
    eager.set_attn_implementation("eager")
    assert not continuous.is_plain(eager)
    attention = type(model_of("llama").model.layers[0].self_attn)
    monkeypatch.setattr(attention, "forward", lambda self, *args, **kwargs: None)  # as Unsloth replaces it
    assert not continuous.is_plain(model_of("llama"))


def test_other_models_are_decoded_by_their_own_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_lively(tmp_path, "llama")
    window = tiny_mistral(sliding_window=8, vocab_size=len(tokenizer))
    settings: dict[str, Any] = {"max_new_tokens": 12, "batch_size": 2, "stop_ids": [tokenizer.eos_token_id]}
    for one in (window, adapted(window)):
        base = one.get_base_model() if one is not window else one
        stop = tokenizer.eos_token_id
        rows = [by_generate(base, tokenizer(text)["input_ids"], 12, [stop]) for text in PROMPTS]
        made = decode(one, tokenizer, PROMPTS, **settings, progress=False)
        assert [answer.text for answer in made] == [
            tokenizer.decode([token for token in row if token != stop]) for row in rows
        ]
    plain = decode(model, tokenizer, PROMPTS, **settings, progress=False)
    monkeypatch.setattr(continuous, "is_plain", lambda model: False)
    assert decode(model, tokenizer, PROMPTS, **settings) == plain
    assert "own generate" not in capsys.readouterr().out  # nothing is slower for it on a CPU


def test_prompts_of_unlike_length_have_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load_lively(tmp_path, "llama")
    made: list[tuple[int, int]] = []
    original = continuous.Rows.__init__

    def noted(self: Any, model: Any, count: int, tokens: int, *rest: Any) -> None:
        made.append((count, tokens))
        original(self, model, count, tokens, *rest)

    monkeypatch.setattr(continuous.Rows, "__init__", noted)
    prompts = ["plus " * 60, *["plus"] * 3]
    settings: dict[str, Any] = {"max_new_tokens": 4, "stop_ids": [tokenizer.eos_token_id], "progress": False}
    decode(model, tokenizer, prompts, batch_size=8, **settings)
    long, short = (len(tokenizer(text)["input_ids"]) for text in prompts[:2])
    assert made == [(1, long + 3), (3, short + 3)]
    made.clear()
    monkeypatch.setattr(continuous, "CACHE_BYTES", 1)
    decode(model, tokenizer, prompts, batch_size=8, **settings)
    assert made == [(1, long + 3), (1, short + 3)]
