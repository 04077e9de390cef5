"""What a compiled layer keeps for backward: what the planner counts, and no masks of dropout."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import detect_fake_mode
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._inductor.virtualized import V
from torch.nn.attention import varlen
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from toolkit.engines import ENGINES
from toolkit.engines.compiled_layers import CompiledLayers
from toolkit.engines.setup import Setup
from toolkit.models.families import shape_from_config

HIDDEN, FFN, HEADS, SHARED, HEAD = 512, 1408, 8, 4, 64


# A CPU has no variable-length attention. This operator keeps for backward what that one does: q, k, v, what it gives
# and a number for each query.
@torch.library.custom_op("kept::attention", mutates_args=())
def stand_in(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return q.clone(), q.new_zeros(q.shape[1], q.shape[0], dtype=torch.float32)


@torch.library.custom_op("kept::backward", mutates_args=())
def stand_in_backward(
    gradient: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return gradient.clone(), torch.zeros_like(k), torch.zeros_like(v)


@stand_in.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)


@stand_in_backward.register_fake
def _(
    gradient: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = stand_in_backward(gradient, *ctx.saved_tensors)
    return made


stand_in.register_autograd(_backward, setup_context=_keep)


def as_inductor() -> Callable[..., Any]:
    """Inductor's cut between forward and backward, without its code generation, which takes a minute on a CPU."""

    def partition(graph: Any, inputs: Any, **options: Any) -> Any:
        with V.set_fake_mode(detect_fake_mode(inputs)):
            joint_graph_passes(graph)
        return min_cut_rematerialization_partition(graph, inputs, **{**options, "compiler": "inductor"})

    run: Callable[..., Any] = lambda graph, inputs: make_boxed_func(graph.forward)  # noqa: E731
    made: Callable[..., Any] = aot_autograd(
        fw_compiler=run, bw_compiler=run, partition_fn=partition, decompositions=select_decomp_table()
    )
    return made


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


Kept = list[torch.Tensor]


def kept(family: str, tokens: int, *, flash: bool, products: str, dropout: float) -> tuple[Any, Kept]:
    """(config, what one layer keeps for `tokens` tokens: one tensor for each storage, weights apart)."""
    torch._dynamo.reset()
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": SHARED,
        "head_dim": HEAD,
        "vocab_size": 64,
    }
    config = (Qwen3Config if family == "qwen3" else LlamaConfig)(**sizes)
    lora = LoraConfig(r=2, lora_dropout=dropout, target_modules="all-linear")
    model: Any = get_peft_model(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), lora)
    for parameter in model.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    base = model.get_base_model().model
    base.embed_tokens.register_forward_hook(lambda module, given, out: out.requires_grad_(True))
    half = torch.bfloat16
    fuse = None if products == "separate" else half
    layers = CompiledLayers(
        model,
        longest=tokens,
        kernel="flash" if flash else "rows",
        backend=as_inductor(),
        fuse=fuse,
        float8=products == "float8",
    )
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    for group in layers.groups:
        made = (group.block, *group.eight)
        known |= {tensor.untyped_storage().data_ptr() for tensor in made}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            found[place] = tensor
        return tensor

    batch = {
        "input_ids": torch.randint(0, 64, (1, tokens)),
        "position_ids": torch.arange(tokens)[None],
        "cu_seq_lens": torch.tensor([0, tokens], dtype=torch.int32),
    }
    model.train()
    with layers.training(model), torch.autocast("cpu", dtype=half):
        call = base.layers[0]._compiled_call_impl

        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            known.update(part.untyped_storage().data_ptr() for part in kwargs["position_embeddings"])
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                return call(*args, **kwargs)

        base.layers[0]._compiled_call_impl = watched
        base(**layers.packed_inputs(batch), use_cache=False)
    return config, list(found.values())


def per_token(family: str, **how: Any) -> tuple[Any, float]:
    """Bytes for each token: what twice as many keep more."""
    few, many = 128, 256
    config, less = kept(family, few, **how)
    _, more = kept(family, many, **how)
    total = [sum(tensor.untyped_storage().nbytes() for tensor in tensors) for tensors in (less, more)]
    return config, (total[1] - total[0]) / (many - few)


MOST = ("qwen3", True, "fused")  # has all that a layer can have
MARK = {True: pytest.mark.slow, False: pytest.mark.endurance}
EVERY = list(itertools.product(["llama", "qwen3"], [True, False], ["separate", "fused", "float8"]))


@pytest.mark.parametrize(
    ("family", "flash", "products"),
    [pytest.param(*case, marks=MARK[case == MOST]) for case in EVERY],
    ids=[f"{family}-{'flash' if flash else 'row by row'}-{products}" for family, flash, products in EVERY],
)
def test_a_layer_keeps_what_the_planner_counts(
    family: str, flash: bool, products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", lambda q, k, v, *args, **kwargs: stand_in(q, k, v)[0])
    config, found = per_token(family, flash=flash, products=products, dropout=0.05)
    shape = shape_from_config(config.to_dict(), "model")
    engine = ENGINES["compiled"]
    expected = engine.layer_activations(Setup(shape, engine, "16-bit", 0, "off", dropped=1))
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    "products",
    [
        pytest.param("separate", marks=pytest.mark.endurance),
        "fused",
        pytest.param("float8", marks=pytest.mark.endurance),
    ],
)
def test_dropout_keeps_one_number(products: str) -> None:
    _, tensors = kept("llama", 128, flash=False, products=products, dropout=0.05)
    assert tensors
    assert not [tensor.shape for tensor in tensors if tensor.dtype == torch.bool]
