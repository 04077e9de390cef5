"""What is asked of nvidia-smi and read off its answers, by a stand-in on the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.command import _driver
from bench.measure import used_bytes
from toolkit.planning.cards import SeenGpu, seen_gpus

SCRIPT = """#!/bin/sh
case "$*" in
  "--query-gpu=name,memory.total,compute_cap,driver_version --format=csv,noheader,nounits")
    echo "Tesla T4, 15360, 7.5, 580.1" ;;
  "--id=3 --query-gpu=memory.used --format=csv,noheader,nounits") echo 1024 ;;
  "--id=3 --query-gpu=driver_version,power.limit,clocks.max.sm,temperature.gpu --format=csv,noheader")
    echo "580.1, 70.00 W, 1590 MHz, 41" ;;
  *) exit 1 ;;
esac
"""


def test_what_nvidia_smi_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(SCRIPT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert seen_gpus() == [SeenGpu("Tesla T4", 15360 * 2**20, (7, 5), "580.1")]
    assert used_bytes() == 2**30
    assert _driver() == {
        "driver_version": "580.1",
        "power.limit": "70.00 W",
        "clocks.max.sm": "1590 MHz",
        "temperature.gpu": "41",
    }
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    assert used_bytes() is None and _driver() == {}


def test_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert seen_gpus() == [] and used_bytes() is None and _driver() == {}
