"""The card's memory as its driver counts it."""

from __future__ import annotations

import os
import subprocess


def used_bytes() -> int | None:
    """Bytes in use on the first visible GPU, by all processes; None without nvidia-smi."""
    index = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
    command = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.strip()
    return int(text) * 2**20 if done.returncode == 0 and text.isdigit() else None


def description() -> dict[str, str]:
    """Driver version, power limit and clocks of the first visible GPU; empty without nvidia-smi."""
    index = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
    fields = ("driver_version", "power.limit", "clocks.max.sm", "temperature.gpu")
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if done.returncode == 0 and len(values) == len(fields) else {}
