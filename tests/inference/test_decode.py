from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.decoding import PROMPTS, adapted, load_lively
from tests.scarce import ALLOCATOR
from toolkit.inference.decode import decode

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load_lively(tmp_path_factory.mktemp(request.param), request.param)


def by_hand(model: Any, tokenizer: Any, prompt: str, steps: int, stop: int) -> list[int]:
    """Greedy decoding without cache, batch or padding; the new tokens."""
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(steps):
        token = model(input_ids=ids, use_cache=False).logits[0, -1].argmax()
        if token == stop:
            break
        ids = torch.cat([ids, token[None, None]], dim=1)
    return ids[0, start:].tolist()


def options(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    base = {"max_new_tokens": 12, "batch_size": 8, "stop_ids": [tokenizer.eos_token_id], "progress": False}
    return {**base, **changes}


def generate(model: Any, tokenizer: Any, prompts: list[str], **settings: Any) -> list[str]:
    return [one.text for one in decode(model, tokenizer, prompts, **settings)]


def test_a_batch_gives_what_each_prompt_gives_alone(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    alone = [generate(model, tokenizer, [prompt], **options(tokenizer))[0] for prompt in PROMPTS]
    model.eval()
    with torch.no_grad():
        expected = [by_hand(model, tokenizer, prompt, 12, tokenizer.eos_token_id) for prompt in PROMPTS]
    assert alone == [tokenizer.decode(ids) for ids in expected]
    assert len(set(alone)) == len(PROMPTS)
    for batch_size in (2, 3, 8):
        assert generate(model, tokenizer, PROMPTS, **options(tokenizer, batch_size=batch_size)) == alone


def test_stops_at_any_stop_token_and_says_so(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    never = tokenizer.pad_token_id
    model.eval()
    with torch.no_grad():
        ids = by_hand(model, tokenizer, PROMPTS[0], 12, never)
    assert len(ids) == 12
    full = decode(model, tokenizer, PROMPTS, **options(tokenizer, stop_ids=[never]))[0]
    assert (full.text, full.new_tokens, full.stopped) == (tokenizer.decode(ids), 12, False)
    at = next(index for index in range(2, 12) if ids[index] not in ids[:index])
    early = decode(model, tokenizer, PROMPTS, **options(tokenizer, stop_ids=[never, ids[at]]))[0]
    assert (early.text, early.new_tokens, early.stopped) == (tokenizer.decode(ids[:at]), at + 1, True)


def test_the_model_comes_back_as_it_was_and_its_settings_do_not_matter(loaded: tuple[Any, Any]) -> None:
    from transformers import GenerationConfig

    model, tokenizer = loaded
    plain = generate(model, tokenizer, PROMPTS, **options(tokenizer))
    own = GenerationConfig(do_sample=True, temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.5, max_length=20)
    kept = model.generation_config
    try:
        model.generation_config = own
        model.train()
        model.model.layers[0].eval()
        model.gradient_checkpointing_enable()
        model.config.use_cache = False
        modes = [module.training for module in model.modules()]
        flags = [getattr(module, "gradient_checkpointing", None) for module in model.modules()]
        assert True in flags
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert generate(model, tokenizer, PROMPTS, **options(tokenizer)) == plain
        assert [module.training for module in model.modules()] == modes
        assert [getattr(module, "gradient_checkpointing", None) for module in model.modules()] == flags
        assert model.generation_config is own
        assert model.config.use_cache is False
    finally:
        model.generation_config = kept
        model.gradient_checkpointing_disable()
        model.config.use_cache = True


def test_training_goes_on_after_decoding(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    model.train()
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    try:
        generate(model, tokenizer, PROMPTS, **options(tokenizer))
        ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
        model(input_ids=ids, labels=ids).loss.backward()
        assert all(weight.grad is not None for weight in model.parameters())
    finally:
        model.disable_input_require_grads()
        model.gradient_checkpointing_disable()
        model.zero_grad()


def test_adapters_are_decoded_with(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    plain = generate(model, tokenizer, PROMPTS, **options(tokenizer))
    assert generate(adapted(model, std=0.0), tokenizer, PROMPTS, **options(tokenizer)) == plain
    peft = adapted(model)
    changed = generate(peft, tokenizer, PROMPTS, **options(tokenizer))
    assert changed != plain
    merged = peft.merge_and_unload()
    assert generate(merged, tokenizer, PROMPTS, **options(tokenizer)) == changed


def test_too_little_memory_halves_the_batch(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.inference import continuous

    model, tokenizer = loaded
    plain = generate(model, tokenizer, PROMPTS, **options(tokenizer))
    sizes: list[int] = []
    original = continuous.Rows.read

    def small(self: Any, rows: Sequence[int], prompts: Sequence[list[int]]) -> None:
        sizes.append(len(self.tokens))
        if sizes[-1] > limit:
            raise RuntimeError(ALLOCATOR) if limit else torch.OutOfMemoryError("CUDA out of memory")  # a CPU's, a GPU's
        original(self, rows, prompts)

    monkeypatch.setattr(continuous.Rows, "read", small)
    limit = 2
    told: list[int] = []
    made = decode(model, tokenizer, PROMPTS, **options(tokenizer), done=lambda index, one: told.append(index))
    assert [one.text for one in made] == plain
    assert sizes[:3] == [4, 2, 2] and max(sizes[1:]) <= 2
    assert sorted(told) == list(range(len(PROMPTS)))
    limit = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        generate(model, tokenizer, PROMPTS, **options(tokenizer))


@pytest.mark.model
@pytest.mark.skipif("TOOLKIT_TEST_MODEL" not in os.environ, reason="TOOLKIT_TEST_MODEL names no model folder")
def test_a_real_model_gives_in_a_batch_what_it_gives_alone() -> None:
    from transformers import AutoModelForCausalLM

    from toolkit.data.tokenizers import load_tokenizer

    folder = Path(os.environ["TOOLKIT_TEST_MODEL"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = load_tokenizer(folder)
    alone = [generate(model, tokenizer, [prompt], **options(tokenizer))[0] for prompt in PROMPTS]
    assert generate(model, tokenizer, PROMPTS, **options(tokenizer)) == alone


def test_no_prompts(loaded: tuple[Any, Any]) -> None:
    assert generate(*loaded, [], **options(loaded[1])) == []


def test_sampling_is_repeatable_and_leaves_the_random_numbers_alone(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    greedy = decode(model, tokenizer, PROMPTS, **options(tokenizer))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = decode(model, tokenizer, PROMPTS, **options(tokenizer, temperature=1.5, seed=1))
    assert torch.equal(torch.rand(1), expected)
    assert first == decode(model, tokenizer, PROMPTS, **options(tokenizer, temperature=1.5, seed=1))
    assert first != decode(model, tokenizer, PROMPTS, **options(tokenizer, temperature=1.5, seed=2))
    assert first != greedy


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_one_token_attends_as_torch_has_it(shared: int) -> None:
    from types import SimpleNamespace

    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from toolkit.inference.decode_attention import attend

    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 1, 8), torch.randn(3, shared, 11, 8), torch.randn(3, shared, 11, 8)
    mask = torch.rand(3, 1, 1, 11) > 0.3
    mask[..., -1] = True
    module = SimpleNamespace(num_key_value_groups=4 // shared, is_causal=True, training=False)
    for given in (None, mask):
        ours, _ = attend(module, query, key, value, given, scaling=0.3)
        theirs, _ = sdpa_attention_forward(module, query, key, value, given, scaling=0.3)
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_decoding_leaves_the_attention_as_it_was(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.inference import decode_attention as attention

    model, tokenizer = loaded
    lengths: list[int] = []
    attend = attention.attend

    def noted(module: Any, query: Any, *rest: Any, **kwargs: Any) -> Any:
        lengths.append(query.shape[2])
        return attend(module, query, *rest, **kwargs)

    monkeypatch.setattr(attention, "attend", noted)
    assert model.config._attn_implementation == "sdpa"
    decode(model, tokenizer, PROMPTS, **options(tokenizer))
    assert model.config._attn_implementation == "sdpa"
    assert lengths.count(1) > len(lengths) // 2 and max(lengths) > 1
