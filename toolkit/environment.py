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


def quiet() -> None:
    """Turn off what libraries would send home, and threads that spin. What the user has set stays as it is."""
    for name, value in {**QUIET, **THREADS}.items():
        os.environ.setdefault(name, value)
