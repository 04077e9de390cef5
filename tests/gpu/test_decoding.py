"""Decoding on a CUDA GPU: a recorded step gives what the same kernels launched one by one give, and what transformers'
own loop gives each prompt alone.

python -m pytest tests/gpu/test_decoding.py
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.decoding import PROMPTS, adapted, by_generate, enliven, load_lively
from toolkit.inference.decode import Generated, decode

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
MANY = [f"{prompt}{' please' * (number % 7)} {number}" for number in range(8) for prompt in PROMPTS]
MOST = 24


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny random model in float32 on the GPU, of heads as large as real ones, and its tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    model, tokenizer = load_lively(folder, request.param, hidden_size=256, head_dim=64)
    return model.cuda(), tokenizer


def answers(model: Any, tokenizer: Any, size: int = 16, **changes: Any) -> list[Generated]:
    stops = [tokenizer.eos_token_id, *range(40, 60)]  # that rows stop at different steps
    settings: dict[str, Any] = {"max_new_tokens": MOST, "batch_size": size, "stop_ids": stops, "progress": False}
    return decode(model, tokenizer, MANY, **settings | changes)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every step that is replayed."""
    from toolkit.inference import continuous

    counted: list[int] = []
    original = continuous.record

    def record(work: Any) -> Any:
        replay = original(work)
        return lambda: (counted.append(1), replay())

    monkeypatch.setattr(continuous, "record", record)
    return counted


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_replays_give_what_generate_gives_each_prompt_alone(
    loaded: tuple[Any, Any], size: int, replays: list[int]
) -> None:
    model, tokenizer = loaded
    stops = [tokenizer.eos_token_id, *range(40, 60)]
    made = answers(model, tokenizer, size)
    assert len(replays) > MOST
    lengths = set()
    for prompt, one in zip(MANY, made, strict=True):
        row = by_generate(model, tokenizer(prompt)["input_ids"], MOST, stops)
        text = tokenizer.decode(row[:-1] if row[-1] in stops else row)
        assert (one.text, one.new_tokens) == (text, len(row))
        lengths.add(len(row))
    assert len(lengths) > 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("adapter", [False, True])
def test_replays_give_what_the_kernels_give_one_by_one(
    loaded: tuple[Any, Any], dtype: str, adapter: bool, replays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import copy

    model = copy.deepcopy(loaded[0]).to(getattr(torch, dtype))
    decoded = adapted(model) if adapter else model
    base = decoded.get_base_model() if adapter else model
    with monkeypatch.context() as patch:
        patch.setattr(base, "_can_compile_fullgraph", False)
        one_by_one = answers(decoded, loaded[1])
    assert not replays
    assert answers(decoded, loaded[1]) == one_by_one
    assert replays


def test_sampling_is_repeatable(loaded: tuple[Any, Any], replays: list[int]) -> None:
    torch.cuda.manual_seed(3)
    expected = torch.rand(1, device="cuda")
    torch.cuda.manual_seed(3)
    first = answers(*loaded, temperature=1.5, seed=1)
    assert torch.equal(torch.rand(1, device="cuda"), expected)
    assert replays
    assert first == answers(*loaded, temperature=1.5, seed=1)
    assert first != answers(*loaded, temperature=1.5, seed=2)


def test_steps_draw_new_numbers_each_time(loaded: tuple[Any, Any], replays: list[int]) -> None:
    """A replay must not repeat the draw that was recorded: chats that begin alike go different ways."""
    model, tokenizer = loaded
    settings: dict[str, Any] = {"max_new_tokens": 8, "batch_size": 4, "stop_ids": [0], "progress": False}
    made = decode(model, tokenizer, ["plus"] * 64, temperature=3.0, seed=1, **settings)
    assert len({one.text for one in made}) > 32


def test_memory_is_given_back_and_training_goes_on(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    answers(model, tokenizer)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    answers(model, tokenizer, 32)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 1 << 20
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"].cuda()
    model.train()
    try:
        model(input_ids=ids, labels=ids).loss.backward()
        assert all(weight.grad is not None for weight in model.parameters())
    finally:
        model.eval()
        model.zero_grad()


def test_too_little_memory_halves_the_batch(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.inference import continuous

    plain = answers(*loaded)
    original = continuous.Rows.read

    def small(self: Any, rows: Any, prompts: Any) -> None:
        if len(self.tokens) > 5:
            torch.empty(1 << 46, device="cuda")
        original(self, rows, prompts)

    monkeypatch.setattr(continuous.Rows, "read", small)
    assert answers(*loaded) == plain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_attention_is_torchs_own(dtype: str, shared: int) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from toolkit.inference.decode_attention import attend

    torch.manual_seed(0)
    kind: dict[str, Any] = {"device": "cuda", "dtype": getattr(torch, dtype)}
    module = SimpleNamespace(num_key_value_groups=4 // shared, is_causal=True, training=False)
    mask = torch.rand(3, 1, 1, 64, device="cuda") > 0.3
    mask[..., -1] = True
    for tokens, given in ((1, mask), (1, None), (64, None)):
        query = torch.randn(3, tokens, 4, 64, **kind).transpose(1, 2)
        key, value = (torch.randn(3, shared, 128, 64, **kind)[:, :, :64] for _ in range(2))
        ours, _ = attend(module, query, key, value, given, scaling=0.1)
        theirs, _ = sdpa_attention_forward(module, query, key, value, given, scaling=0.1)
        torch.testing.assert_close(ours, theirs, atol=1e-5 if dtype == "float32" else 2e-2, rtol=0.02)


def test_four_bit_weights(tmp_path: Path, replays: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed, or told that they can't be; the answers are the same."""
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model, tokenizer = load_lively(tmp_path, "qwen3", hidden_size=256, head_dim=64)
    enliven(model)
    model.save_pretrained(tmp_path / "lively")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    packed = AutoModelForCausalLM.from_pretrained(
        tmp_path / "lively", dtype=torch.bfloat16, quantization_config=config, device_map={"": 0}
    )
    for decoded in (packed, adapted(packed)):
        base = decoded if decoded is packed else decoded.get_base_model()
        with monkeypatch.context() as patch:
            patch.setattr(base, "_can_compile_fullgraph", False)
            one_by_one = answers(decoded, tokenizer)
        assert answers(decoded, tokenizer) == one_by_one
    print(f"{len(replays)} steps of a model in 4 bits replayed")
