"""What known GPUs hold and how fast they are, and which of them is in this machine.

Data sheets say what a card can do for a moment; what it sustains is less, and is what training meets. Where somebody
measured it, that stands beside the data sheet's figure:

- T4: 4096^3 products in fp16 at 20.4 TFLOP/s (a Kaggle T4, in Unsloth's fp16_emulation.py) and at 24, its 70 W being
  the cause (NVIDIA's forum, 264462); copies on the card at 239.6 GB/s (NVIDIA's bandwidthTest).
- A100 40 GB and V100: 1,157.5 and 739.8 GB/s, by the same test.
- H200: products of training at 660 to 730 TFLOP/s and kernels at 4.3 TB/s (docs/benchmarks/2026-11-28-fast-path.md).

For other cards the H200's share of the data sheet's products and the T4's and A100's of its bandwidth are assumed.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from toolkit.errors import InputError, did_you_mean
from toolkit.hardware import AMPERE
from toolkit.words import counted

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Card:
    """A device to plan for.

    `gib`: memory that torch can use, in GiB. `half` and `single`: dense matrix products in 16 bits (accumulated in
    fp32) and in fp32, TFLOP/s, and `bandwidth`: memory, GB/s, all by the data sheet; None where it is not known.
    `sustained`: what large 16-bit products were measured to go on at, least and most, and `copied`: what memory was,
    in the same units; None where nobody is known to have measured.
    """

    name: str
    title: str
    gib: float
    capability: tuple[int, int]
    half: float | None
    single: float | None
    bandwidth: float | None
    note: str = ""
    sustained: tuple[float, float] | None = None
    copied: float | None = None

    @property
    def memory(self) -> int:
        """Usable bytes."""
        return int(self.gib * GIB)

    @property
    def flash(self) -> bool:
        """Whether there is flash attention for it."""
        return self.capability >= AMPERE


_OLD = "PyTorch wheels for CUDA 13 have left it out: take the ones for CUDA 12.6"
CARDS = {
    card.name: card
    for card in (
        Card("t4", "T4 16 GB", 14.56, (7, 5), 65, 8.1, 320, sustained=(20, 24), copied=239.6),
        Card("l4", "L4 24 GB", 22.0, (8, 9), 121, 30.3, 300),
        Card("a10g", "A10G 24 GB", 22.0, (8, 6), 70, 31.2, 600),
        Card("l40s", "L40S 48 GB", 44.4, (8, 9), 362, 91.6, 864),
        Card("a6000", "RTX A6000 48 GB", 47.4, (8, 6), 154.8, 38.7, 768),
        Card("a100-40", "A100 40 GB", 39.4, (8, 0), 312, 19.5, 1555, copied=1157.5),
        Card("a100-80", "A100 80 GB", 79.1, (8, 0), 312, 19.5, 2039),
        Card("h100", "H100 SXM 80 GB", 79.1, (9, 0), 989, 66.9, 3350),
        Card("h200", "H200 141 GB", 139.8, (9, 0), 989, 66.9, 4800, sustained=(660, 730), copied=4300),
        Card("rtx3060", "RTX 3060 12 GB", 11.6, (8, 6), 25.6, 12.7, 360),
        Card("rtx3090", "RTX 3090 24 GB", 23.6, (8, 6), 71, 35.6, 936),
        Card("rtx4060", "RTX 4060 8 GB", 7.6, (8, 9), 30.2, 15.1, 272),
        Card("rtx4090", "RTX 4090 24 GB", 23.5, (8, 9), 165.2, 82.6, 1008),
        Card("rtx5090", "RTX 5090 32 GB", 31.3, (12, 0), 209.5, 104.8, 1792),
        Card("v100", "V100 16 GB", 15.7, (7, 0), 125, 15.7, 900, _OLD, copied=739.8),
        Card("v100-32", "V100 32 GB", 31.7, (7, 0), 125, 15.7, 900, _OLD, copied=739.8),
        Card("p100", "P100 16 GB", 15.8, (6, 0), 18.7, 9.3, 732, _OLD),
    )
}
_ALIASES = {"a100": "a100-40", "a10040": "a100-40", "a10080": "a100-80", "a10": "a10g", "v10032": "v100-32"}

# what one core does in matrix products, GFLOP/s: measured on an EPYC with AVX-512, its bfloat16 products included
CORE_SINGLE = 88
CORE_HALF = 193
# and what one without AVX-512 is taken to do: half as wide. `make run` on two such cores (EPYC, 2026-11-29: 26 updates
# of 590 tokens, 5.6 s each) reached 0.6 of it over a whole update, as those with AVX-512 do
CORE_SINGLE_AVX2 = 44


def find_card(name: str) -> Card:
    """The card that a user means by `t4`, `RTX 4090` or `a100-80gb`. Raises `InputError` with the nearest names."""
    short = _short(name)
    known = {_short(key): key for key in CARDS} | {_short(key).removeprefix("rtx"): key for key in CARDS} | _ALIASES
    if short in known:
        return CARDS[known[short]]
    raise InputError(f"--gpu {name}: unknown card{did_you_mean(short, known)}; known are {', '.join(CARDS)}, and cpu")


def _short(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|gb$|sxm\d?|pcie?|[^a-z0-9]", "", name.lower())


@dataclass(frozen=True, slots=True)
class SeenGpu:
    """A GPU as nvidia-smi reports it; `memory` in bytes."""

    name: str
    memory: int
    capability: tuple[int, int]
    driver: str

    @property
    def card(self) -> Card:
        """The known card of this name, or one without speeds. Its memory is what is really there."""
        words = self.name.lower().replace("-", " ").split()
        gib = self.memory / GIB * 0.98  # the driver keeps some
        fitting = [card for card in CARDS.values() if abs(card.gib - gib) < 0.1 * gib and self._is(card, words)]
        if fitting:
            return fitting[0]
        return Card(self.name, self.name, round(gib, 2), self.capability, None, None, None)

    def _is(self, card: Card, words: list[str]) -> bool:
        model = card.name.partition("-")[0].removeprefix("rtx")
        return model in words and card.capability == self.capability


def seen_gpus() -> list[SeenGpu]:
    """The NVIDIA GPUs of this machine, through nvidia-smi; an empty list without a driver."""
    return parse_smi(query_smi("name", "memory.total", "compute_cap", "driver_version"))


def query_smi(*fields: str, gpu: str | None = None, units: bool = False) -> str:
    """What nvidia-smi says of all GPUs, or of one by its number, as CSV; empty where it can't be asked."""
    one = [f"--id={gpu}"] if gpu is not None else []
    query = [f"--query-gpu={','.join(fields)}", f"--format=csv,noheader{'' if units else ',nounits'}"]
    try:
        done = subprocess.run(
            ["nvidia-smi", *one, *query], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def smi_failure() -> str:
    """Why nvidia-smi, where it is there, can say nothing, in its own first line; empty where it can or is not there."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return "it gives no answer"
    except OSError:
        return ""
    if done.returncode == 0:
        return ""
    return next((line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()), "it fails")[:200]


def parse_smi(text: str) -> list[SeenGpu]:
    """The lines of nvidia-smi's CSV: name, memory in MiB, compute capability, driver. Other lines are left out."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[1].isdigit() and re.fullmatch(r"\d+\.\d+", parts[2]):
            major, minor = map(int, parts[2].split("."))
            found.append(SeenGpu(parts[0], int(parts[1]) * 2**20, (major, minor), parts[3]))
    return found


def cpu_card(cores: int, memory: int, name: str, *, wide: bool = True) -> Card:
    """The processor as a device; `memory` in bytes. A core's speed is assumed, see `CORE_SINGLE`; `wide`: AVX-512."""
    single = CORE_SINGLE if wide else CORE_SINGLE_AVX2
    title = f"{counted(cores, 'core')} of {name}"
    return Card("cpu", title, memory / GIB, (0, 0), CORE_HALF * cores / 1e3, single * cores / 1e3, None)
