"""What a user is told when memory runs out, a GPU's or the machine's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from toolkit.errors import TrainingError, first_line
from toolkit.machine import no_memory
from toolkit.recipe.schema import Recipe


def memory_told(error: BaseException) -> str | None:
    """What is said of memory that ran out; None of any other error."""
    # PyTorch takes seconds to import, and Unsloth has to come before it
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return f"out of GPU memory: {shortened(first_line(error))}"
    return no_memory(error)


def shortened(message: str) -> str:
    """PyTorch's words without what follows the memory that was asked for and is free: each other process's share."""
    return ". ".join(message.split(". ")[:3]).rstrip(".")


def memory_error(recipe: Recipe, told: str, tried: Sequence[str] = ()) -> TrainingError:
    """The error that says what is left to try with this recipe, after what the run has `tried` by itself."""
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
    if tried:  # all that a smaller cut could do
        advice = "--set model.load_in_4bit=true or a smaller train.max_length"
        told = f"{told}; tried: {', then '.join(tried)}"
    return TrainingError(f"{told}. Try {advice}")


@contextlib.contextmanager
def out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Turn torch's error into a `TrainingError` that says what is left to try with this recipe."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (told := memory_told(error)) is None:
            raise
        raise memory_error(recipe, told) from None
