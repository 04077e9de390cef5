"""Environment switches that have to be set before anything heavy is imported."""

from __future__ import annotations

import os

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
