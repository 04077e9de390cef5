"""Environment switches that have to be set before anything heavy is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

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


# By these torchrun, `accelerate launch` and MPI tell a process how many there are and which one it is, and accelerate
# splits the work by them.
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_RANK")
SPLITS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM")


def one_process(environ: MutableMapping[str, str]) -> None:
    """Raise `EngineError` where this process was started as one of several, which would train wrongly.

    One that was started alone by the same programs passes; what they set is taken away, as the recipe says all.
    """
    sizes = {name: environ[name] for name in SIZES if name in environ}
    ranks = {name: environ[name] for name in RANKS if name in environ}
    several = {name: value for name, value in sizes.items() if value.strip() != "1"}
    several |= {name: value for name, value in ranks.items() if value.strip() != "0" or not sizes}
    several |= {name: environ[name] for name in SPLITS if environ.get(name, "").strip().lower() in ("1", "true")}
    if several:
        found = ", ".join(f"{name}={value}" for name, value in several.items())
        raise EngineError(
            f"started as one of several processes ({found}), as torchrun and accelerate launch do: training on several "
            "GPUs is not supported yet. Start `toolkit run` itself, once; CUDA_VISIBLE_DEVICES=0 before it picks the "
            "GPU" + ("" if sizes else f", and `unset {' '.join(several)}` where nothing started several")
        )
    for name in [name for name in environ if name in (*SIZES, *RANKS) or name.startswith("ACCELERATE_")]:
        del environ[name]


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
        del sys.modules["torch"]
        if quiet_before is None:
            del os.environ[_ADVICE]
        else:
            os.environ[_ADVICE] = quiet_before
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in _ASKING:
                del sys.modules[name]  # it would go on without PyTorch
