"""What a file may differ by and still be the model that was trained, and the runs that say so."""

from __future__ import annotations

_FALLBACKS = frozenset({"Q5_0", "Q5_1", "Q8_0", "F16"})  # for rows that 256, or 32, does not divide
TENSOR_TYPES: dict[str, frozenset[str]] = {
    "F16": frozenset({"F16"}),
    "BF16": frozenset({"BF16"}),
    "Q8_0": frozenset({"Q8_0", "F16"}),
    "Q6_K": frozenset({"Q6_K", "Q8_0", "F16"}),
    "Q5_K_M": frozenset({"Q5_K", "Q6_K"}) | _FALLBACKS,
    "Q4_K_M": frozenset({"Q4_K", "Q5_K", "Q6_K"}) | _FALLBACKS,
}
"""Types that a matrix may have in a file of a type; vectors are F32 in all."""

RMSE: dict[str, float] = {
    "F32": 1e-6,
    "F16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.02,
    "Q6_K": 0.04,
    "Q5_K": 0.08,
    "Q5_0": 0.10,
    "Q5_1": 0.10,
    "Q4_K": 0.16,
}
"""Most relative RMS error of a tensor, by its own type."""

KL: dict[str, float] = {"F16": 1e-3, "BF16": 2e-3, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_K_M": 0.06, "Q4_K_M": 0.15}
"""Most mean KL(trained || file) in nats a token of held-out answers."""

KL_OF_LLAMA_CPP = 5e-3
"""What llama.cpp's own arithmetic (it rounds activations to 8 bits beside quantised weights) may add to that."""

TOP1: dict[str, float] = {"F16": 0.97, "BF16": 0.96, "Q8_0": 0.95, "Q6_K": 0.93, "Q5_K_M": 0.90, "Q4_K_M": 0.85}
"""Least share of places with the same most probable token; fails when the 95% interval lies below."""

CALLS: dict[str, float] = {"F16": 0.98, "BF16": 0.97, "Q8_0": 0.95, "Q6_K": 0.92, "Q5_K_M": 0.90, "Q4_K_M": 0.80}
"""Least share of chats with the same greedy calls; fails when the 95% interval lies below."""

CONTROL_FACTOR = 3.0
"""By how many times the base without adapter must be farther (in KL) than the farthest file."""
