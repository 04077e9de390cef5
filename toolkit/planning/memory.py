"""Bytes that training takes, by part.

Peak = weights + adapter + gradients + optimizer states + what forward keeps for backward + the larger of two
transients: the loss over the vocabulary, or one layer being worked on. Constants of activations were fitted to peaks
measured on one H200 with Qwen3-1.7B (docs/benchmarks); they are sums over the tensors that each engine keeps, so they
scale with a model's sizes. tests/planning compares every formula with the measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from toolkit.engines.registry import PLAIN
from toolkit.engines.setup import Held, Setup
from toolkit.kernels.constants import PACKED_LOGITS
from toolkit.models.shape import ModelShape

# NF4: half a byte, one absmax byte for 64 weights, one fp32 for 256 absmax bytes (double quantisation)
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
ADAM_BYTES = {"adamw_torch_fused": 8.0, "adamw_torch": 8.0, "adamw_8bit": 2.03, "paged_adamw_8bit": 2.03}
CUDA_CONTEXT = int(0.75 * 2**30)  # held by the process beside torch's own memory; measured
PROCESS = int(0.45 * 2**30)  # Python with torch, transformers, PEFT and TRL loaded, on a CPU; measured
NCCL = int(0.5 * 2**30)  # its buffers, where cards sum gradients; assumed
CPU_WASTE = 1.5  # resident bytes for each byte of activations: the C allocator keeps holes; measured
LOGIT_BYTES = 12.0  # for each logit where all are held: in 16 bits, in fp32, and the gradients of both; measured
OFFLOAD_BUFFERS = 6  # layer inputs in flight to and from host memory; fitted
# bytes for each weight of the output head while its gradient is summed over chunks: a sum in fp32 and what it becomes
HEAD_GRADIENT = {"mixed": 6, "fp32": 10}
MIXED_STEP = 12  # bytes for each weight of the largest tensor while Adam with fp32 states steps over 16-bit weights


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by part, in the order they are shown. `peak` is the tensors; `total` has the process too."""

    parts: dict[str, float]
    context: int

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    @property
    def total(self) -> float:
        return self.peak + self.context


def weight_bytes(shape: ModelShape, held: Held) -> float:
    """Bytes of the frozen base weights. NF4 packs the layers' linear weights; embedding, head and norms stay 16-bit."""
    if held == "nf4":
        return NF4_BYTES * shape.linear_parameters + 2 * (shape.embedding_parameters + shape.small_parameters)
    return (4 if held == "fp32" else 2) * shape.parameters


def attention_scores(setup: Setup, rows: int, width: int) -> float:
    """Bytes of scores, probabilities and the gradients of both in fp32, where one layer's attention holds them."""
    return 16.0 * rows * width**2 * setup.shape.attention_size / setup.shape.head_dim if setup.math_attention else 0.0


def loss_transient(setup: Setup, tokens: int, trained: int) -> float:
    """Bytes of logits that exist at one time.

    Without CUDA the head runs in chunks of 64 MiB of fp32 logits, and over packed rows on a GPU in chunks of 128 MiB,
    whose logits become their gradients in place. Over padded rows on a GPU it is the engine's own.
    """
    hidden, vocab = setup.shape.hidden_size, setup.shape.vocab_size
    if setup.full_logits:
        return tokens * vocab * LOGIT_BYTES
    if not setup.cuda:
        return 3 * 2**26 + setup.element * trained * hidden
    if setup.packed:
        return setup.element * min(trained * vocab, PACKED_LOGITS) + 2 * setup.element * tokens * hidden
    return setup.engine.loss_transient(setup, tokens, trained)


def training_memory(setup: Setup, rows: int, width: int, trained: int) -> Memory:
    """Peak memory of a micro-batch of `rows` x `width` tokens, padding included, of which `trained` have a label."""
    shape, tokens = setup.shape, rows * width
    layer, layers = tokens * setup.engine.layer_activations(setup), shape.num_hidden_layers
    layer_input = tokens * setup.element * shape.hidden_size
    loss = loss_transient(setup, tokens, trained)
    at_work = tokens * setup.engine.backward_transient(setup)
    scores = attention_scores(setup, rows, width)
    parts = {
        f"base weights ({setup.held})": weight_bytes(shape, setup.held),
        "adapter (fp32)": 4.0 * setup.trainable,
        "gradients (fp32)": 4.0 * setup.trainable,
        "optimizer states": ADAM_BYTES[setup.optim] * setup.trainable,
    }
    if setup.products == "float8":
        parts["base weights (float8)"] = 2.0 * shape.linear_parameters
    if setup.ranks > 1:
        parts["gradients summed over ranks"] = 4.0 * setup.trainable + (NCCL if setup.cuda else 0)
    few = layers if setup.checkpointed is None else setup.checkpointed
    match setup.checkpointing:
        case "on" if few < layers:
            # backward reaches the first layers last, when what the others kept is gone
            parts["activations"] = (layers - few) * layer * (1 if setup.cuda else CPU_WASTE)
            parts["layer inputs kept"] = few * layer_input
        case "off":
            parts["activations"] = layers * layer * (1 if setup.cuda else CPU_WASTE)
        case "on":
            parts["layer inputs kept"] = layers * layer_input
            at_work += tokens * setup.engine.largest_layer(setup)
        case "offloaded":
            parts["layer inputs in flight"] = OFFLOAD_BUFFERS * layer_input
            at_work += tokens * setup.engine.largest_layer(setup)
    if scores:  # at its peak before the layer's second half has come or after it has gone
        at_work = max(at_work, scores + layer / 2)
    larger = "loss over the vocabulary" if loss > at_work else "one layer at work"
    parts[larger] = max(loss, at_work)
    return Memory(parts, CUDA_CONTEXT if setup.cuda else PROCESS)


def packed_memory(setup: Setup, tokens: int, trained: float) -> Memory:
    """Peak memory of a packed micro-batch of `tokens`, filled up; the share `trained` of them has a label."""
    tokens = setup.filled_up(tokens)
    return training_memory(setup, 1, tokens, round(tokens * trained))


def full_memory(
    setup: Setup,
    rows: int,
    width: int,
    trained: int,
    *,
    weights: Literal["mixed", "fp32"],
    adam8: bool = False,
) -> Memory:
    """Peak memory when every weight trains, with checkpointing, on the plain engine.

    `weights`: mixed, the usual textbook sum of 16-bit weights and gradients with fp32 Adam states (12 bytes a weight);
    fp32, all in fp32 under autocast (16 bytes). `adam8`: states in 8 bits, but for the embedding's, which transformers
    keeps in fp32.
    """
    setup = replace(setup, engine=PLAIN)
    shape, tokens = setup.shape, rows * width
    weight = 4 if weights == "fp32" else 2
    layer_input = tokens * shape.hidden_size * (4 if weights == "fp32" else setup.element)
    loss = loss_transient(setup, tokens, trained)
    if not setup.full_logits:
        loss += HEAD_GRADIENT[weights] * shape.head_parameters
    at_work = tokens * (PLAIN.largest_layer(setup) + PLAIN.backward_transient(setup))
    kept = shape.num_hidden_layers * layer_input
    step = MIXED_STEP * shape.head_parameters if weights == "mixed" and not adam8 else 0
    states = 8.0 * shape.parameters
    if adam8:
        states = ADAM_BYTES["adamw_8bit"] * (shape.parameters - shape.head_parameters) + 8.0 * shape.head_parameters
    parts = {
        "weights": float(weight * shape.parameters),
        "gradients": float(weight * shape.parameters),
        "optimizer states": states,
    }
    passes = kept + max(loss, at_work)
    parts["forward and backward" if passes >= step else "optimizer step"] = float(max(passes, step))
    return Memory(parts, CUDA_CONTEXT if setup.cuda else PROCESS)
