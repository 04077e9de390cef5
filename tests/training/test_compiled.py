"""Compiled layers train as the model does without, and few shapes are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.kernels.test_head_loss import adapted
from tests.tiny import make_model
from tests.training.test_packing import rows_of
from toolkit.engines.compiled_layers import EDGES, CompiledLayers
from toolkit.errors import EngineError
from toolkit.kernels.head_loss import summed_loss
from toolkit.kernels.packed_attention import packed
from toolkit.training.packing import PackingCollator

Gradients = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def micro_batches(lengths: list[int], budget: int = 4096, multiple: int = 64) -> list[dict[str, Any]]:
    rows = rows_of(lengths, 60)
    found: list[dict[str, Any]] = PackingCollator(0, budget, multiple, EDGES)([{"rows": rows}])["micro_batches"]
    return found


def step(model: Any, batches: list[dict[str, Any]], layers: CompiledLayers | None) -> tuple[float, Gradients]:
    """(summed loss, gradients of the adapter) of micro-batches, compiled or not."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        with layers.training(model) if layers else packed(model):
            loss, _ = summed_loss(model, layers.packed_inputs(batch) if layers else batch)
            loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def ways() -> Iterator[Any]:
    """Each family, fused or not, with none, one or both layers recomputed. One way comes each time, and half of the
    others in the longer tests: each two of the three that differ come together in these."""
    for number, (family, checkpointed, fuse) in enumerate(product(("llama", "qwen3"), range(3), (None, torch.float32))):
        marks = pytest.mark.slow if (number + checkpointed + (family == "qwen3")) % 2 == 0 else pytest.mark.endurance
        first = (family, checkpointed, fuse) == ("qwen3", 2, torch.float32)
        name = f"{family}-{checkpointed}-{'fused' if fuse else 'as PEFT'}"
        yield pytest.param(family, checkpointed, fuse, marks=() if first else marks, id=name)


@pytest.mark.parametrize(("family", "checkpointed", "fuse"), list(ways()))
def test_compiled_equals_eager(tmp_path: Path, family: str, checkpointed: int, fuse: torch.dtype | None) -> None:
    model = adapted(make_model(tmp_path / family, family=family))
    checkpoint_some(model, checkpointed)
    batches = micro_batches([40, 9, 57, 23, 31], budget=100)
    assert len(batches) == 2
    expected_loss, expected = step(model, batches, None)
    layers = CompiledLayers(model, longest=512, backend="aot_eager", fuse=fuse)
    assert [len(group.members) for group in layers.groups] == ([3, 1, 2, 1] * 2 if fuse else [])
    loss, found = step(model, batches, layers)
    assert counters["stats"]["unique_graphs"] > 0
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert found.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused_step", [False, True])
def test_what_an_optimizer_changed_is_seen(tiny_model: Path, fused_step: bool) -> None:
    """A fused step writes where autograd's version counters do not look."""
    losses = []
    for fuse in (None, torch.float32):
        model = adapted(tiny_model)
        layers = CompiledLayers(model, longest=512, backend="eager", fuse=fuse)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2, fused=fused_step)
        for _ in range(4):
            loss, _ = step(model, micro_batches([40, 9, 57]), layers)
            optimizer.step()
            losses.append(loss)
    assert losses[3] < losses[0] - 1
    assert losses[4:] == pytest.approx(losses[:4], rel=1e-4)


def test_fused_products_keep_what_a_young_adapter_adds(tmp_path: Path) -> None:
    """In bfloat16, PEFT rounds the frozen product and then the sum, so what is less than half a step is lost."""
    folder = make_model(tmp_path / "model", family="qwen3")
    batches = micro_batches([40, 9, 57])

    def second_loss(dtype: torch.dtype, fuse: bool) -> float:
        """After one update by the sign of the gradients, as Adam's first is, of an adapter that was nothing before."""
        model = adapted(folder)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16().to(dtype)
            elif "lora_B" in name:
                torch.nn.init.zeros_(parameter)
        layers = CompiledLayers(model, longest=512, backend="eager", fuse=dtype) if fuse else None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            step(model, batches, layers)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter -= 2e-4 * parameter.grad.sign()
            return step(model, batches, layers)[0]

    exact = second_loss(torch.float32, False)
    plain, fused = (abs(second_loss(torch.bfloat16, fuse) - exact) for fuse in (False, True))
    assert fused < plain / 2


@pytest.mark.slow
def test_float8_products_are_near(tmp_path: Path) -> None:
    """Rounding to three bits of a fraction: directions of gradients stay, and what does not train stays as it is."""
    model = adapted(make_model(tmp_path / "model", family="qwen3"))
    batches = micro_batches([40, 9, 57])
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if "base_layer" in name}
    expected_loss, expected = step(model, batches, None)
    layers = CompiledLayers(model, longest=512, backend="aot_eager", fuse=torch.float32, float8=True)
    assert [len(group.members) for group in layers.groups] == [3, 1, 2, 1] * 2
    loss, found = step(model, batches, layers)
    assert loss != expected_loss
    assert loss == pytest.approx(expected_loss, rel=0.01)
    assert found.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        assert torch.nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0) > 0.99, name
    for name, parameter in model.named_parameters():
        if name in weights:
            assert torch.equal(parameter, weights[name])


def test_four_bit_weights_compile_too(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    folder = make_model(tmp_path / "model", family="qwen3")
    base = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=torch.float32, device_map={"": "cpu"}
    )
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(base, lora)
    layers = CompiledLayers(model, longest=512, backend="aot_eager")
    expected_loss, expected = step(model, micro_batches([40, 9, 57]), None)
    loss, found = step(model, micro_batches([40, 9, 57]), layers)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    assert found.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4)


def checkpoint_some(model: Any, count: int) -> None:
    if not count:
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    for number, layer in enumerate(model.get_base_model().model.layers):
        layer.gradient_checkpointing = number < count


@pytest.mark.parametrize(
    "products",
    [
        pytest.param("separate", marks=pytest.mark.endurance),
        "fused",
        pytest.param("float8", marks=pytest.mark.endurance),
    ],
)
def test_other_chats_of_the_same_bucket_compile_nothing(tiny_model: Path, products: str) -> None:
    """Nor does the second layer, nor evaluation in between."""
    model = adapted(tiny_model)
    fuse = None if products == "separate" else torch.float32
    layers = CompiledLayers(model, longest=512, backend="aot_eager", fuse=fuse, float8=products == "float8")
    step(model, micro_batches([40, 9, 57]), layers)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    for lengths in ([21, 80], [5] * 20, [100, 3, 2, 1]):
        (batch,) = micro_batches(lengths)
        assert batch["input_ids"].shape == (1, 128) and len(batch["cu_seq_lens"]) == EDGES
        step(model, [batch], layers)
    model.eval()
    with torch.no_grad(), packed(model):
        (odd,) = micro_batches([33], multiple=1)
        summed_loss(model, layers.packed_inputs(odd))
    model.train()
    assert counters["stats"]["unique_graphs"] == compiled
    step(model, micro_batches([200]), layers)
    assert counters["stats"]["unique_graphs"] == 2 * compiled  # another bucket does


@pytest.mark.slow
def test_one_code_for_all_lengths(tiny_model: Path) -> None:
    model = adapted(tiny_model)
    layers = CompiledLayers(model, longest=512, dynamic=True, backend="aot_eager")
    step(model, micro_batches([40, 9, 57]), layers)
    compiled = counters["stats"]["unique_graphs"]
    for lengths in ([200], [300, 20]):
        batches = micro_batches(lengths)
        loss, found = step(model, batches, layers)
        expected_loss, expected = step(model, batches, None)
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == compiled


def test_layers_are_as_they_were_outside_of_training(tiny_model: Path) -> None:
    model = adapted(tiny_model)
    layers = CompiledLayers(model, longest=512, backend="aot_eager")
    with pytest.raises(RuntimeError, match="planted"), layers.training(model):
        raise RuntimeError("planted")
    assert all(layer._compiled_call_impl is None for layer in layers.layers)
    batch = {"sizes": [3]}
    assert layers.packed_inputs(batch) is batch


def test_a_layer_that_torch_cannot_compile_is_no_bug_of_ours(tiny_model: Path) -> None:
    def failing(graph: Any, inputs: Any) -> Any:
        raise ValueError("no such instruction")

    model = adapted(tiny_model)
    layers = CompiledLayers(model, longest=512, backend=failing)
    with pytest.raises(EngineError, match=r'no such instruction.*train\.engine="peft" goes without') as found:
        step(model, micro_batches([20, 9]), layers)
    assert "\n" not in str(found.value)
