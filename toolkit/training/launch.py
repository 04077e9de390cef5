"""`toolkit run --gpus N`: the same command once for each GPU, started and watched by torchrun's own launcher."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import tempfile
import uuid
from dataclasses import fields
from typing import Any

from toolkit.errors import EngineError, InterruptedRun, ToolkitError, first_line
from toolkit.hardware import usable_cores
from toolkit.machine import refusal
from toolkit.planning.sharing import check_share
from toolkit.terminal import warn
from toolkit.words import counted

SHUTDOWN = 45  # seconds that ranks have to end by themselves, once one has ended or all are asked to
FILES, FILES_EACH = 24, 8  # open files of the launcher, and more for each rank: measured were 25 with two ranks


class RanksFailed(ToolkitError):
    """Ranks have ended with an error. Says which only where none could do so itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(gpus: int, chats: int) -> None:
    """Run this process's command line as `gpus` ranks on this machine, which share updates of `chats`, until all ended.

    What torchrun would do as `torchrun --standalone --nproc_per_node=N -m toolkit ...`, without its own report: ranks
    say what is wrong in their own words. Raises `InputError` where there are fewer chats, `EngineError` where there are
    fewer GPUs (or cores), `ToolkitError` where this machine does not let processes meet, `RanksFailed` with the ranks'
    exit code, and `InterruptedRun` where this process was asked to stop, which ranks have been told then.
    """
    check_share(chats, gpus)
    _check_open_files(gpus)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a page of warnings beside our line
    import torch  # seconds, which a recipe with a mistake does not wait for
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    found = torch.cuda.device_count()
    if found and gpus > found:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = "this machine has" if seen is None else f"CUDA_VISIBLE_DEVICES={seen} leaves"
        raise EngineError(f"--gpus {gpus}: {where} {counted(found, 'GPU')}; wanted --gpus {found} at most")
    if not found:
        cores = usable_cores()
        most = max(2, cores)  # two on one core too, to try it out
        if gpus > most:
            here = f"no CUDA GPU here, and {counted(cores, 'core')}"
            raise EngineError(f"--gpus {gpus}: {here}; wanted --gpus {most} at most")
        warn(f"note: no CUDA GPU here: --gpus {gpus} trains as {gpus} processes on the CPU, for trying it out")
    with tempfile.TemporaryDirectory(prefix="toolkit-ranks-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=gpus,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a port that is free
            rdzv_configs={"is_host": True},  # else what can't open one looks for another's, for a minute and more
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
        except (RendezvousError, RuntimeError) as error:  # the latter from the store, which is C++
            raise _never_met(gpus, error) from None
        finally:
            logging.disable(logging.NOTSET)


def _check_open_files(gpus: int) -> None:
    """Raise `ToolkitError` where so few files may be open that the launcher would fail or, with some more, hang."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES + FILES_EACH * gpus
    if most != resource.RLIM_INFINITY and most < wanted:
        raise ToolkitError(
            f"--gpus {gpus}: `ulimit -n` allows {most} open files; wanted {wanted} at least, as by `ulimit -n 4096`"
        )


def _never_met(gpus: int, error: BaseException) -> ToolkitError:
    """What is said where the launcher could not open the place at which ranks meet, or has lost it."""
    if told := refusal(error):
        return ToolkitError(f"--gpus {gpus}: {told}")
    first = error
    while (behind := first.__cause__ or first.__context__) is not None:
        first = behind
    said = first_line(first).rstrip(".")
    return ToolkitError(
        f"--gpus {gpus}: the processes can't meet on this machine: {said}; wanted the name localhost for this machine "
        "(in /etc/hosts), and a free port of it that its own programs may connect to"
    )


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
