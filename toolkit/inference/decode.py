"""Batched decoding of prompts with a transformers model, plain or with adapters.

PyTorch and transformers are imported where they are used: loading them takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from toolkit.data.special_text import prompt_ids
from toolkit.inference.decode_attention import fast_decoding
from toolkit.inference.meter import Meter
from toolkit.machine import no_memory


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
    """Decode at most `batch_size` prompts at a time to a stop token or `max_new_tokens`; greedily at temperature 0.

    Prompts are rendered text, tokenised by `prompt_ids`. They are decoded longest first, so that too little memory
    shows at once: then half as many are decoded at a time. The model comes back as it was: train or eval mode of every
    module, gradient checkpointing, cache and generation settings, and so do torch's random numbers. Models whose cache
    or attention is their own (`toolkit.inference.continuous.is_plain`) are decoded by their own `generate`.

    Raises `torch.cuda.OutOfMemoryError` when a single prompt does not fit.
    """
    import torch

    from toolkit.inference import continuous

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain = continuous.is_plain(base)
    # an empty prompt goes on from padding
    encoded = [prompt_ids(tokenizer, text) or [tokenizer.pad_token_id] for text in prompts]
    waiting = sorted(range(len(prompts)), key=lambda index: (-len(encoded[index]), encoded[index]))
    made: dict[int, Generated] = {}
    with (
        _random(seed, temperature),
        _ready(model, base, tokenizer, stop_ids, max_new_tokens, temperature, plain),
        Meter(len(prompts), progress) as meter,
    ):
        if not plain and base.device.type != "cpu":
            meter.say("this model's cache or attention is its own: decoded by its own generate, which takes longer")
        while waiting:
            most = len(encoded[waiting[0]]) + max_new_tokens
            fitting = continuous.rows_at_once(base, most, plain=plain)
            # places for the longest are wasted on what is half as long
            alike = [index for index in waiting if 2 * (len(encoded[index]) + max_new_tokens) > most]
            rows = min(batch_size, fitting, len(alike))
            ids = [encoded[index] for index in alike]
            try:
                found = (
                    continuous.decode_continuously(
                        base,
                        ids,
                        rows,
                        max_new_tokens=max_new_tokens,
                        stop_ids=stop_ids,
                        temperature=temperature,
                        meter=meter,
                    )
                    if plain
                    else _generate(base, ids[:rows], meter)
                )
                for number, row in found:
                    index = alike[number]
                    made[index] = read_tokens(tokenizer, row, stop_ids)
                    meter.one_done(made[index].new_tokens)
                    if done is not None:
                        done(index, made[index])
            except (RuntimeError, MemoryError) as error:
                if rows == 1 or not (isinstance(error, torch.OutOfMemoryError) or no_memory(error)):
                    raise
                batch_size = (rows + 1) // 2
                meter.say(f"out of memory with {rows} prompts at a time; going on with {batch_size}")
            # after the except block, whose traceback would keep the tensors alive
            if batch_size < rows and torch.cuda.is_available():
                torch.cuda.empty_cache()
            waiting = [index for index in waiting if index not in made]
    return [made[index] for index in range(len(prompts))]


def _generate(base: Any, ids: list[list[int]], meter: Meter) -> Iterator[tuple[int, list[int]]]:
    """(index, new tokens) of prompts that `generate` decodes as one batch, what follows a stop token included."""
    import torch
    from transformers import StoppingCriteriaList

    pad, most = base.generation_config.pad_token_id, base.generation_config.max_new_tokens
    longest = max(map(len, ids))
    device = base.get_input_embeddings().weight.device
    tokens = torch.tensor([[pad] * (longest - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=device)

    def step(now: Any, scores: Any, **kwargs: Any) -> Any:
        meter.under_way(len(ids) * (now.shape[1] - longest) / most)
        return torch.zeros(len(now), dtype=torch.bool, device=device)

    with torch.no_grad():  # see toolkit.inference.continuous.Rows
        out = base.generate(input_ids=tokens, attention_mask=mask, stopping_criteria=StoppingCriteriaList([step]))
    yield from enumerate(out[:, longest:].tolist())


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
    model: Any,
    base: Any,
    tokenizer: Any,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    plain: bool,
) -> Iterator[None]:
    """`model` and the causal LM inside it, `base`, set up for decoding, and everything back as it was afterwards.

    The model's own generation settings are set aside whole: sampling temperatures would only cause warnings, but a
    repetition penalty would change what greedy decoding gives.
    """
    from transformers import GenerationConfig

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
        with fast_decoding(base, plain=plain):
            yield
    finally:
        base.generation_config = generation_config
        base.config.use_cache = use_cache
        for module, flag in checkpointed.items():
            module.gradient_checkpointing = flag
        for module, mode in training.items():
            module.training = mode
