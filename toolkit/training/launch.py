"""`toolkit run --gpus N`: the same command once for each GPU, started and watched by torchrun's own launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from dataclasses import fields
from typing import Any

from toolkit.errors import EngineError, InterruptedRun, ToolkitError
from toolkit.hardware import usable_cores
from toolkit.planning.sharing import check_share
from toolkit.terminal import warn
from toolkit.words import counted

SHUTDOWN = 45  # seconds that ranks have to end by themselves, once one has ended or all are asked to


class RanksFailed(ToolkitError):
    """Ranks have ended with an error. Says which only where none could do so itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(gpus: int, chats: int) -> None:
    """Run this process's command line as `gpus` ranks on this machine, which share updates of `chats`, until all ended.

    What torchrun would do as `torchrun --standalone --nproc_per_node=N -m toolkit ...`, without its own report: ranks
    say what is wrong in their own words. Raises `InputError` where there are fewer chats, `EngineError` where there are
    fewer GPUs (or cores), `RanksFailed` with the ranks' exit code, and `InterruptedRun` where this process was asked to
    stop, which ranks have been told then.
    """
    check_share(chats, gpus)
    import torch  # seconds, which a recipe with a mistake does not wait for
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    found = torch.cuda.device_count()
    if found and gpus > found:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = "this machine has" if seen is None else f"CUDA_VISIBLE_DEVICES={seen} leaves"
        raise EngineError(f"--gpus {gpus}: {where} {counted(found, 'GPU')}; wanted --gpus {found} at most")
    if not found:
        cores = usable_cores()
        if gpus > max(2, cores):
            here = f"no CUDA GPU here, and {counted(cores, 'core')}"
            raise EngineError(f"--gpus {gpus}: {here}; wanted --gpus {max(2, cores)} at most")
        warn(f"note: no CUDA GPU here: --gpus {gpus} trains as {gpus} processes on the CPU, for trying it out")
    with tempfile.TemporaryDirectory(prefix="toolkit-ranks-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=gpus,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a port that is free
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            **_patience(LaunchConfig),
        )
        logging.disable(logging.CRITICAL)
        try:
            elastic_launch(config, sys.executable)("-m", "toolkit", *sys.argv[1:])
        except ChildFailedError as error:
            raise _told(error) from None
        except SignalException:
            raise InterruptedRun("") from None
        finally:
            logging.disable(logging.NOTSET)


def _patience(config: Any) -> dict[str, Any]:
    """How long ranks may take to end; PyTorch before 2.12 gives them 30 s, whatever is asked for."""
    asked = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "")
    if asked and not asked.isdecimal():
        raise EngineError(f"TORCH_ELASTIC_SHUTDOWN_TIMEOUT = {asked!r}; wanted a whole number of seconds")
    if "shutdown_timeout" not in {field.name for field in fields(config)}:
        return {}
    return {"shutdown_timeout": int(asked or SHUTDOWN)}


def _told(error: object) -> RanksFailed:
    """The first rank that failed: by its exit code, or by the signal that ended it, which it could not say itself."""
    rank, failure = error.get_first_failure()  # type: ignore[attr-defined]
    if failure.exitcode >= 0:
        return RanksFailed("", failure.exitcode)
    name = signal.Signals(-failure.exitcode).name
    memory = ", as the kernel does where memory runs out" if name == "SIGKILL" else ""
    return RanksFailed(f"rank {rank} (process {failure.pid}) was ended by {name}{memory}; the others were stopped", 1)
