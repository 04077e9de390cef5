"""Batched decoding of prompts with a transformers model, plain or with adapters."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from toolkit.inference.decode_attention import fast_decoding
from toolkit.inference.prefill import can_prefill, prefill, rows_at_once
from toolkit.terminal import new_console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 10.0
_WORTH_COMPACTING = 4  # rows; with fewer, going on costs less than starting again


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote for one prompt: its text without the stop token, how many tokens it took (the stop token
    counts), and whether it stopped by itself before `max_new_tokens`."""

    text: str
    new_tokens: int
    stopped: bool


Done = Callable[[int, Generated], None]


class Decoder(Protocol):
    """Whatever turns prompts (rendered text) into what a model writes after them."""

    @property
    def settings(self) -> dict[str, Any]:
        """What an evaluation says of how it was decoded."""
        ...

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        """Decode all prompts; `done(index, what was written)` is called as soon as one is finished."""
        ...


@dataclass(slots=True)
class TorchDecoder:
    """Decodes with a transformers model; see `decode`."""

    model: Any
    tokenizer: Any
    stop_ids: Sequence[int]
    max_new_tokens: int
    batch_size: int
    temperature: float = 0.0
    seed: int = 0
    progress: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        return {"max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size, "temperature": self.temperature}

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        return decode(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            stop_ids=self.stop_ids,
            temperature=self.temperature,
            seed=self.seed,
            progress=self.progress,
            done=done,
        )


def decode(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_ids: Sequence[int],
    temperature: float = 0.0,
    seed: int = 0,
    progress: bool = True,
    done: Done | None = None,
) -> list[Generated]:
    """Decode, `batch_size` prompts at a time, until a stop token or `max_new_tokens`; greedily at temperature 0.

    Prompts are rendered text; no special tokens are added. They are decoded longest first, so that a batch holds
    prompts of like length and too little memory shows at once: then the batch is halved and decoding goes on. The model
    comes back as it was: train or eval mode of every module, gradient checkpointing, cache and generation settings, and
    so do torch's random numbers.

    Raises `torch.cuda.OutOfMemoryError` when a single prompt does not fit.
    """
    import torch

    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (-len(encoded[index]), encoded[index]))
    made: dict[int, Generated] = {}
    with (
        _random(seed, temperature),
        _ready(model, tokenizer, stop_ids, max_new_tokens, temperature) as base,
        Meter(len(prompts), progress) as meter,
    ):
        position = 0
        on_cpu = base.get_input_embeddings().weight.device.type == "cpu"
        while position < len(order):
            # the longest comes first, and all are padded to it
            longest = len(encoded[order[position]]) + max_new_tokens
            fitting = rows_at_once(base, longest) if on_cpu else batch_size
            batch = order[position : position + min(batch_size, fitting)]
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
                made[index] = read_tokens(tokenizer, row, stop_ids)
                if done is not None:
                    done(index, made[index])
            position += len(batch)
            meter.batch_done(len(batch), sum(made[index].new_tokens for index in batch))
    return [made[index] for index in range(len(prompts))]


def _decode_batch(base: Any, ids: list[list[int]], stop_ids: Sequence[int], meter: Meter) -> list[list[int]]:
    """New tokens of each row, padding and all after the stop token included.

    On a CPU, where every row costs its share of a step, rows that have stopped are dropped from the batch whenever they
    are half of it; the others go on from their cache.
    """
    import torch
    from transformers import StoppingCriteriaList

    pad, most = base.generation_config.pad_token_id, base.generation_config.max_new_tokens
    longest = max(map(len, ids))
    device = base.get_input_embeddings().weight.device
    tokens = torch.tensor([[pad] * (longest - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=device)
    stops = torch.tensor(list(stop_ids), device=device)
    compacting = device.type == "cpu"
    made: list[list[int]] = [[] for _ in ids]
    alive = list(range(len(ids)))
    cache: Any = prefill(base, ids, pad) if compacting and can_prefill(base) else None
    while alive:
        finished = torch.zeros(len(alive), dtype=torch.bool, device=device)

        def step(now: Any, scores: Any, finished: Any = finished, **kwargs: Any) -> Any:
            meter.step(len(ids), (now.shape[1] - longest) / most)
            if not compacting:
                return torch.zeros_like(finished)
            finished |= torch.isin(now[:, -1], stops)
            enough = len(finished) > _WORTH_COMPACTING and 2 * int(finished.sum()) >= len(finished)
            return torch.full_like(finished, enough)

        going_on: dict[str, Any] = {"return_dict_in_generate": True} if compacting else {}
        if cache is not None:
            going_on |= {"past_key_values": cache, "max_new_tokens": longest + most - tokens.shape[1]}
        # no_grad, not inference_mode: what a model caches meanwhile (rotary tables) must serve training afterwards.
        with torch.no_grad():
            out = base.generate(
                input_ids=tokens, attention_mask=mask, stopping_criteria=StoppingCriteriaList([step]), **going_on
            )
        tokens, cache = (out.sequences, out.past_key_values) if compacting else (out, None)
        for row, new in zip(alive, tokens[:, longest:].tolist(), strict=True):
            made[row] = new
        going = (~finished).nonzero()[:, 0]
        if not compacting or tokens.shape[1] >= longest + most or not len(going):
            break
        alive = [alive[row] for row in going.tolist()]
        mask = torch.cat([mask, mask.new_ones(len(mask), tokens.shape[1] - mask.shape[1])], dim=1)[going]
        tokens = tokens[going]
        cache.batch_select_indices(going)
    return made


def read_tokens(tokenizer: Any, row: list[int], stop_ids: Sequence[int]) -> Generated:
    """What new tokens say, up to the first stop token."""
    stop = next((index for index, token in enumerate(row) if token in stop_ids), None)
    tokens = row if stop is None else row[:stop]
    # Special tokens stay: <tool_call> is one in some vocabularies, and stray ones are the model's own doing.
    text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Generated(text, len(tokens) + (stop is not None), stop is not None)


@contextlib.contextmanager
def _random(seed: int, temperature: float) -> Iterator[None]:
    """Random numbers from `seed` where sampling needs them, and torch's own generators as they were afterwards."""
    import torch

    if not temperature:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _ready(
    model: Any, tokenizer: Any, stop_ids: Sequence[int], max_new_tokens: int, temperature: float
) -> Iterator[Any]:
    """The causal LM inside `model`, set up for decoding, and everything back as it was afterwards.

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
        sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        base.generation_config = GenerationConfig(
            do_sample=bool(temperature),
            **sampling,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stop_ids),
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
        with fast_decoding(base):
            yield base
    finally:
        base.generation_config = generation_config
        base.config.use_cache = use_cache
        for module, flag in checkpointed.items():
            module.gradient_checkpointing = flag
        for module, mode in training.items():
            module.training = mode


class Meter:
    """A progress bar with tokens/s, or a line now and then where there is no terminal."""

    def __init__(self, total: int, shown: bool) -> None:
        self.total = total
        self.shown = shown and total > 0
        self.console = new_console()
        self.done = self.tokens = 0
        self.started = self.printed = time.monotonic()
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Meter:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.shown and self.console.is_terminal:
            self.progress = Progress(
                TextColumn("decoding", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}", markup=False),
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
