"""A decoder's work recorded as CUDA graphs, one pair for each length, and replayed: the host hands over two graphs.

Compiled layers launch some thousand kernels an update, each through Python. On a large card, or with a small model, the
card has done them before the host has launched the next. A graph is recorded once for each length of a micro-batch and
costs the host next to nothing afterwards. What a recording reads and writes stays where it is: inputs are copied into
it, and gradients are summed in tensors that parameters take as their own.

All graphs share one pool of memory: what one length keeps from forward to backward is free for the next to overwrite,
because no two micro-batches are under way at one time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from toolkit.errors import first_line

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None]], Replay]

MOST = 64  # lengths that are recorded; others are run
TRIES = 2  # of one length: the first may find that torch has to compile for it
FAILURES = 3  # lengths that can't be recorded, before none is
GROW = 1.25  # a buffer that is too small is made anew, and a little larger
ROOM = 0.2  # of the card that has to be free beside recordings, or they give back what they hold


class _Peak:
    """The most bytes that a replayed micro-batch had allocated: torch counts them when it records, not after."""

    most = 0


def peak_allocated() -> int:
    """torch.cuda.max_memory_allocated with what replays use."""
    return max(int(torch.cuda.max_memory_allocated()), _Peak.most)


def reset_peak() -> None:
    """torch.cuda.reset_peak_memory_stats, and for replays."""
    torch.cuda.reset_peak_memory_stats()
    _Peak.most = 0


class NotCompiled(RuntimeError):
    """torch would have to compile what is being recorded. Nothing was recorded. `lost`: nor is what was before of use
    any more."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class CudaCapture:
    """Records what a function launches, in one pool of memory for all. `__call__` gives what launches it again.

    Raises `NotCompiled` where torch would have to compile: that asks the card, which a recording forbids.
    """

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Replay:
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # other threads may pin memory meanwhile
        try:
            with (
                torch.compiler.set_stance("fail_on_recompile"),
                torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"),
            ):
                work()
        except RuntimeError as error:
            lost = self._end(stream)
            # where ending the recording failed too, that is what is raised
            if any("fail_on_recompile" in str(one) for one in (error, error.__context__)):
                raise NotCompiled("torch has to compile for this length first", lost=lost) from error
            raise
        return graph.replay  # type: ignore[no-any-return]

    def _end(self, stream: Any) -> bool:
        """Do what torch leaves undone of a recording that broke off, on whose way out it raises once more: its stream
        stays the current one, the allocator goes on filling its pool, and up to torch 2.11 the generator of random
        numbers refuses all that is not recorded. Returns whether that was so: it has a new state then, of which what
        was recorded before knows nothing."""
        torch.cuda.set_stream(stream)
        device = torch.cuda.current_device()
        with contextlib.suppress(RuntimeError):  # it has been ended
            torch._C._cuda_endAllocateToPool(device, self.pool)
            torch._C._cuda_releasePool(device, self.pool)
        generator = torch.cuda.default_generators[device]
        offset = generator.get_offset()
        try:
            torch.rand(1, device=torch.device("cuda", device))
        except RuntimeError:
            generator.graphsafe_set_state(generator.clone_state())
            return True
        generator.set_offset(offset)
        return False


@dataclass(slots=True)
class Record:
    """One length's graphs with the tensors that they read and write. `peak`: bytes allocated at most meanwhile."""

    inputs: dict[str, torch.Tensor]
    hidden: torch.Tensor
    gradient: torch.Tensor
    forward: Replay
    backward: Replay
    peak: int = 0


class Recorder:
    """Stands in for the forward of a `decoder` whose trained parameters are `parameters`, while it trains.

    `allowed` says whether now is a time for it, before each micro-batch. What is recorded has to be compiled: `each`
    length is run as usual once before it is recorded, or, where one code serves all, one length for each number of row
    edges. A length that can't be recorded is run and leaves the others as they are; `problem` says why nothing is
    recorded any more, where too many could not. `replayed` and `run` count micro-batches.
    """

    def __init__(
        self,
        decoder: Any,
        parameters: Sequence[torch.nn.Parameter],
        capture: Capture | None = None,
        *,
        each: bool = False,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.usual = decoder.forward
        self.parameters = list(parameters)
        self.capture, self.each, self.allowed = capture or CudaCapture(), each, allowed
        self.records: dict[tuple[int, int], Record] = {}
        self.ran: set[tuple[int, int]] = set()
        self.tries: dict[tuple[int, int], int] = {}  # recordings of a length that failed
        self.longest: int | None = None  # tokens: what is longer did not fit into memory
        self.failures, self.problem = 0, ""
        self.replayed = self.run = 0
        self.gradients: list[torch.Tensor] = []
        self.buffers: list[torch.Tensor] = []  # hidden states and their gradient, for all lengths
        self.live: torch.Tensor | None = None
        self.like = torch.empty(1, 0, 0)  # hidden states of no tokens

    def forward(self, *, input_ids: torch.Tensor, **given: Any) -> Any:
        """The decoder's output for a packed micro-batch, input_ids [1, tokens]; by its graphs where it has them.

        Whatever of `given` is no tensor has to be the same for all micro-batches of a length.
        """
        given["input_ids"] = input_ids
        # casts must not be remembered from one micro-batch to the next: a graph has no memory of when it was recorded
        with torch.autocast(
            input_ids.device.type,
            dtype=torch.get_autocast_dtype(input_ids.device.type),
            enabled=torch.is_autocast_enabled(input_ids.device.type),
            cache_enabled=False,
        ):
            record = self._record_of(given) if torch.is_grad_enabled() and self.allowed() else None
            if record is None:
                self.make_room()
                self.run += torch.is_grad_enabled()
                output = self.usual(**given)
                hidden = output.last_hidden_state
                self.like = hidden.new_empty(1, 0, hidden.shape[-1])
                return output
        self.replayed += 1
        _Peak.most = max(_Peak.most, record.peak)
        for name, mine in record.inputs.items():
            mine.copy_(given[name], non_blocking=True)
        anchor = torch.empty(0, device=input_ids.device, requires_grad=True)
        return SimpleNamespace(last_hidden_state=Replayed.apply(anchor, record, self))  # type: ignore[no-untyped-call]

    def make_room(self) -> None:
        """Give back what recordings hold where little else is free: evaluation and what is run can't share it."""
        if self.records and self.parameters[0].is_cuda:
            free, total = torch.cuda.mem_get_info(self.parameters[0].device)
            if free < ROOM * total:
                self.forget()

    def forget(self) -> None:
        """Give back what recordings hold; lengths are recorded again when they come again."""
        if isinstance(self.capture, CudaCapture):
            torch.cuda.synchronize()  # none of them is under way
            self.capture = CudaCapture()
        self.records.clear()
        self.buffers.clear()
        if self.parameters[0].is_cuda:
            torch.cuda.empty_cache()

    def take_gradients(self) -> None:
        """Have the parameters' gradients summed where graphs sum them, beginning with what they are now."""
        missing = [mine for p, mine in zip(self.parameters, self.gradients, strict=True) if p.grad is None]
        if missing:
            torch._foreach_zero_(missing)
        for parameter, mine in zip(self.parameters, self.gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = mine
            elif parameter.grad is not mine:
                mine.copy_(parameter.grad)
                parameter.grad = mine

    def _record_of(self, given: dict[str, Any]) -> Record | None:
        key = (given["input_ids"].shape[1], given["cu_seq_lens"].shape[0])
        if key in self.records or self.problem:
            return self.records.get(key)
        # one code serves all numbers of tokens, but a number of edges has its own
        seen = key in self.ran if self.each else any(edges == key[1] for _, edges in self.ran)
        self.ran.add(key)
        fits = self.longest is None or key[0] <= self.longest
        if not seen or not fits or len(self.records) >= MOST or self.tries.get(key, 0) >= TRIES:
            return None
        try:  # it takes what the run before took, whose memory torch gives back before it records
            self.records[key] = self._record(given)
        except RuntimeError as error:  # torch.cuda.OutOfMemoryError too
            self._failed(key, error)
        return self.records.get(key)

    def _failed(self, key: tuple[int, int], error: RuntimeError) -> None:
        """A length is run instead. What the others hold is given back where the memory is needed or can't be trusted;
        they are recorded again."""
        self.live = None
        self.tries[key] = self.tries.get(key, 0) + 1
        if isinstance(error, NotCompiled):  # it is compiled when it is run now
            if error.lost:
                self.forget()
            return
        self.tries[key] = TRIES
        self.forget()
        if isinstance(error, torch.cuda.OutOfMemoryError):
            self.longest = key[0] - 1
        self.failures += 1
        if self.failures >= FAILURES:
            self.problem = first_line(error)

    @property
    def told(self) -> str:
        """What came of recording, in a line."""
        lengths = f"{self.replayed:,} of {self.replayed + self.run:,} micro-batches replayed"
        return f"{lengths}; given up: {self.problem}" if self.problem else lengths

    def _record(self, given: dict[str, Any]) -> Record:
        inputs = {name: value.clone() for name, value in given.items() if isinstance(value, torch.Tensor)}
        if not self.gradients:
            self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        hidden, gradient = self._places(given["input_ids"].shape[1])

        def forward() -> None:
            self.live = self.usual(**{**given, **inputs}).last_hidden_state
            hidden.copy_(self.live.detach())

        def backward() -> None:
            assert self.live is not None
            found = torch.autograd.grad(self.live, self.parameters, gradient)
            self.live = None
            torch._foreach_add_(self.gradients, list(found))

        if not hidden.is_cuda:
            return Record(inputs, hidden, gradient, self.capture(forward), self.capture(backward))
        before = peak_allocated()
        torch.cuda.reset_peak_memory_stats()
        record = Record(inputs, hidden, gradient, self.capture(forward), self.capture(backward))
        record.peak = int(torch.cuda.max_memory_allocated())
        _Peak.most = before  # which torch has forgotten
        return record

    def _places(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views [1, tokens, size] of two buffers; graphs that were recorded over smaller ones keep those."""
        if not self.buffers or self.buffers[0].shape[1] < tokens:
            shape = (1, round(tokens * GROW), self.like.shape[-1])
            self.buffers = [self.like.new_zeros(shape) for _ in range(2)]
        hidden, gradient = (buffer[:, :tokens] for buffer in self.buffers)
        return hidden, gradient


class Replayed(torch.autograd.Function):
    """Hidden states [1, tokens, size] of a recorded forward; backward sums the parameters' gradients by itself."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, record: Record, recorder: Recorder) -> torch.Tensor:
        ctx.record, ctx.recorder = record, recorder
        record.forward()
        return record.hidden.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, None, None]:
        ctx.recorder.take_gradients()
        ctx.record.gradient.copy_(gradient)
        ctx.record.backward()
        return None, None, None
