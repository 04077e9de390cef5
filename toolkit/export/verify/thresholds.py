"""What a file may differ by and still be the model that was trained, and the runs that say so.

Measured on 2026-11-23: SmolLM2-135M-Instruct with an adapter trained on all built-in chats (3 epochs on an H200), 24
held-out chats (1,618 places, 191 of them in llama.cpp too), one thread of a busy CPU. The command, the whole table and
what it means: docs/benchmarks/2026-11-23-export-agreement.md. In nats a token, places, chats:

              KL        top-1 the same    KL in llama.cpp   calls the same
    F16       4.8e-07   1618 of 1618      9.1e-06           24 of 24
    BF16      3.1e-05   1618 of 1618      6.2e-05           23 of 24
    Q8_0      0.00053   1613 of 1618      0.0018            23 of 24
    Q6_K      0.0017    1608 of 1618      0.0037            22 of 24
    Q5_K_M    0.033     1576 of 1618      0.048             14 of 24
    Q4_K_M    0.036     1573 of 1618      0.025             11 of 24
    no adapter 1.25     1167 of 1618

A model this small is the hard case: it has little to spare, and 256 does not divide its rows, so that Q5_K_M and Q4_K_M
are mostly Q5_0 and Q5_1. Limits are several times what was measured, because other models and data differ, and far
below what a fault gives: each fault of tests/export/verify and the missing adapter are seen at these limits.
"""

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
    "F16": 1e-3,  # measured 0.0002
    "BF16": 4e-3,  # 0.0017
    "Q8_0": 0.02,  # 0.0065
    "Q6_K": 0.04,  # 0.019
    "Q5_K": 0.08,
    "Q5_0": 0.10,  # 0.052
    "Q5_1": 0.10,  # 0.052
    "Q4_K": 0.16,
}
"""Most relative RMS error of a tensor, by its own type; beside it the worst tensor of the run above."""

KL: dict[str, float] = {"F16": 1e-3, "BF16": 2e-3, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_K_M": 0.12, "Q4_K_M": 0.2}
"""Most mean KL(trained || file) in nats a token of held-out answers."""

KL_OF_LLAMA_CPP = 5e-3
"""What llama.cpp's own arithmetic (it rounds activations to 8 bits beside quantised weights) may add to that
at least; half of the type's own limit is allowed where that is more."""

TOP1: dict[str, float] = {"F16": 0.97, "BF16": 0.96, "Q8_0": 0.95, "Q6_K": 0.93, "Q5_K_M": 0.90, "Q4_K_M": 0.85}
"""Least share of places with the same most probable token; fails when the 95% interval lies below."""

CALLS: dict[str, float] = {"F16": 0.95, "BF16": 0.90, "Q8_0": 0.85, "Q6_K": 0.75, "Q5_K_M": 0.45, "Q4_K_M": 0.35}
"""Least share of chats with the same greedy calls; fails when the 95% interval lies below. One token decided otherwise
makes another call, so this falls faster than the share of places with the same top-1."""

FEW_CALLS = 0.8
"""Below this share of the same calls, a check that passed is a warning, and advises a finer type."""

CONTROL_FACTOR = 3.0
"""By how many times the base without adapter must be farther (in KL) than the farthest file."""
