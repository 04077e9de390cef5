"""The language-model head on trained tokens only, in chunks, without ever holding all logits.

TRL has the same idea as a Triton kernel; this one is plain torch and runs on a CPU too.
"""

from __future__ import annotations

from typing import Any

import torch

from toolkit.planning.memory import PACKED_LOGITS
from toolkit.training.dataset import IGNORED

# float32 logits that exist at one time: 64 MiB, on a GPU 256 MiB (442 tokens of Qwen3's vocabulary)
CHUNK_LOGITS = 1 << 24
CHUNK_LOGITS_GPU = PACKED_LOGITS


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
            logits = (hidden[part].to(weight.dtype) @ weight.T).float()
            target = labels[part, None]
            log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
            total += (log_sum - logits.gather(1, target)).sum()
            if grad is not None:
                logits.sub_(log_sum).exp_()
                logits.scatter_add_(1, target, torch.full_like(target, -1, dtype=logits.dtype))
                grad[part] = (logits.to(weight.dtype) @ weight).to(grad.dtype)
        ctx.save_for_backward(*([grad] if grad is not None else []))
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * outputs[0].to(grad.dtype), None, None


def summed_loss(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of -log p over trained tokens, their number) for a PEFT-wrapped causal model with a frozen head.

    `batch` has input_ids and labels of shape [rows, width] and what else the model takes: an attention_mask, or for
    packed rows position_ids and their edges. The label of token t is predicted from the tokens before it. `predicting`
    [N], of a packed batch, are the places before trained tokens, so that no device has to be asked how many there are.
    """
    base = model.get_base_model()
    given = {name: value for name, value in batch.items() if name not in ("labels", "predicting")}
    hidden = base.model(**given, use_cache=False).last_hidden_state
    labels, places = batch["labels"], batch.get("predicting")
    if places is None:
        trained = labels[:, 1:] != IGNORED
        hidden, labels, count = hidden[:, :-1][trained], labels[:, 1:][trained], trained.sum()
    else:
        hidden, labels = hidden[0].index_select(0, places), labels[0].index_select(0, places + 1)
        count = torch.tensor(len(places))
    head = base.get_output_embeddings()
    loss: torch.Tensor = HeadCrossEntropy.apply(hidden, head.weight, labels)  # type: ignore[no-untyped-call]
    return loss, count
