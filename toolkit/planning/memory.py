"""Bytes that training takes, by part.

Peak = weights + adapter + gradients + optimizer states + what forward keeps for backward + the larger of two
transients: the loss over the vocabulary, or one layer being worked on. Constants of activations were fitted to peaks
measured on one H200 with Qwen3-1.7B (docs/benchmarks); they are sums over the tensors that each engine keeps, so they
scale with a model's sizes. tests/planning compares every formula with the measured peaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from toolkit.kernels.constants import PACKED_LOGITS
from toolkit.models.shape import ModelShape

Engine = Literal["peft", "unsloth", "compiled"]
Held = Literal["nf4", "16-bit", "fp32"]
Checkpointing = Literal["off", "on", "offloaded"]

# NF4: half a byte, one absmax byte for 64 weights, one fp32 for 256 absmax bytes (double quantisation)
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
ADAM_BYTES = {"adamw_torch_fused": 8.0, "adamw_torch": 8.0, "adamw_8bit": 2.03, "paged_adamw_8bit": 2.03}
CUDA_CONTEXT = int(0.75 * 2**30)  # held by the process beside torch's own memory; measured
PROCESS = int(0.45 * 2**30)  # Python with torch, transformers, PEFT and TRL loaded, on a CPU; measured
CPU_WASTE = 1.5  # resident bytes for each byte of activations: the C allocator keeps holes; measured
OFFLOAD_BUFFERS = 6  # layer inputs in flight to and from host memory; fitted
PEFT_DROPOUT = 2.35  # bytes that plain PEFT on CUDA keeps for each dropped feature; fitted
# bytes for each weight of the output head while its gradient is summed over chunks: a sum in fp32 and what it becomes
HEAD_GRADIENT = {"mixed": 6, "fp32": 10}
MIXED_STEP = 12  # bytes for each weight of the largest tensor while Adam with fp32 states steps over 16-bit weights


@dataclass(frozen=True, slots=True)
class Setup:
    """What decides memory, apart from how many tokens there are.

    `element`: bytes of an activation, 2 under bf16 or fp16 and 4 under fp32. `dropped`: input features of a layer's
    modules that have LoRA dropout, summed. `math_attention`: attention's scores are held whole in fp32, as SDPA does
    without flash attention where keys serve several query heads and no mask is given (rows of one length).
    `checkpointed`: how many layers, the first ones, recompute where checkpointing is on; None for all. `packed`: rows
    are packed, and the loss is the toolkit's own. `float8`: layers' weights are held in 8 bits too, once for products
    forward and once for backward. `dynamic`: compiled layers have one code for all lengths of packed micro-batches, and
    `recorded`: each length is, where no layer recomputes. `filled`: what micro-batches are filled up to a multiple of;
    None: what the engine wants. `pace`: how fast the card is, an H200 being 1.
    """

    shape: ModelShape
    engine: Engine
    held: Held
    trainable: int
    checkpointing: Checkpointing
    optim: str = "adamw_torch_fused"
    element: int = 2
    dropped: int = 0
    cuda: bool = True
    math_attention: bool = False
    checkpointed: int | None = None
    packed: bool = False
    float8: bool = False
    dynamic: bool = True
    recorded: bool = False
    filled: int | None = None
    pace: float = 1.0


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


def layer_activations(setup: Setup) -> float:
    """Bytes that one layer keeps for its backward pass, for each token.

    Unsloth's fused functions keep inputs and gate and up; plain PEFT also keeps norms in fp32, the product of gate and
    up, and keys and values repeated for their query heads, as padding's mask demands. Under fp32 no casts are kept; on
    a CPU more are. Dropout adds masks of one byte an input feature, and for plain PEFT the dropped copies that stand
    for the inputs. Compiled layers keep what products and attention give and make the rest of it again
    (`toolkit.engines.compiled.KEEP_LITTLE`), dropout's masks too: counted on a CPU by
    tests/kernels/test_saved_activations.py.
    """
    shape = setup.shape
    hidden, ffn = shape.hidden_size, shape.intermediate_size
    attention, qkv = shape.attention_size, shape.attention_size + 2 * shape.key_value_size
    if setup.engine == "unsloth":
        elements = 2 * ffn + 2 * qkv + attention + 3.5 * hidden
        return setup.element * elements + setup.dropped
    repeated = 2 * (attention - shape.key_value_size)
    if setup.engine == "compiled" and setup.element == 2:
        turned = attention + shape.key_value_size  # queries and keys after rotation, and before where that has a norm
        elements = 2 * hidden + (2 if shape.qk_norm else 1) * turned + shape.key_value_size + attention + 2 * ffn
        return 2 * elements
    if setup.element == 4:
        elements = 4 * ffn + (2.5 if shape.qk_norm else 2) * qkv + 3.4 * hidden + repeated
        return 4 * elements + 5.8 * setup.dropped
    if not setup.cuda:
        elements = 4 * ffn + (4 if shape.qk_norm else 3) * qkv + 2 * attention + 6.5 * hidden + repeated
        return 2 * elements + 4 * setup.dropped
    # each norm keeps its input in fp32 and the normed copy; attention its inputs and output; SwiGLU three factors
    normed = 2 * hidden + (attention + shape.key_value_size if shape.qk_norm else 0)
    inputs = 0 if setup.dropped else ffn + 2 * hidden
    return 2 * (3 * normed + qkv + attention + 3 * ffn + inputs + repeated) + PEFT_DROPOUT * setup.dropped


def backward_transient(setup: Setup) -> float:
    """Bytes of gradients in flight while one layer runs backward, for each token; plain PEFT's is fitted."""
    hidden, ffn = setup.shape.hidden_size, setup.shape.intermediate_size
    if setup.engine == "peft" and setup.held == "16-bit" and setup.checkpointing != "off" and setup.cuda:
        return setup.element * (5 * ffn + 4 * hidden)
    return setup.element * (3 * ffn + 2 * hidden)


def attention_scores(setup: Setup, rows: int, width: int) -> float:
    """Bytes of scores, probabilities and the gradients of both in fp32, where one layer's attention holds them."""
    return 16.0 * rows * width**2 * setup.shape.attention_size / setup.shape.head_dim if setup.math_attention else 0.0


def loss_transient(setup: Setup, tokens: int, trained: int) -> float:
    """Bytes of logits that exist at one time.

    Unsloth 2026.10.7 cuts all tokens into chunks, so many that 16 bytes a logit stay near 4 GiB / 4; plain PEFT runs
    TRL's head over the trained tokens, 4,096 by 32,768 at a time, and keeps a gradient of the hidden states in fp32.
    Without CUDA the head runs in chunks of 64 MiB of fp32 logits, and over packed rows on a GPU in chunks of 128 MiB,
    whose logits become their gradients in place.
    """
    vocab = setup.shape.vocab_size
    if setup.packed and setup.cuda:
        return (
            setup.element * min(trained * vocab, PACKED_LOGITS) + 2 * setup.element * tokens * setup.shape.hidden_size
        )
    if setup.engine == "unsloth":
        chunks = 4 * max(1, math.ceil(tokens * vocab * 16 / 2**30 / 4 / 4))
        return tokens / chunks * vocab * 6
    if not setup.cuda:
        return 3 * 2**26 + setup.element * trained * setup.shape.hidden_size
    return min(trained, 4096) * min(vocab, 32_768) * 6 + 4 * tokens * setup.shape.hidden_size


def materialised_logits(shape: ModelShape, tokens: int) -> float:
    """Bytes of a loss that holds all logits: in 16 bits, in fp32, and the gradients of both; measured."""
    return tokens * shape.vocab_size * 12.0


def training_memory(setup: Setup, rows: int, width: int, trained: int, *, logits: bool = False) -> Memory:
    """Peak memory of a micro-batch of `rows` x `width` tokens, padding included, of which `trained` have a label.

    `logits`: the loss holds all logits at once, as older trainers do.
    """
    shape, tokens = setup.shape, rows * width
    layer, layers = tokens * layer_activations(setup), shape.num_hidden_layers
    layer_input = tokens * setup.element * shape.hidden_size
    loss = materialised_logits(shape, tokens) if logits else loss_transient(setup, tokens, trained)
    at_work = tokens * backward_transient(setup)
    scores = attention_scores(setup, rows, width)
    parts = {
        f"base weights ({setup.held})": weight_bytes(shape, setup.held),
        "adapter (fp32)": 4.0 * setup.trainable,
        "gradients (fp32)": 4.0 * setup.trainable,
        "optimizer states": ADAM_BYTES[setup.optim] * setup.trainable,
    }
    if setup.float8:
        parts["base weights (float8)"] = 2.0 * shape.linear_parameters
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
            at_work += layer
        case "offloaded":
            parts["layer inputs in flight"] = OFFLOAD_BUFFERS * layer_input
            at_work += layer
    if scores:  # at its peak before the layer's second half has come or after it has gone
        at_work = max(at_work, scores + layer / 2)
    larger = "loss over the vocabulary" if loss > at_work else "one layer at work"
    parts[larger] = max(loss, at_work)
    return Memory(parts, CUDA_CONTEXT if setup.cuda else PROCESS)


def full_memory(
    setup: Setup,
    rows: int,
    width: int,
    trained: int,
    *,
    weights: Literal["mixed", "fp32"],
    logits: bool = False,
    adam8: bool = False,
) -> Memory:
    """Peak memory when every weight trains, with checkpointing.

    `weights`: mixed, the usual textbook sum of 16-bit weights and gradients with fp32 Adam states (12 bytes a weight);
    fp32, all in fp32 under autocast (16 bytes). `adam8`: states in 8 bits, but for the embedding's, which transformers
    keeps in fp32.
    """
    shape, tokens = setup.shape, rows * width
    weight = 4 if weights == "fp32" else 2
    layer_input = tokens * shape.hidden_size * (4 if weights == "fp32" else setup.element)
    if logits:
        loss = materialised_logits(shape, tokens)
    else:
        loss = loss_transient(setup, tokens, trained) + HEAD_GRADIENT[weights] * shape.head_parameters
    at_work = tokens * (layer_activations(setup) + backward_transient(setup))
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
