"""How long decoding held-out chats takes: a prediction, for `toolkit plan`.

    prompts   FLOPs of their tokens / what products sustain, and a time for each chat
    steps     one token of every row: all weights read once / the memory's rate, and a time for each layer

Rows are filled again as chats end (`toolkit.inference.continuous`), so there are as many steps as tokens over rows, and
one more answer's at the end, when rows run empty. Both times are fitted to SmolLM2-135M on an H200: 400 chats, 41,580
tokens in 4.0 s with 128 rows and in 5.3 s with 64 (docs/log.md, 2026-11-29).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from toolkit.engines.setup import Setup
from toolkit.planning.kernel_time import NF4_BYTES_MOVED, Rates

if TYPE_CHECKING:
    from toolkit.planning.lengths import Lengths
    from toolkit.planning.steps import Updates
    from toolkit.recipe.schema import EvalSection, Recipe

A_CHAT = 0.006  # seconds: its prompt is read between the steps of the others
A_LAYER = 1.2e-4  # seconds of a step's small kernels


def decodings(settings: EvalSection, updates: Updates, every: int) -> int:
    """How often a run decodes its held-out chats; `every`: updates between evaluations."""
    if not settings.generate:
        return 0
    if not settings.generate_steps:
        return 2  # before and after
    wanted = every if settings.generate_steps == "eval" else settings.generate_steps
    return 1 + math.ceil(updates.total / (every * math.ceil(wanted / every)))


def decoding_seconds(recipe: Recipe, before: float) -> float:
    """Seconds of decoding that go with each evaluation, where decoding the same chats took `before` seconds."""
    steps, every = recipe.eval.generate_steps, recipe.eval.eval_steps
    if not recipe.eval.generate or not steps:
        return 0.0
    return before * (min(1.0, every / steps) if isinstance(steps, int) and isinstance(every, int) else 1.0)


def decode_seconds(setup: Setup, rates: Rates, lengths: Lengths, settings: EvalSection, chats: int) -> float:
    """Seconds for the first answers of `chats` chats, taken to be as long as all that is trained of a chat."""
    if not chats:
        return 0.0
    shape = setup.shape
    new = min(float(settings.max_new_tokens), lengths.mean * lengths.trained)
    prompt = lengths.mean * (1 - lengths.trained)
    layers, head = shape.linear_parameters + setup.trainable, shape.head_parameters
    prompts = 2 * chats * (prompt * layers + head) / rates.products
    if rates.memory is None:  # a CPU's products take as long for few rows as for many
        return prompts + 2 * chats * new * (layers + head) / rates.products
    rows = min(settings.generate_batch_size, chats)
    held = NF4_BYTES_MOVED if setup.held == "nf4" else setup.element
    step = (layers * held + head * setup.element) / rates.memory + shape.num_hidden_layers * A_LAYER
    return prompts + chats * A_CHAT + (chats * new / rows + new) * step
