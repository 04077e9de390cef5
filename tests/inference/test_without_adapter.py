"""Base columns are really the base model's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from toolkit.inference.without_adapter import AdapterError, base_columns

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def adapted(base: Any, *, std: float, **settings: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.1, **settings)
    model = get_peft_model(copy.deepcopy(base), config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=std)
    return model


def logits(model: Any) -> Any:
    ids = torch.arange(20)[None]
    training = model.training
    model.eval()
    with torch.no_grad():
        found = model(input_ids=ids).logits
    model.train(training)
    return found


@pytest.mark.parametrize("training", [True, False])
def test_the_block_sees_the_base_model_and_the_adapter_comes_back(base: Any, training: bool) -> None:
    model = adapted(base, std=0.2).train(training)
    modes = [module.training for module in model.modules()]
    with_adapter = logits(model)
    with base_columns(model):
        assert torch.equal(logits(model), logits(base))
    assert torch.equal(logits(model), with_adapter)
    assert not torch.equal(with_adapter, logits(base))
    assert [module.training for module in model.modules()] == modes


def test_adapters_come_back_when_the_block_fails(base: Any) -> None:
    model = adapted(base, std=0.2)
    with_adapter = logits(model)
    with pytest.raises(KeyError), base_columns(model):
        raise KeyError
    assert torch.equal(logits(model), with_adapter)


def test_an_untrained_adapter_and_a_plain_model_pass(base: Any) -> None:
    for model in (adapted(base, std=0.0), base):
        with base_columns(model):
            assert torch.equal(logits(model), logits(base))


def test_a_merged_adapter_is_refused(base: Any) -> None:
    model = adapted(base, std=0.2)
    model.merge_adapter()
    with pytest.raises(AdapterError, match="merged"), base_columns(model):
        pytest.fail("the block must not run")


def test_an_adapter_that_stays_on_is_noticed(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    model = adapted(base, std=0.2)
    monkeypatch.setattr(type(model), "disable_adapter", lambda self: contextlib.nullcontext())
    with pytest.raises(AdapterError, match="still on"), base_columns(model):
        pytest.fail("the block must not run")


def test_a_path_around_the_layers_is_noticed(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused kernels read the factors themselves; if they ignore the switch, the logits stay the adapted ones."""
    model = adapted(base, std=0.2)
    frozen = model(input_ids=torch.arange(1, 9)[None], use_cache=False)
    monkeypatch.setattr(type(model), "forward", lambda self, **arguments: frozen)
    with pytest.raises(AdapterError, match="logits are the same"), base_columns(model):
        pytest.fail("the block must not run")


def test_trained_biases_are_refused(base: Any) -> None:
    model = adapted(base, std=0.2, bias="all")
    with pytest.raises(AdapterError, match="bias"), base_columns(model):
        pytest.fail("the block must not run")
