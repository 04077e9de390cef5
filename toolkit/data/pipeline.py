"""Chats to tokens, in this process or in several, always in order and never holding more than a few hundred chats."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.chats import BUILTIN_PREFIX, Chat
from toolkit.data.compose import compose
from toolkit.data.render import NoToolsError, Renderer
from toolkit.data.seen import ToolTally
from toolkit.data.template import ChatTemplate, Rendering
from toolkit.data.tokenizers import load_tokenizer
from toolkit.data.violations import violations
from toolkit.environment import without_torch
from toolkit.errors import DataError, Problem, ToolkitError
from toolkit.pools import begin, end, result, submit
from toolkit.terminal import warn
from toolkit.words import counted

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe

CHUNK = 64  # chats handed to a worker at once
ALONE = 512  # up to this many chats are done here: starting processes would take longer


@dataclass(slots=True)
class Tally:
    """What happened to rows and tokens. Adds up over chunks."""

    rows: int = 0
    truncated_rows: int = 0
    cut_answers: int = 0  # rows kept that lost some trained tokens
    dropped_rows: int = 0  # rows with nothing left to train on
    dropped: list[str] = field(default_factory=list)  # the places of the first of them
    broken_rows: int = 0  # rows as read whose calls or tools `violations` finds fault with
    broken: str = ""  # the first of these faults, with its place
    longest: tuple[int, str] = (0, "")  # tokens of the longest row before the cut, and its place
    tokens_by_role: Counter[str] = field(default_factory=Counter)  # before the cut
    last_row_tokens: int = 0  # tokens of each chat's last row before the cut: what one row a chat would cost
    all_row_tokens: int = 0

    def add(self, other: Tally) -> None:
        for name in ("rows", "truncated_rows", "cut_answers", "dropped_rows", "last_row_tokens", "all_row_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.broken_rows += other.broken_rows
        self.broken = self.broken or other.broken
        self.dropped = (self.dropped + other.dropped)[:20]
        self.longest = max(self.longest, other.longest, key=lambda longest: longest[0])
        self.tokens_by_role.update(other.tokens_by_role)


@dataclass(slots=True)
class Chunk:
    """The rows of some chats, laid end to end.

    input_ids int32[tokens], trained uint8[tokens], row_lengths and row_trained int64[rows]; `kept` has the chats that
    gave rows, `rows_per_chat` how many each, `tools` what they had on offer.
    """

    input_ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.uint8]
    row_lengths: list[int]
    row_trained: list[int]
    kept: list[Chat]
    rows_per_chat: list[int]
    tally: Tally
    problems: list[Problem]  # one for each chat that can't be rendered or masked
    tools: ToolTally = field(default_factory=ToolTally)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker needs to render as the recipe says, or by `template` where one is given, with `day` as the date."""

    folder: Path
    rendering: Rendering
    max_length: int
    template: ChatTemplate | None = None
    day: str = ""

    @classmethod
    def of(cls, recipe: Recipe, folder: Path, template: ChatTemplate | None = None, day: str = "") -> Settings:
        return cls(folder, Rendering.of(recipe.data), recipe.train.max_length, template, day)

    def renderer(self) -> Renderer:
        tokenizer = load_tokenizer(self.folder)
        return Renderer.by(tokenizer, self.template or ChatTemplate.of(compose(tokenizer, self.rendering)), self.day)


def encode_chats(renderer: Renderer, chats: Sequence[Chat], max_length: int) -> Chunk:
    """Render, tokenise, mask and cut some chats. Chats that can't be rendered or masked become problems."""
    pieces: list[npt.NDArray[np.int32]] = []
    masks: list[npt.NDArray[np.uint8]] = []
    chunk = Chunk(np.empty(0, np.int32), np.empty(0, np.uint8), [], [], [], [], Tally(), [])
    tally = chunk.tally
    for chat in chats:
        try:
            encoded = [(row, renderer.encode(row, max_length)) for row in renderer.rows(chat)]
        except NoToolsError:
            raise
        except DataError as error:
            first, *others = error.problems
            more = f" (and {len(others)} more in this row)" if others else ""
            chunk.problems.append(Problem(first.where, first.message + more))
            continue
        kept = 0
        whole = 0
        for row, tokens in encoded:
            trained = int(tokens.trained.sum())
            whole = sum(tokens.roles.values())
            tally.rows += 1
            tally.all_row_tokens += whole
            tally.tokens_by_role.update(tokens.roles)
            tally.truncated_rows += tokens.truncated
            if whole > tally.longest[0]:
                tally.longest = (whole, row.where)
            if not trained:
                tally.dropped_rows += 1
                tally.dropped.append(f"{row.where} ({whole:,} tokens)")
                continue
            tally.cut_answers += tokens.lost > 0
            kept += 1
            pieces.append(tokens.input_ids)
            masks.append(tokens.trained.view(np.uint8))
            chunk.row_lengths.append(len(tokens.input_ids))
            chunk.row_trained.append(trained)
        tally.last_row_tokens += whole
        if kept:
            chunk.kept.append(chat)
            chunk.rows_per_chat.append(kept)
            if not chat.source.startswith(BUILTIN_PREFIX) and (faults := violations(chat)):
                tally.broken_rows += 1
                tally.broken = tally.broken or str(faults[0])
    del tally.dropped[20:]
    chunk.tools.add_chats(chunk.kept)
    if pieces:
        chunk.input_ids, chunk.trained = np.concatenate(pieces), np.concatenate(masks)
    return chunk


def processes(num_proc: int | None) -> int:
    """How many build a table: as asked for, else one for each core that this process may use."""
    return num_proc or len(os.sched_getaffinity(0))


def encode_stream(
    settings: Settings,
    chats: Iterator[Chat],
    num_proc: int | None = None,
    renderer: Callable[[], Renderer] | None = None,
) -> Iterator[Chunk]:
    """All chats, in order, as chunks. A few hundred are done in this process, more in `num_proc` (default: one for each
    core this process may use); until the first of the others has started, which takes seconds, this one goes on. Where
    one of them is lost, as for want of memory, half as many go on with what was not done.

    `renderer` makes this process's renderer, or hands out one that there is already.
    """
    head = list(itertools.islice(chats, ALONE + 1))
    workers = processes(num_proc)
    groups = _grouped(itertools.chain(head, chats))
    own = (renderer or settings.renderer)()
    if len(head) <= ALONE or workers == 1:
        for group in groups:
            yield encode_chats(own, group, settings.max_length)
        return
    handed: deque[list[Chat]] = deque()  # to other processes, and not come back
    alone: Renderer | None = own
    while True:
        try:
            yield from _by_workers(settings, groups, handed, alone, workers)
            return
        except _WorkerLostError as error:
            if workers == 1 and isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            if workers == 1:
                first, last = (handed[0][0].where, handed[0][-1].where) if handed else ("", "")
                place = f" at the chats from {first} to {last}" if handed else ""
                raise ToolkitError(
                    f"a process that builds the token table died{place}, most likely for want of memory, and it was "
                    "the only one (data.num_proc = 1): close other programs, or leave out chats that are very long"
                ) from error
            workers //= 2
            warn(
                "note: a process that builds the token table died, most likely for want of memory: "
                f"going on with {counted(workers, 'process', 'processes')}, as with data.num_proc = {workers}"
            )
        groups, handed = itertools.chain(list(handed), groups), deque()
        alone = None  # what another process died of, this one is spared


class _WorkerLostError(Exception):
    """One of the others has ended, or had no memory for what it was given."""


def _by_workers(
    settings: Settings, groups: Iterator[list[Chat]], handed: deque[list[Chat]], own: Renderer | None, workers: int
) -> Iterator[Chunk]:
    """The chunks of `groups`, in order; those that are `handed` out when a worker is lost are to be done again."""
    with _workers(settings, workers) as (pool, starting):
        waiting: deque[Future[Chunk]] = deque()

        def next_one() -> Chunk:
            try:
                chunk = result(pool, waiting.popleft())
            except MemoryError as error:
                raise _WorkerLostError from error
            handed.popleft()
            return chunk

        for group in groups:
            if own is not None and not _any_done(starting):
                yield encode_chats(own, group, settings.max_length)
                continue
            handed.append(group)
            waiting.append(submit(pool, _work, group))
            if len(waiting) > 3 * workers:
                yield next_one()
        while waiting:
            yield next_one()


def _any_done(starting: Sequence[Future[None]]) -> bool:
    return any(future.done() for future in starting)


@contextmanager
def _workers(settings: Settings, count: int) -> Iterator[tuple[ProcessPoolExecutor, list[Future[None]]]]:
    """The others, and what is done once each has started."""
    # Spawned, not forked: this process may hold threads (of torch, tokenizers or CUDA) that a fork would leave dead.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(settings,))
    try:
        try:
            starting = [submit(pool, _started) for _ in range(count)]
        except OSError as error:  # no memory for a process, or no further one is allowed
            raise _WorkerLostError from error
        yield pool, starting
        if not all(future.done() for future in starting):  # still importing: not waited for
            end(pool)
    except BrokenProcessPool as error:
        raise _WorkerLostError from error
    except BaseException:
        end(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_renderer: Renderer | None = None  # of a worker process
_max_length = 0


def _start(settings: Settings) -> None:
    global _renderer, _max_length
    begin()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _max_length = settings.max_length
    with without_torch():
        _renderer = settings.renderer()  # as the parent has made it already: what is wrong with it was said there


def _started() -> None:
    """Done by a worker that has imported what it needs."""


def _work(chats: list[Chat]) -> Chunk:
    assert _renderer is not None
    chunk = encode_chats(_renderer, chats, _max_length)
    # The parent needs no contents again, only what names the chat: far less to send back.
    chunk.kept = [Chat((), (), chat.kind, chat.source, chat.where, _named(chat.meta)) for chat in chunk.kept]
    return chunk


def _named(meta: dict[str, Any]) -> dict[str, Any]:
    return {"format": meta["format"]} if "format" in meta else {}


def _grouped(chats: Iterator[Chat]) -> Iterator[list[Chat]]:
    while group := list(itertools.islice(chats, CHUNK)):
        yield group
