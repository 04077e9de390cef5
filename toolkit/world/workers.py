"""Built-in chats made by several processes: the same ones, in the same order, as by one."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.chats import SealedChat
from toolkit.errors import DataError, ToolkitError
from toolkit.pools import begin, end, result, submit

if TYPE_CHECKING:
    from toolkit.world.generate import Made, Source

_BLOCK = 250  # chats that one job makes: a third of a second's work, about a megabyte to send back
Order = list[tuple[int, str]]


def made_by_workers(
    source: Source, order: Iterator[tuple[int, str]], workers: int
) -> Iterator[tuple[int, str, Made | None]]:
    """Number, kind and chat, in order; None where no attempt suits, which only matters once the chat's turn comes."""
    # spawned, as a fork would copy threads that hold locks
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin)
    waiting: deque[tuple[Order, Future[list[Made | None]]]] = deque()
    try:
        while True:
            while len(waiting) < 2 * workers and (block := list(itertools.islice(order, _BLOCK))):
                waiting.append((block, submit(pool, _make_block, source, block)))
            if not waiting:
                return
            block, future = waiting.popleft()
            found = result(pool, future)
            for (index, kind), made in zip(block, found, strict=True):
                yield index, kind, made
    except BrokenProcessPool as error:
        raise ToolkitError(
            "a process that makes built-in chats died, most likely for want of memory; set data.num_proc = 1"
        ) from error
    except BaseException:
        end(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _make_block(source: Source, block: Order) -> list[Made | None]:
    return [_made(source, index, kind) for index, kind in block]


def _made(source: Source, index: int, kind: str) -> Made | None:
    try:
        made = source.make(index, kind)
        return replace(made, chat=SealedChat.of(made.chat))  # most are only handed on, to who renders them
    except DataError:
        return None
