"""How long a run's export takes with the check of its files, as far as what it computes says so.

    writing    parameters of each file / what is merged, quantised and written a second
    comparing  reading all of them, the trained model and each file over the chats, the base without its adapter over 6
               of them, the trained model's answers, and each file in llama.cpp: the chats once, and its answers

The comparison ends after export.max_minutes, with fewer chats. llama.cpp runs on the machine's cores, also where
training has a GPU; which those are nobody knows, so their rates are assumed. What a second does was fitted to
SmolLM2-135M on two cores without AVX-512 (57 to 103 s for 6 chats) and to Qwen3-1.7B beside an H200 (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.planning.decode_time import A_LAYER
from toolkit.planning.kernel_time import Rates, evaluating

if TYPE_CHECKING:
    from toolkit.engines.setup import Setup
    from toolkit.planning.lengths import Lengths
    from toolkit.recipe.schema import EvalSection, ExportSection

_SIXTEEN = {"f16", "bf16"}
_CONTROL = 6  # chats that the base without its adapter is asked about
_STARTING = 5.0  # seconds: models are loaded, chats are gathered
_PYTHON = 5e9  # bytes of float32 weights a second that PyTorch reads for a single token on a CPU
_BYTES = 1.1  # of a weight in a file that llama.cpp runs, in the mean of the types


@dataclass(frozen=True, slots=True)
class _Host:
    """The cores: parameters of a file a second, written or read; FLOP/s in llama.cpp; bytes/s of memory."""

    parameters: float
    products: float
    memory: float


_BESIDE_A_CARD = _Host(100e6, 0.3e12, 20e9)
_MEMORY, _PARAMETERS = 7e9, 50e6  # of two cores


def export_seconds(setup: Setup, rates: Rates, lengths: Lengths, settings: EvalSection, export: ExportSection) -> float:
    """Seconds for what a recipe's [export] asks for; 0 where that is nothing."""
    if not export.gguf:
        return 0.0
    cpu = rates.memory is None
    host = _Host(_PARAMETERS, rates.products, _MEMORY) if cpu else _BESIDE_A_CARD
    parameters, files = setup.shape.parameters, len(set(export.gguf))
    written = 1 + files + (not _SIXTEEN & set(export.gguf))  # merged/, and the 16-bit file that quants are made from
    flops = 2 * lengths.mean * (setup.shape.linear_parameters + setup.trainable)
    reading = evaluating(setup, rates, lengths.mean, lengths.mean, lengths.mean * lengths.trained).total
    new = min(float(settings.max_new_tokens), 1.5 * lengths.mean * lengths.trained + 32)
    step = 4 * parameters / (_PYTHON if rates.memory is None else rates.memory)
    step += 0 if cpu else setup.shape.num_hidden_layers * A_LAYER
    answering = reading + new * step / (2 if cpu else 8)
    in_llama_cpp = flops / host.products + new * _BYTES * parameters / host.memory
    chats = export.chats
    comparing = (
        _STARTING
        + (1 + files) * parameters / host.parameters
        + reading * (chats * (1 + files) + min(chats, _CONTROL))
        + chats * (answering + files * in_llama_cpp)
    )
    return written * parameters / host.parameters + min(comparing, 60 * export.max_minutes)
