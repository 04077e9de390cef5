"""What `toolkit doctor` looks at."""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from toolkit.cache import cache_root
from toolkit.doctor.libraries import Loaded, load_libraries
from toolkit.engines.attention import attention_on
from toolkit.errors import first_line
from toolkit.hardware import AMPERE, cpu_flags, cpu_name, usable_cores
from toolkit.machine import free_bytes
from toolkit.planning.cards import SeenGpu, seen_gpus, smi_failure
from toolkit.versions import installed

ROOT = Path(__file__).parents[2]
FLASH4_PACKAGE = "flash-attn-4"
HEAD = 128  # numbers in a head of most models
OPTIONAL = {  # extras, and what they are for
    "gguf": "export to q6_k, q5_k_m and q4_k_m (other types go without)",
    "serve": "answers from GGUF files: toolkit serve, chat and the comparison after an export",
    "hybrid": "fast layers of LFM2 and Qwen3.5 on a GPU, partly built with nvcc; without they take PyTorch's slow path",
}
FOR_GPUS = ("hybrid",)  # of no use without one
BUILT = ("causal-conv1d",)  # against the torch that is here; by itself pip would build it against the newest
HOSTED = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")  # what Colab and Kaggle set
PINNED = ("triton", "xformers", "torchao", "numpy", "tokenizers", "unsloth_zoo")  # not asked for by name, but pinned


@dataclass(frozen=True, slots=True)
class Torch:
    """What torch says of itself: the CUDA it was built for, the GPUs it can use, why it does not load. `libraries`: of
    packages that bring their own for CUDA, loaded beside it. `attention`: what attends over packed rows in fp16 on a
    card before Ampere, where it is a choice between kernels that are tried there."""

    cuda: str | None = None
    gpus: tuple[str, ...] = ()
    error: str = ""
    libraries: tuple[Loaded, ...] = ()
    attention: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was looked at; sizes in bytes. `tested`: the versions of `pins`, the constraints file for this machine.

    `extra`: what the engine for GPUs wants; `extras`: what other optional parts do, by their name. `no_gpus`: why
    nvidia-smi can say of none.
    """

    python: str
    platform: str
    cpu: str
    cores: int
    cpu_flags: frozenset[str]
    memory: int
    disk: Mapping[str, int]
    gpus: Sequence[SeenGpu]
    installed: Mapping[str, str]
    required: Sequence[str]
    extra: Sequence[str]
    python_wanted: str
    torch: Torch | None = None
    extras: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tested: Mapping[str, str] = field(default_factory=dict)
    pins: str = ""
    no_gpus: str = ""


def look() -> Facts:
    """Look at this machine. Imports torch if it is there."""
    required, extras, python_wanted = _requirements()
    every = itertools.chain(required, *extras.values())
    names = [FLASH4_PACKAGE, *PINNED, *(Requirement(text).name for text in every)]
    gpus = seen_gpus()
    pins = _pins(bool(gpus))
    return Facts(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_name(),
        cores=usable_cores(),
        cpu_flags=frozenset(cpu_flags()),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        disk={"cache": free_bytes(cache_root()), "here": free_bytes(Path.cwd())},
        gpus=gpus,
        installed=installed(names),
        required=required,
        extra=extras.pop("gpu", []),
        extras=extras,
        python_wanted=python_wanted,
        torch=_torch(),
        tested=_tested(pins),
        pins=pins,
        no_gpus="" if gpus else smi_failure(),
    )


def _requirements() -> tuple[list[str], dict[str, list[str]], str]:
    """(required, extras by name, Python) from the checkout's pyproject.toml, else from the installed package."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        data = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        extras = {name: list(data["optional-dependencies"][name]) for name in ("gpu", *OPTIONAL)}
        return data["dependencies"], extras, data["requires-python"]
    required: list[str] = []
    extras = {name: [] for name in ("gpu", *OPTIONAL)}
    for text in metadata.requires("toolkit") or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            required.append(text)
            continue
        for name, found in extras.items():
            if requirement.marker.evaluate({"extra": name}):
                found.append(text)
    return required, extras, metadata.metadata("toolkit")["Requires-Python"]


def _pins(gpu: bool) -> str:
    """The constraints file for this machine; empty where the package was installed without it."""
    hosted = any(name in os.environ for name in HOSTED)
    name = "constraints.txt" if not gpu else "constraints-colab.txt" if hosted else "constraints-gpu.txt"
    return name if (ROOT / name).is_file() else ""


def _tested(pins: str) -> dict[str, str]:
    """The versions that a constraints file has for this Python, by canonical name."""
    lines = (ROOT / pins).read_text(encoding="utf-8").splitlines() if pins else []
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in wanted
        if one.marker is None or one.marker.evaluate()
    }


def _torch() -> Torch | None:
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        import torch  # which may not load: that is what is looked for

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = tuple(torch.cuda.get_device_name(index) for index in range(count))
        older = count > 0 and torch.cuda.get_device_capability(0) < AMPERE
        _, attention = attention_on(torch.device("cuda", 0), torch.float16, HEAD, None) if older else ("", "")
        return Torch(torch.version.cuda, names, "", tuple(load_libraries(torch.version.cuda)), attention)
    except Exception as error:  # a broken install may raise anything: a missing library, a wrong build
        return Torch(error=first_line(error)[:200])
