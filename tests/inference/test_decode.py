from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_model
from toolkit.inference.decode import decode

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPTS = [
    "<|im_start|>user\nChat 1: what is 3 plus 4?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nChat 7: what is 12 plus 99 please please please?<|im_end|>\n<|im_start|>assistant\n",
    "plus",
    "<|im_start|>user\nChat 2: what is 1 plus 1 please?<|im_end|>\n<|im_start|>assistant\nIt",
]


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny random model in float32 whose texts differ by prompt, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder: Path = make_model(tmp_path_factory.mktemp(request.param) / "model", request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():  # as initialised, attention hardly matters and every prompt gives the same text
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(std=0.15)
    return model, AutoTokenizer.from_pretrained(folder)


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


@pytest.mark.parametrize(("at_once", "cache_bytes", "batches"), [(20, 1 << 29, 1), (70, 1 << 29, 1), (20, 1, 5)])
def test_prompts_read_a_few_at_a_time_are_decoded_together(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, at_once: int, cache_bytes: int, batches: int
) -> None:
    """`at_once` tokens are read at a time, and as many rows are decoded together as `cache_bytes` hold."""
    from toolkit.inference import prefill

    model, tokenizer = loaded
    alone = [generate(model, tokenizer, [prompt], **options(tokenizer))[0] for prompt in PROMPTS]
    monkeypatch.setattr(prefill, "AT_ONCE", at_once)
    monkeypatch.setattr(prefill, "CACHE_BYTES", cache_bytes)
    began: list[int] = []
    original = type(model).generate

    def noted(self: Any, **arguments: Any) -> Any:
        if arguments["max_new_tokens"] == 12:  # others go on from where rows were dropped
            began.append(len(arguments["input_ids"]))
        return original(self, **arguments)

    monkeypatch.setattr(type(model), "generate", noted)
    assert generate(model, tokenizer, PROMPTS, **options(tokenizer)) == alone
    assert len(began) == batches and sum(began) == len(PROMPTS)
    assert generate(model, tokenizer, ["plus", "plus"], **options(tokenizer)) == [alone[3]] * 2


def test_a_cache_holds_all_tokens_but_the_last(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.inference import prefill

    model, _ = loaded
    model.eval()
    ids = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14], [15, 16, 17], [18]]
    monkeypatch.setattr(prefill, "AT_ONCE", 8)
    cache = prefill.prefill(model, ids, 0)
    assert cache.get_seq_length() == 5
    for number, row in enumerate(ids[:3]):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([row[:-1]]), use_cache=True).past_key_values
        for layer, own in zip(cache.layers, alone.layers, strict=True):
            for which in ("keys", "values"):
                found, wanted = getattr(layer, which)[number], getattr(own, which)[0]
                assert torch.allclose(found[:, 5 - len(row) + 1 :], wanted, atol=1e-5)
    assert prefill.prefill(model, [[5], [6]], 0) is None


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
    import copy

    from peft import LoraConfig, get_peft_model

    model, tokenizer = loaded
    plain = generate(model, tokenizer, PROMPTS, **options(tokenizer))
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert generate(adapted, tokenizer, PROMPTS, **options(tokenizer)) == plain
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    changed = generate(adapted, tokenizer, PROMPTS, **options(tokenizer))
    assert changed != plain
    merged = adapted.merge_and_unload()
    assert generate(merged, tokenizer, PROMPTS, **options(tokenizer)) == changed


def test_too_little_memory_halves_the_batch(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = loaded
    plain = generate(model, tokenizer, PROMPTS, **options(tokenizer))
    sizes = []
    original = type(model).generate

    def small(self: Any, **arguments: Any) -> Any:
        sizes.append(len(arguments["input_ids"]))
        if sizes[-1] > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(self, **arguments)

    monkeypatch.setattr(type(model), "generate", small)
    limit = 2
    assert generate(model, tokenizer, PROMPTS, **options(tokenizer)) == plain
    assert sizes == [5, 3, 2, 2, 1]
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


def test_rows_that_stop_leave_the_batch_and_the_others_go_on_as_before(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    prompts = [f"{prompt}{number}" for number in range(3) for prompt in PROMPTS]
    never = [tokenizer.pad_token_id]
    full = decode(model, tokenizer, prompts, **options(tokenizer, stop_ids=never, max_new_tokens=24))
    # stop tokens that end rows at different steps: the second token of some
    stops = sorted({tokenizer(one.text, add_special_tokens=False)["input_ids"][3] for one in full[:8]})
    alone = [
        decode(model, tokenizer, [prompt], **options(tokenizer, stop_ids=stops, max_new_tokens=24))[0]
        for prompt in prompts
    ]
    assert len({one.new_tokens for one in alone}) > 2, "rows should stop at different steps"
    kept: list[int] = []
    select = transformers.DynamicCache.batch_select_indices
    monkeypatch.setattr(
        transformers.DynamicCache,
        "batch_select_indices",
        lambda self, indices: (kept.append(len(indices)), select(self, indices))[1],
    )
    batch = decode(model, tokenizer, prompts, **options(tokenizer, stop_ids=stops, max_new_tokens=24, batch_size=15))
    assert batch == alone
    assert kept and kept[0] < len(prompts)


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
