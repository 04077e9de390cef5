"""The ranks of a run: processes that train one model together, one a card, and what they say to each other.

torchrun starts them, or `toolkit run --gpus`, which is torchrun's launcher. Each rank has a trainer that knows of no
other: transformers, TRL, PEFT, accelerate and Unsloth run as on one card, which is the only one that a rank sees. All
that ranks share goes through `here()`: objects and counts from host to host (gloo), tensors from card to card (NCCL).
Where a process is alone `here()` is a `Ranks` that does each of these things for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from toolkit.environment import Place, forget_place, place_of
from toolkit.errors import EngineError, RankLost, RunError, ToolkitError, first_line
from toolkit.terminal import mute
from toolkit.words import counted

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
MEETING = timedelta(minutes=5)  # for all ranks to be there
WAITING = timedelta(hours=12)  # for one that tokenises or decodes; one that has ended is noticed at once
CARDS = timedelta(minutes=10)  # for cards, which wait for each other only once all hosts have come that far
TELLING = 10.0  # seconds that a rank leaves to the first one to say what all would say
ENDING = 5.0  # seconds from a process's last connection to its end


class Ranks:
    """One process alone. `machines`: how many there are; `local_rank`: which process this is of its machine."""

    rank, size, local_rank, local_size, machines = 0, 1, 0, 1, 1
    broken = False  # another rank has ended

    @property
    def first_one(self) -> bool:
        """Whether this is the rank that writes files and says things."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What each rank gives, in their order, on each rank."""
        return [value]

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives on the first rank, or the `ToolkitError` that it raises there, on each rank."""
        return work()

    def machine_first(self, work: Callable[[], T]) -> T:
        """`work` on each rank, on one of each machine before the others, so that these find what it left in a cache."""
        return work()

    def agree(self, values: Mapping[str, object]) -> None:
        """Raise `RunError` on each rank where a value is not the same on all."""

    def sums(self, *numbers: int) -> list[int]:
        """Each number summed over ranks. All hosts have come here when it returns."""
        return list(numbers)

    def add(self, tensor: torch.Tensor) -> None:
        """Sum a tensor over ranks, in place; the card does it when it comes to it."""

    def copy(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give the tensors the values that they have on the first rank."""

    def tells(self, error: BaseException) -> str | None:
        """What stands before an error that this rank is to tell; None where another rank tells it."""
        return ""

    def leave(self) -> None:
        """Part from the others, once all have come here. This process is alone afterwards."""


class Several(Ranks):
    """One of several processes, in torch.distributed's default group."""

    def __init__(self, place: Place, store: Any, cuda: bool) -> None:
        import torch.distributed as dist  # seconds, which what runs alone may do without

        self.rank, self.size, self.local_size = place.rank, place.size, place.local_size
        self.store, self.cuda = store, cuda
        self.cards: Any = None
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=WAITING)
        found = self.gather((socket.gethostname(), _boot(), os.getpid()))
        self.processes: list[tuple[str, int]] = [(host, pid) for host, _, pid in found]
        machines = [(host, boot) for host, boot, _ in found]
        self.machines = len(set(machines))
        # counted here: torchrun can be told to call each rank of a machine the first
        self.local_rank = machines[: self.rank].count(machines[self.rank])
        self.neighbours = [rank for rank, machine in enumerate(machines) if machine == machines[self.rank]]

    def connect_cards(self) -> None:
        """The group of all ranks' cards; NCCL is asked for the first sum only."""
        import torch.distributed as dist

        if self.cuda:
            self.cards = dist.new_group(backend="nccl", timeout=CARDS)

    def hide(self) -> None:
        """Say to libraries, which ask torch.distributed, that there is no group, as the environment does.

        Unsloth has all ranks agree on where its code is written, when it is imported too, which ranks don't do at one
        time: each would wait for ever. torch's own functions do not ask in this way.
        """
        import torch.distributed as dist

        self.asked, dist.is_initialized = dist.is_initialized, _there_is_none

    def gather(self, value: T) -> list[T]:
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(found, value)
        return found

    def first(self, work: Callable[[], T]) -> T:
        import torch.distributed as dist

        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = work()
            except ToolkitError as error:
                outcome[1] = error
        with self._together():
            dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def machine_first(self, work: Callable[[], T]) -> T:
        made: Any = None
        error: ToolkitError | None = None
        if self.local_rank == 0:
            try:
                made = work()
            except ToolkitError as raised:
                error = raised
        for found in self.gather(error):
            if found is not None:
                raise found
        return made if self.local_rank == 0 else work()

    def agree(self, values: Mapping[str, object]) -> None:
        everyone = self.gather(dict(values))
        for rank, theirs in enumerate(everyone):
            for name, value in everyone[0].items():
                if theirs[name] != value:
                    raise RunError(
                        f"rank {rank} on {self.processes[rank][0]} has another {name} than rank 0 on "
                        f"{self.processes[0][0]} ({_short(theirs[name])} and {_short(value)}); wanted the same on all "
                        f"{self.size}"
                    )

    def sums(self, *numbers: int) -> list[int]:
        import torch
        import torch.distributed as dist

        counts = torch.tensor(numbers, dtype=torch.int64)
        with self._together():
            dist.all_reduce(counts)
        return [int(count) for count in counts]

    def add(self, tensor: torch.Tensor) -> None:
        import torch.distributed as dist

        with self._together():
            dist.all_reduce(tensor, group=self.cards if tensor.is_cuda else None)

    def copy(self, tensors: Sequence[torch.Tensor]) -> None:
        import torch.distributed as dist

        with self._together():
            for tensor in tensors:
                dist.broadcast(tensor, src=0, group=self.cards if tensor.is_cuda else None)

    def tells(self, error: BaseException) -> str | None:
        """The first rank tells what it meets; another only what the first has not told within `TELLING` seconds."""
        key = "told/" + hashlib.sha256(str(error).encode()).hexdigest()
        if self.broken:  # each of those that are left may be the only one
            return self._alone_in_telling(key)
        with contextlib.suppress(Exception):  # the store may be gone with the first rank, which has told then
            self.store.set(f"stopped/{self.rank}", "1")
            until = time.monotonic() + TELLING
            while self.rank and time.monotonic() < until:
                gone = 0 in self.neighbours and not _is_alive(self.processes[0][1])
                if self.store.check([key]):  # looked at last: it may have been told just before the end
                    return None
                if gone:
                    break
                time.sleep(0.05)
            self.store.add(key, 1)
            return f"rank {self.rank}: " if self.rank else ""
        return None if self.rank else ""

    def _alone_in_telling(self, key: str) -> str | None:
        with contextlib.suppress(Exception):
            return "" if self.store.add(key, 1) == 1 else None
        return ""

    def leave(self) -> None:
        import torch.distributed as dist

        self.sums(0)
        dist.is_initialized = self.asked
        dist.destroy_process_group()
        _Joined.ranks = Ranks()

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Raise `RankLost` where another rank is not there any more."""
        try:
            yield
        except RuntimeError as error:  # gloo's, of a connection that was closed
            self.broken = True
            raise RankLost(self._who_is_gone(error)) from None

    def _who_is_gone(self, error: RuntimeError) -> str:
        """Which rank it was, where it can be told: those of this machine by their processes."""
        until = time.monotonic() + ENDING
        while time.monotonic() < until:  # a process that closes its connections is not gone yet
            gone = [rank for rank in self.neighbours if not _is_alive(self.processes[rank][1])]
            if gone:
                told = " and ".join(f"rank {rank} (process {self.processes[rank][1]})" for rank in gone)
                return f"{told} {'have' if len(gone) > 1 else 'has'} {self._how(gone)}"
            time.sleep(0.05)
        said = (str(error).strip().splitlines() or ["no reason given"])[0]
        return f"another rank has ended or can't be reached: {said}"

    def _how(self, gone: Sequence[int]) -> str:
        with contextlib.suppress(Exception):
            if all(self.store.check([f"stopped/{rank}"]) for rank in gone):
                return "stopped"
        return "ended"


class _Joined:
    ranks: Ranks = Ranks()


def here() -> Ranks:
    """This process among the ranks of its run."""
    return _Joined.ranks


def join(environ: MutableMapping[str, str]) -> Ranks:
    """Meet the other ranks where torchrun has started this process as one of several, and take this rank's card.

    Comes before anything asks for a GPU. What says that there are others is taken out of `environ`. Raises
    `EngineError` where the ranks do not come together, or where a machine has fewer cards than ranks.
    """
    place = place_of(environ)
    if place is None:
        forget_place(environ)
        return here()
    import torch  # seconds, which what runs alone may do without
    from torch.distributed.rendezvous import rendezvous

    mute(place.rank > 0)
    cards = torch.cuda.device_count()
    master = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
    try:
        store, _, _ = next(rendezvous("env://", timeout=MEETING))
        ranks = Several(place, store, cuda=cards > 0)
    except (RuntimeError, ValueError) as error:
        said = first_line(error)
        taken = "in use" in said or "EADDRINUSE" in said
        mute(False)  # none can speak for another that it has not met
        advice = "another program has this port; give torchrun another --master-port" if taken else said
        raise EngineError(f"rank {place.rank} of {place.size} can't meet the others at {master}: {advice}") from None
    _Joined.ranks = ranks
    _check_cards(ranks, place.local_rank, cards)
    if cards:
        take_card(environ, place.local_rank)
    forget_place(environ)
    ranks.connect_cards()
    ranks.hide()
    return ranks


def _there_is_none() -> bool:
    return False


def in_turn(parts: Sequence[Sequence[T]]) -> list[T]:
    """What ranks have done in turn, put in order again: the first of each, the second of each, and so on."""
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


def take_card(environ: MutableMapping[str, str], local_rank: int) -> None:
    """Let this process see one card, as `torchrun --virtual-local-rank` does, so that device 0 is the rank's.

    Everything that stands below training was written and measured for one card, much of it not ours; what sees no
    other can't take a wrong one. NCCL finds the other ranks' cards by their addresses on the bus.
    """
    seen = environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[local_rank].strip() if seen else str(local_rank)


def _check_cards(ranks: Several, wanted: int, cards: int) -> None:
    """Raise `EngineError` on each rank where one wants a card, by its number, that its machine does not have."""
    found = ranks.gather((wanted < cards, cards, ranks.local_size))
    for rank, (enough, count, several) in enumerate(found):
        if bool(count) != bool(found[0][1]):
            raise EngineError(f"rank {rank} on {ranks.processes[rank][0]} has {count} GPUs, rank 0 has {found[0][1]}")
        if count and not enough:
            raise EngineError(
                f"{several} ranks on {ranks.processes[rank][0]}, which has {counted(count, 'GPU')}; "
                f"wanted --nproc_per_node={count}"
            )


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _boot() -> str:
    """What tells machines of one name from each other, where there is such."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:16]
