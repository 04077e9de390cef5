"""Results as a bench might have written them, to plant what a gate or a claim should see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toolkit.bench_results import Arm, Results, Turn, Update

GIB = 2**30
GB = 10**9
LAYERS = 28


def arm(name: str = "peft", **values: Any) -> Arm:
    """A healthy LoRA variant of Qwen3-1.7B."""
    unsloth = name.startswith("unsloth")
    made = Arm(
        variant=name,
        title=name,
        engine="unsloth" if unsloth else "peft",
        trained="adapter",
        held="bfloat16",
        four_bit="4bit" in name,
        full_logits="logits" in name,
        status="measured",
        precision="bf16",
        checkpointing="off" if "nockpt" in name else "on",
        checkpointed=0 if "nockpt" in name else LAYERS,
        batch=16 if name.endswith("1x") else 4,
        accumulation=1 if name.endswith("1x") else 4,
        trainable=17_432_576,
        expected_trainable=17_432_576,
        patched=dict.fromkeys(("qkv", "o", "mlp"), LAYERS) if unsloth else {},
        expected_layers=LAYERS,
        moved=True,
        probe=[2.0, 3.0, 1.0, 4.0],
        chats=["a", "b", "c", "d"],
    )
    return replace(made, **values)


def plant(
    results: Results,
    name: str,
    *,
    peak: float = 5.0,
    seconds: tuple[float, ...] = (1.0, 1.1, 1.2),
    losses: tuple[float | None, ...] = (3.0, 2.9, 2.8, 2.7),
    norms: tuple[float | None, ...] = (0.5, 0.5, 0.5, 0.5),
    skipped: tuple[int, ...] = (),
    **values: Any,
) -> Arm:
    """Add a variant with one warm-up update and a turn for each of `seconds`; `peak` in the chapter's GB."""
    made = arm(name, **values)
    results.arms[name] = made
    if made.status != "measured":
        return made
    for number, loss in enumerate(losses, 1):
        turn = number - 1
        time = seconds[turn - 1] if turn else 9.0
        norm = norms[number - 1]
        results.updates.append(Update(name, turn, number, time, loss, norm, 1000, 1500, skipped=number in skipped))
        if turn:
            results.turns.append(Turn(name, turn, int(peak * GB), int(peak * GB), 700e12))
    return made


def run(shape: str = "real", profile: str = "this", card: str = "h200", **values: Any) -> Results:
    """An empty run of Qwen3-1.7B."""
    header: dict[str, Any] = {
        "date": "2026-01-02 03:04:05",
        "command": "toolkit bench",
        "profile": profile,
        "cap": int(14.56 * GIB) if profile == "t4" and card != "t4" else None,
        "card": card,
        "shape": shape,
        "recipe": "recipes/tools.toml",
        "model": "Qwen/Qwen3-1.7B",
        "parameters": 1_720_574_976,
        "trained_share": 0.114,
        "chats_per_update": 16,
        "seconds": 100.0,
        "settings": {"turns": 3, "updates": 1, "settle": 0, "warmup": 1},
        "hardware": {"gpu": {"name": "NVIDIA " + card.upper()}, "cpu": "EPYC", "cores": 16, "memory": 1},
        "versions": {"torch": "2.11", "trl": "1.15"},
    }
    return Results({**header, **values})
