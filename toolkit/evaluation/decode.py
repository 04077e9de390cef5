"""Batched greedy decoding of prompts with a transformers model, plain or with adapters."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote for one prompt: its text without the stop token, how many tokens it took (the stop token
    counts), and whether it stopped by itself before `max_new_tokens`."""

    text: str
    new_tokens: int
    stopped: bool


def decode(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_ids: Sequence[int],
    progress: bool = True,
) -> list[Generated]:
    """Decode greedily, `batch_size` prompts at a time, until a stop token or `max_new_tokens`.

    Prompts are rendered text; no special tokens are added. They are decoded longest first, so that a batch holds
    prompts of like length and too little memory shows at once: then the batch is halved and decoding goes on. The model
    comes back as it was: train or eval mode of every module, gradient checkpointing, cache and generation settings.

    Raises `torch.cuda.OutOfMemoryError` when a single prompt does not fit.
    """
    import torch

    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (-len(encoded[index]), encoded[index]))
    made: dict[int, Generated] = {}
    with _ready(model, tokenizer, stop_ids, max_new_tokens) as base, _Meter(len(prompts), progress) as meter:
        position = 0
        while position < len(order):
            batch = order[position : position + batch_size]
            try:
                rows = _decode_batch(base, [encoded[index] for index in batch], stop_ids, meter)
            except torch.cuda.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                rows = None
            if rows is None:  # outside the except block, whose traceback would keep the batch's tensors alive
                torch.cuda.empty_cache()
                batch_size = (len(batch) + 1) // 2
                meter.say(f"out of GPU memory with {len(batch)} prompts at a time; going on with {batch_size}")
                continue
            for index, row in zip(batch, rows, strict=True):
                made[index] = _read(tokenizer, row, stop_ids)
            position += len(batch)
            meter.batch_done(len(batch), sum(made[index].new_tokens for index in batch))
    return [made[index] for index in range(len(prompts))]


def _decode_batch(base: Any, ids: list[list[int]], stop_ids: Sequence[int], meter: _Meter) -> list[list[int]]:
    """New tokens of each row, padding and all after the stop token included."""
    import torch
    from transformers import StoppingCriteriaList

    pad = base.generation_config.pad_token_id
    longest = max(map(len, ids))
    device = base.get_input_embeddings().weight.device
    input_ids = torch.tensor([[pad] * (longest - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=device)
    steps = 0

    def step(tokens: Any, scores: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        meter.step(len(ids), steps / base.generation_config.max_new_tokens)
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

    # no_grad, not inference_mode: what a model caches meanwhile (rotary tables) must serve training afterwards.
    with torch.no_grad():
        made = base.generate(input_ids=input_ids, attention_mask=mask, stopping_criteria=StoppingCriteriaList([step]))
    return made[:, longest:].tolist()


def _read(tokenizer: Any, row: list[int], stop_ids: Sequence[int]) -> Generated:
    stop = next((index for index, token in enumerate(row) if token in stop_ids), None)
    tokens = row if stop is None else row[:stop]
    # Special tokens stay: <tool_call> is one in some vocabularies, and stray ones are the model's own doing.
    text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Generated(text, len(tokens) + (stop is not None), stop is not None)


@contextlib.contextmanager
def _ready(model: Any, tokenizer: Any, stop_ids: Sequence[int], max_new_tokens: int) -> Iterator[Any]:
    """The causal LM inside `model`, set up for greedy decoding, and everything back as it was afterwards.

    The model's own generation settings are set aside whole: sampling temperatures would only cause warnings, but a
    repetition penalty would change what greedy decoding gives.
    """
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    training = {module: module.training for module in model.modules()}
    flags = {module: getattr(module, "gradient_checkpointing", False) for module in training}
    checkpointed = {module: flag for module, flag in flags.items() if flag}
    use_cache, generation_config = getattr(base.config, "use_cache", None), base.generation_config
    try:
        model.eval()
        for module in checkpointed:
            module.gradient_checkpointing = False
        base.config.use_cache = True
        base.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stop_ids),
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
        yield base
    finally:
        base.generation_config = generation_config
        base.config.use_cache = use_cache
        for module, flag in checkpointed.items():
            module.gradient_checkpointing = flag
        for module, mode in training.items():
            module.training = mode


class _Meter:
    """A progress bar with tokens/s, or a line now and then where there is no terminal."""

    def __init__(self, total: int, shown: bool) -> None:
        from rich import get_console

        self.total = total
        self.shown = shown and total > 0
        self.console = get_console()
        self.done = self.tokens = 0
        self.started = self.printed = time.monotonic()
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> _Meter:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.shown and self.console.is_terminal:
            self.progress = Progress(
                TextColumn("decoding"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self.task = self.progress.add_task("", total=self.total, text="")
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    @property
    def rate(self) -> str:
        return f"{self.tokens / max(1e-9, time.monotonic() - self.started):,.0f} tokens/s"

    def step(self, rows: int, part: float) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done + rows * min(1.0, part))

    def batch_done(self, rows: int, tokens: int) -> None:
        self.done += rows
        self.tokens += tokens
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done, text=self.rate)
        elif self.shown and time.monotonic() - self.printed > SECONDS_BETWEEN_LINES:
            self.printed = time.monotonic()
            self.say(f"decoded {self.done} of {self.total}, {self.rate}")

    def say(self, line: str) -> None:
        if self.shown:
            self.console.print(line, highlight=False)
