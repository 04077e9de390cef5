"""Where an update's time goes: the card's kernels under torch's profiler, summed by name and by what they do."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from toolkit.bench_results import Kernel

NARROW = "(8|16|24|32|40|48|64)"  # sides of a tile
# what a kernel's name says it does; the first that fits counts
KINDS: tuple[tuple[str, str], ...] = (
    ("attention", r"flash|attention|fmha|cutlassF|cutlassB"),
    ("matrix products in float8", r"nvjet\w*_q|e4m3|fp8"),
    (
        "thin matrix products",
        rf"nvjet_sm\d+_[a-z]+_({NARROW}x\d+|\d+x{NARROW})_|splitKred|gemv",
    ),
    ("matrix products", r"nvjet|gemm|cutlass|xmma|dot_kernel"),
    ("NF4 to 16 bits", r"[dD]equantize"),
    ("rows to float8", r"round_rows"),
    ("loss of the head", r"cross_entropy|softmax|_fused_linear"),
    ("optimizer", r"multi_tensor_apply|FusedAdam|foreach"),
    ("copies and fills", r"^Mem(cpy|set)|direct_copy|copy_kernel|FillFunctor|CatArray"),
    ("elementwise and reductions, compiled", r"^triton_"),
)
OTHER = "others"
IDLE = "card idle"
LONGEST = 150  # characters of a name


def kind_of(name: str) -> str:
    """What a kernel does, read off its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), OTHER)


def profiler() -> Any:
    """torch's profiler for the card's work alone, so that the host is held up as little as can be."""
    from torch.profiler import ProfilerActivity, profile

    return profile(activities=[ProfilerActivity.CUDA], acc_events=True)


def intervals(profile: Any) -> list[tuple[str, float, float]]:
    """(name, start, end) of all that ran on the card, in seconds, by start."""
    found = [
        (event.name, event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in profile.events()
        if event.device_type.name == "CUDA"
    ]
    return sorted(found, key=lambda item: item[1])


def summed(events: Sequence[tuple[str, float, float]], updates: int) -> list[dict[str, Any]]:
    """Rows of `Kernel` without the variant, the longest first, and one of the time in which the card did nothing.

    Kernels that run at one time each count whole; idle is what no kernel covers between the first and the last.
    """
    calls: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    covered, idle = events[0][1] if events else 0.0, 0.0
    for name, start, end in events:
        calls[name[:LONGEST]] += 1
        seconds[name[:LONGEST]] += end - start
        idle += max(0.0, start - covered)
        covered = max(covered, end)
    rows = [
        {"name": name, "kind": kind_of(name), "calls": calls[name] / updates, "seconds": seconds[name] / updates}
        for name in sorted(seconds, key=lambda name: -seconds[name])
    ]
    return [*rows, {"name": IDLE, "kind": IDLE, "calls": 0.0, "seconds": idle / updates}]


def by_kind(kernels: Iterable[Kernel]) -> dict[str, dict[str, float]]:
    """Seconds an update, by kind and by variant; kinds in the order of their largest share."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for kernel in kernels:
        found[kernel.kind][kernel.variant] += kernel.seconds
    order = sorted(found, key=lambda kind: (kind == IDLE, -max(found[kind].values())))
    return {kind: dict(found[kind]) for kind in order}
