"""The language-model head on trained tokens only, in chunks, without ever holding all logits.

TRL has the same idea as a Triton kernel; this one runs on a CPU too.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from toolkit.data.table import IGNORED
from toolkit.kernels.constants import PACKED_LOGITS
from toolkit.models.families import UNKNOWN, family_of

# logits that exist at one time: 64 MiB in float32, on a GPU 128 MiB in 16 bits (442 tokens of Qwen3's vocabulary)
CHUNK_LOGITS = 1 << 24
CHUNK_LOGITS_GPU = PACKED_LOGITS
WIDE = 4096  # logits of a row that the kernel has in registers at one time
AGREE = 0.01


class HeadCrossEntropy(torch.autograd.Function):
    """Sum of -log p(label) over tokens, for a frozen head.

    Because the head is frozen, the gradient with respect to the hidden states, (softmax - onehot) @ weight, is made in
    the forward pass chunk by chunk: no logits are stored and none are computed twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """hidden [N, H], weight [V, H] (no gradient), labels [N]; returns a scalar in float32."""
        needs_grad = hidden.requires_grad
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad = torch.empty_like(hidden) if needs_grad else None
        chunk = max(1, (CHUNK_LOGITS_GPU if hidden.is_cuda else CHUNK_LOGITS) // weight.shape[0])
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = hidden[part].to(weight.dtype) @ weight.T
            total += cross_entropy_(logits, labels[part], gradient=grad is not None)
            if grad is not None:
                grad[part] = (logits @ weight).to(grad.dtype)
        ctx.save_for_backward(*([grad] if grad is not None else []))
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * outputs[0].to(grad.dtype), None, None


def cross_entropy_(logits: torch.Tensor, labels: torch.Tensor, *, gradient: bool) -> torch.Tensor:
    """Sum of -log p(label) in float32, of logits [N, V] that become its gradient, softmax minus one-hot, if `gradient`.

    labels [N]. On a GPU a kernel reads the logits twice and writes them once, after it has agreed there with what is
    done elsewhere, for which a copy in float32 is made.
    """
    if logits.is_cuda and kernel_agrees(logits.device, logits.dtype):
        return _on_card(logits, labels, gradient)
    return _formula(logits, labels, gradient)


def _formula(logits: torch.Tensor, labels: torch.Tensor, gradient: bool) -> torch.Tensor:
    wide, target = logits.float(), labels[:, None]
    log_sum = torch.logsumexp(wide, dim=-1, keepdim=True)
    total = (log_sum - wide.gather(1, target)).sum()
    if gradient:
        wide.sub_(log_sum).exp_()
        wide.scatter_add_(1, target, torch.full_like(target, -1, dtype=wide.dtype))
        if wide is not logits:
            logits.copy_(wide)
    return total


def _on_card(logits: torch.Tensor, labels: torch.Tensor, gradient: bool) -> torch.Tensor:
    from toolkit.kernels import triton_kernels as kernels

    losses = torch.empty(len(labels), device=logits.device)
    stride, columns = logits.stride(0), logits.shape[1]
    kernels.cross_entropy[(len(labels),)](logits, labels, losses, stride, columns, gradient, WIDE, num_warps=8)
    return losses.sum()


@functools.cache
def kernel_agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel is there and gives what the formula gives, on this device."""
    random = torch.Generator(device).manual_seed(0)
    logits = torch.randn(8, WIDE + 100, device=device, generator=random).to(dtype)
    labels = torch.randint(0, WIDE + 100, (8,), device=device, generator=random)
    mine, theirs = logits.clone(), logits.clone()
    try:
        found = _on_card(mine, labels, True)
    except Exception:  # no Triton, or not for this card: it may fail in any way
        return False
    expected = _formula(theirs, labels, True)
    near = (mine.float() - theirs.float()).abs().max() <= AGREE and (found - expected).abs() <= AGREE * expected
    return bool(near)


def summed_loss(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of -log p over trained tokens, their number) for a PEFT-wrapped causal model with a frozen head.

    `batch` has input_ids and labels of shape [rows, width] and what else the model takes: an attention_mask, or for
    packed rows position_ids and their edges. The label of token t is predicted from the tokens before it. `predicting`
    [N], of a packed batch, are the places before trained tokens, so that no device has to be asked how many there are.
    """
    base = model.get_base_model()
    given = {name: value for name, value in batch.items() if name not in ("labels", "predicting")}
    labels, places = batch["labels"], batch.get("predicting")
    if (family := family_of(base)) is UNKNOWN:
        return _by_all_logits(base(**given, use_cache=False).logits, labels)
    hidden = base.model(**given, use_cache=False).last_hidden_state
    if places is None:
        trained = labels[:, 1:] != IGNORED
        hidden, labels, count = hidden[:, :-1][trained], labels[:, 1:][trained], trained.sum()
    else:
        hidden, labels = hidden[0].index_select(0, places), labels[0].index_select(0, places + 1)
        count = torch.tensor(len(places))
    head = base.get_output_embeddings()
    if family.logits_divisor is not None:
        hidden = hidden / getattr(base.config, family.logits_divisor)
    loss: torch.Tensor = HeadCrossEntropy.apply(hidden, head.weight, labels)  # type: ignore[no-untyped-call]
    return loss, count


def _by_all_logits(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of logits [rows, width, V] as a model makes them, which may scale, cap or shift what its head gives."""
    trained = labels[:, 1:] != IGNORED
    losses = torch.nn.functional.cross_entropy(logits[:, :-1][trained].float(), labels[:, 1:][trained], reduction="sum")
    return losses, trained.sum()
