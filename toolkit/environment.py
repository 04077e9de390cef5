"""Environment switches that have to be set before anything heavy is imported."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

from toolkit.errors import EngineError

_ASKING = ("transformers", "datasets")  # they ask once, when they are imported, whether PyTorch is there
_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
QUIET = {
    "DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers, diffusers
    "DO_NOT_TRACK": "1",  # what follows the common convention, huggingface_hub among it
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",  # trackio's dashboard
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "WANDB_ERROR_REPORTING": "false",
}
# CPU threads that spin while they wait lose most of their speed when another process holds a core; sleeping ones don't.
# Read once, when the OpenMP runtime is loaded.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
# Micro-batches differ in length, and what one leaves of the GPU's memory is otherwise too small for the next. Unsloth
# sets this for itself, so the other engines get it too. torch reads either name.
ALLOCATOR = dict.fromkeys(("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), "expandable_segments:True")


def quiet() -> None:
    """Turn off what libraries would send home, and threads that spin; let a GPU's memory grow in place.

    What the user has set stays as it is.
    """
    for name, value in {**QUIET, **THREADS}.items():
        os.environ.setdefault(name, value)
    if not ALLOCATOR.keys() & os.environ.keys():
        os.environ.update(ALLOCATOR)


# By these torchrun, `accelerate launch` and MPI tell a process how many there are and which one it is.
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_RANK")
SPLITS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM")
TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets, and `accelerate launch --multi_gpu` through it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which process this is of `size` that train one model together, and of `local_size` on this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def place_of(environ: Mapping[str, str]) -> Place | None:
    """Where torchrun has put this process; None where it was started alone.

    Raises `EngineError` where it was started as one of several in a way that it can't join the others.
    """
    sizes = {name: environ[name] for name in SIZES if name in environ}
    ranks = {name: environ[name] for name in RANKS if name in environ}
    alone = all(size.strip() == "1" for size in sizes.values()) and all(rank.strip() == "0" for rank in ranks.values())
    splits = {name: environ[name] for name in SPLITS if environ.get(name, "").strip().lower() in ("1", "true")}
    if splits:
        raise EngineError(
            f"{_listed(splits)}: a model that is split over GPUs is not supported, only whole ones, one a GPU; start "
            "with `toolkit run RECIPE --gpus N`, or by torchrun"
        )
    if alone and (sizes or not ranks):
        return None
    lacking = [name for name in TORCHRUN if name not in environ]
    try:
        size, rank, local_size, local_rank = (int(environ[name]) for name in TORCHRUN[:4])
    except (KeyError, ValueError):
        size = rank = local_size = local_rank = -1
    why = ""
    if lacking:
        why = f"{' and '.join(lacking)} not set"
    elif not (0 <= local_rank < local_size <= size and 0 <= rank < size):
        why = "which do not fit together"
    elif not _can_meet(environ["MASTER_ADDR"], environ["MASTER_PORT"]):
        place = _listed({name: environ[name] for name in TORCHRUN[4:]})
        why = f"{place} (wanted the name or address of the first one's machine, and a port from 1 to 65535)"
    if why:
        several = sizes | ranks  # all of them: each may be the wrong one, and one that is left would be refused next
        raise EngineError(
            f"started as one of several processes ({_listed(several)}), but {why}: only torchrun's way is known. Start "
            "with `toolkit run RECIPE --gpus N`, or `torchrun --nproc_per_node=N -m toolkit run RECIPE`; "
            f"`unset {' '.join(several)}` where nothing started several"
        )
    return Place(rank, size, local_rank, local_size) if size > 1 else None


def _can_meet(address: str, port: str) -> bool:
    """Whether this is written as the address and port of a machine; the name may become known only later."""
    if not (port.isdecimal() and 0 < int(port) < 65536):
        return False
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return re.fullmatch(r"[\w.-]+", address) is not None
    return True


def is_one_of_several(environ: Mapping[str, str]) -> bool:
    """Whether torchrun has started this process as one of several: a glance, which nothing is refused for."""
    return "RANK" in environ and environ.get("WORLD_SIZE", "").isdecimal() and int(environ["WORLD_SIZE"]) > 1


def is_silent(environ: Mapping[str, str]) -> bool:
    """Whether this is a rank for which the first one speaks. What can't join the others speaks for itself."""
    try:
        place = place_of({name: value for name, value in environ.items() if name not in SPLITS})
    except EngineError:
        return False
    return place is not None and place.rank > 0


def forget_place(environ: MutableMapping[str, str]) -> None:
    """Take away what says that there are others, and what accelerate would put over the recipe."""
    for name in [name for name in environ if name in (*SIZES, *RANKS) or name.startswith("ACCELERATE_")]:
        del environ[name]


def _listed(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.items())


@contextmanager
def without_torch() -> Iterator[None]:
    """For commands that only tokenise: transformers is imported as where PyTorch is not installed.

    Its tokenizers need no PyTorch and are the same without it, but importing them imports PyTorch where it is, and with
    it two thousand modules. Where either is imported already nothing changes. Afterwards both can be imported as ever.
    """
    if not {"torch", "transformers"}.isdisjoint(sys.modules):
        yield
        return
    before = set(sys.modules)
    quiet_before = os.environ.get(_ADVICE)
    os.environ[_ADVICE] = "1"  # transformers would say that PyTorch is missing
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to say: not to be had
    try:
        yield
    finally:
        if sys.modules["torch"] is None:
            del sys.modules["torch"]
        if quiet_before is None:
            del os.environ[_ADVICE]
        else:
            os.environ[_ADVICE] = quiet_before
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in _ASKING:
                del sys.modules[name]  # it would go on without PyTorch


@contextmanager
def torch_unsaid() -> Iterator[None]:
    """Within `without_torch`, for calls of `datasets`, which takes any word of PyTorch in sys.modules for PyTorch."""
    halted = sys.modules.get("torch", sys) is None
    if halted:
        del sys.modules["torch"]
    try:
        yield
    finally:
        if halted:
            sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
