"""Which kernel attends over packed rows, and what a run says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.engines.base import Choice
from toolkit.hardware import FLASH4, Hardware
from toolkit.recipe.schema import Recipe

if TYPE_CHECKING:
    import torch

    from toolkit.kernels.packed_attention import Kernel

NAMES = {
    "flash4": "FlashAttention 4",
    "flash": "PyTorch's FlashAttention 2",
    "xformers": "xformers' block-diagonal mask",
    "rows": "sdpa by rows",
}


def attention_over_rows(model: Any, recipe: Recipe, precision: Choice, hardware: Hardware) -> tuple[Kernel, str]:
    """The kernel for a PEFT-wrapped model on the device that it is on, and what is said of it."""
    import torch  # seconds to import, which a plan does without

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision.value]
    device = next(model.parameters()).device
    return attention_on(device, dtype, head_size(model), hardware, others=wants_others(recipe))


def attention_on(
    device: torch.device, dtype: torch.dtype, size: int, hardware: Hardware | None, *, others: bool = True
) -> tuple[Kernel, str]:
    """The kernel for heads of `size` numbers, and what is said of it; `others` as `find_kernel` has it."""
    from toolkit.kernels.packed_attention import find_kernel
    from toolkit.kernels.xformers_rows import wanted, why_not

    kernel = find_kernel(device, dtype, size, others=others)
    refused = why_not(device, dtype, size) if others and kernel == "rows" and wanted(device) else ""
    return kernel, named(kernel, hardware if others else None, refused)


def without_cudnn() -> None:
    """Keep cuDNN's kernels out of PyTorch's attention, in this process.

    On Hopper PyTorch 2.11 takes them first, and their backward gives NaN for some lengths under a mask (PyTorch's issue
    196678), most under a window with heads of 256, as Gemma 3 has: padded rows then have gradients that are no numbers.
    """
    import torch  # seconds to import, which a plan does without

    torch.backends.cuda.enable_cudnn_sdp(False)


def wants_others(recipe: Recipe) -> bool:
    """Whether kernels of other packages than PyTorch's may attend."""
    return recipe.model.attn_implementation == "auto"


def named(kernel: Kernel, hardware: Hardware | None, refused: str = "") -> str:
    """What attends over packed rows, for the record, what would do it faster on this `hardware`, and why xformers was
    `refused`."""
    if kernel == "flash" and hardware is not None and hardware.gpu and hardware.gpu.capability[0] in FLASH4:
        return f"{NAMES[kernel]}; for FlashAttention 4: pip install -e '.[flash4]'"
    return f"{NAMES[kernel]}; {refused}" if refused else NAMES[kernel]


def head_size(model: Any) -> int:
    """Numbers in each head's queries of a PEFT-wrapped model."""
    config = model.get_base_model().config
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
