"""What a user is told when memory runs out, a GPU's or the machine's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from toolkit.errors import TrainingError
from toolkit.machine import no_memory
from toolkit.recipe.schema import Recipe


@contextlib.contextmanager
def out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Turn torch's error into a `TrainingError` that says what is left to try with this recipe."""
    # PyTorch takes seconds to import, and Unsloth has to come before it
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        on_gpu = isinstance(error, torch.cuda.OutOfMemoryError)
        told = f"out of GPU memory: {str(error).splitlines()[0]}" if on_gpu else no_memory(error)
        if told is None:
            raise
        train = recipe.train
        half = max(1, train.per_device_train_batch_size // 2)
        steps = train.gradient_accumulation_steps * train.per_device_train_batch_size // half
        advice = (
            f"--set train.per_device_train_batch_size={half} --set train.gradient_accumulation_steps={steps} "
            "(the same update in smaller pieces)"
            if half < train.per_device_train_batch_size
            else "--set train.gradient_checkpointing=true, --set model.load_in_4bit=true or a smaller train.max_length"
        )
        if train.micro_batch != "fixed":  # the budget decides the size of a packed micro-batch, not the batch settings
            less = {False: "auto, ", "auto": "true, "}.get(train.gradient_checkpointing, "")
            recompute = f"--set train.gradient_checkpointing={less}" if less else ""
            advice = (
                f"{recompute}a smaller train.micro_batch (a number of tokens; `toolkit plan` says the least), "
                "or a smaller train.max_length"
            )
        raise TrainingError(f"{told}. Try {advice}") from None
