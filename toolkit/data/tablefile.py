"""Writes a token table: streams chunks into growing .npy files in a temporary folder, which then takes its name."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.data import seen
from toolkit.data.held_out import Part, sources_of
from toolkit.data.keys import data_key
from toolkit.data.notes import Reading
from toolkit.data.parts import part_chats
from toolkit.data.pipeline import Chunk, Settings, Tally, encode_stream
from toolkit.data.tokenizers import tokenizer_key
from toolkit.errors import DataError, ToolkitError
from toolkit.files import whole_folder
from toolkit.machine import is_full, require_space
from toolkit.manifest import write_manifest
from toolkit.progress import Bar
from toolkit.terminal import new_console

if TYPE_CHECKING:
    from toolkit.data.render import Renderer
    from toolkit.data.template import ChatTemplate
    from toolkit.recipe.schema import Recipe

_LEAST_SPACE = 64 << 20
_DTYPES: dict[str, type[np.generic]] = {
    "input_ids": np.int32,
    "trained": np.uint8,
    "row_offsets": np.int64,
    "row_trained": np.int32,
    "chat_offsets": np.int64,
    "kind_codes": np.int16,
    "source_codes": np.int16,
    "where_offsets": np.int64,
}


def write(
    recipe: Recipe,
    folder: Path,
    part: Part,
    place: Path,
    *,
    key: str,
    cache: Path | None = None,
    progress: bool = True,
    reading: Reading | None = None,
    template: ChatTemplate | None = None,
    day: str = "",
    renderer: Callable[[], Renderer] | None = None,
) -> None:
    """Make the table `place`, with `day` as the date where the template asks for one.

    Bad rows are left out and noted in `reading`; without it, more of them than data.max_bad allows raise `DataError`,
    and nothing is made.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    require_space(place.parent, _LEAST_SPACE, "the token table")
    started = time.monotonic()
    strict = reading is None
    reading = reading or Reading(recipe.data.max_bad)
    unrendered = Reading()
    with _in_room(place, recipe.data.num_proc), whole_folder(place) as work:
        chats = part_chats(recipe, part, reading, cache)
        chunks = encode_stream(Settings.of(recipe, folder, template, day), chats, recipe.data.num_proc, renderer)
        console = new_console(stderr=True) if progress else None
        bar = Bar(console, f"tokens and masks ({part})", None, time="since")
        with _TableWriter(work) as writer, bar:
            for chunk in chunks:
                for problem in chunk.problems:
                    reading.refuse(problem)
                    unrendered.refuse(problem)
                writer.add(chunk)
                bar.advance(len(chunk.kept))
        if strict:
            reading.stop()
        if not writer.chats and not writer.tally.dropped_rows and not reading.bad:
            shared = part == "eval" and 0 < recipe.eval.holdout < 1 and not recipe.eval.sources
            names = ", ".join(
                source.source for source in (recipe.data.sources if part == "train" else recipe.eval.sources)
            )
            raise DataError(
                f"no chats for the {part} part{f' in {names}' if names else ''}; eval.holdout = {recipe.eval.holdout}"
                + (", and a share of few chats can be none: give a number, as eval.holdout = 12" if shared else "")
            )
        meta = {
            "key": key,
            "part": part,
            **writer.summary(),
            **told(reading, unrendered),
            "call_format": recipe.data.call_format,
            "tool_prompt": recipe.data.tool_prompt,
            "thinking": recipe.data.thinking,
            "max_length": recipe.train.max_length,
            **({"day": day} if day else {}),
            "data_key": data_key(sources_of(recipe, part)),
            "tokenizer_key": tokenizer_key(folder),
            "seconds": round(time.monotonic() - started, 2),
        }
        (work / "meta.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
        (work / seen.FILE).write_text(json.dumps(writer.tools.as_dict(), indent=1, ensure_ascii=False) + "\n")
        write_manifest(work)


def told(reading: Reading, unrendered: Reading) -> dict[str, Any]:
    """What a table's meta says of the rows that are not in it, and of what the others say that is not used."""
    return {
        "read_rows": reading.rows,
        "bad_rows": reading.bad,
        "bad": [[problem.where, problem.message] for problem in reading.by_cause()],
        "unrendered": [[problem.where, problem.message] for problem in unrendered.by_cause()],
        "unrendered_rows": unrendered.bad,
        "left_out": sorted(unrendered.places),
        "findings": [str(finding) for finding in reading.in_order()],
    }


class _GrowingArray:
    """A one-dimensional .npy file that values are appended to."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._file = path.open("wb+")
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._write_header()

    def append(self, values: npt.ArrayLike) -> None:
        array = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(array.tobytes())
        self._length += array.size

    def close(self) -> None:
        with self._file:  # closed even when the disk is full
            self._file.seek(0)
            self._write_header()  # numpy leaves room in the header for any length, so it fits in the same place

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class _TableWriter:
    def __init__(self, folder: Path) -> None:
        self.tally = Tally()
        self.tools = seen.ToolTally()
        self.chats = self.rows = self.tokens = self.trained = 0
        self._folder = folder
        self._formats: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._kind_names: list[str] = []
        self._source_names: list[str] = []
        self._where_end = 0

    def __enter__(self) -> _TableWriter:
        with ExitStack() as stack:
            self._arrays = {}
            for name, dtype in _DTYPES.items():
                array = self._arrays[name] = _GrowingArray(self._folder / f"{name}.npy", dtype)
                stack.callback(array.close)
            self._where = stack.enter_context((self._folder / "where.txt").open("wb"))
            for name in ("row_offsets", "chat_offsets", "where_offsets"):
                self._arrays[name].append([0])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, chunk: Chunk) -> None:
        put = {name: array.append for name, array in self._arrays.items()}
        put["input_ids"](chunk.input_ids)
        put["trained"](chunk.trained)
        put["row_offsets"](self.tokens + np.cumsum(chunk.row_lengths, dtype=np.int64))
        put["row_trained"](chunk.row_trained)
        put["chat_offsets"](self.rows + np.cumsum(chunk.rows_per_chat, dtype=np.int64))
        put["kind_codes"]([_code(self._kind_names, chat.kind) for chat in chunk.kept])
        put["source_codes"]([_code(self._source_names, chat.source) for chat in chunk.kept])
        places = [chat.where.encode() for chat in chunk.kept]
        self._where.write(b"".join(places))
        put["where_offsets"](self._where_end + np.cumsum([len(place) for place in places], dtype=np.int64))
        self._where_end += sum(map(len, places))
        self._kinds.update(chat.kind for chat in chunk.kept)
        self._sources.update(chat.source for chat in chunk.kept)
        self._formats.update(str(chat.meta.get("format", "builtin")) for chat in chunk.kept)
        self.chats += len(chunk.kept)
        self.rows += len(chunk.row_lengths)
        self.tokens += len(chunk.input_ids)
        self.trained += sum(chunk.row_trained)
        self.tally.add(chunk.tally)
        self.tools.add(chunk.tools)

    def summary(self) -> dict[str, Any]:
        tally = self.tally
        return {
            "chats": self.chats,
            "rows": self.rows,
            "tokens": self.tokens,
            "trained_tokens": self.trained,
            "share_trained": self.trained / self.tokens if self.tokens else 0.0,
            "truncated_rows": tally.truncated_rows,
            "cut_answers": tally.cut_answers,
            "dropped_rows": tally.dropped_rows,
            "dropped": tally.dropped,
            "broken_rows": tally.broken_rows,
            "broken": tally.broken,
            "longest_row": tally.longest[0],
            "longest_where": tally.longest[1],
            "split_factor": tally.all_row_tokens / tally.last_row_tokens if tally.last_row_tokens else 1.0,
            "tokens_by_role": dict(tally.tokens_by_role),
            "kinds": dict(self._kinds),
            "sources": dict(self._sources),
            "formats": dict(self._formats),
            "kind_names": self._kind_names,
            "source_names": self._source_names,
        }


def _code(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


@contextmanager
def _in_room(place: Path, num_proc: int | None) -> Iterator[None]:
    """Say what to do where the disk or the memory is too small for the table."""
    try:
        yield
    except MemoryError as error:
        fewer = ", or set data.num_proc = 1" if num_proc != 1 else ", or leave out chats that are very long"
        raise ToolkitError(f"not enough memory for the token table: close other programs{fewer}") from error
    except OSError as error:
        if not is_full(error):
            raise
        raise ToolkitError(
            f"no disk space left for the token table below {place.parent}; free some, or set TOOLKIT_CACHE to "
            "a folder on another disk"
        ) from error
