"""What models wrote, kept on disk: an evaluation that is run again decodes nothing, an interrupted one goes on.

    CACHE/decoded/KEY/PROMPT.json   {"text", "new_tokens", "stopped", "checksum"}

KEY is a hash of everything but the prompt that decides the text (weights, settings, versions), PROMPT one of the
prompt's token ids. A file appears whole or not at all; one that can't be read is decoded again and written over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.cache import cache_root, remembered_sha256
from toolkit.files import write_text
from toolkit.hashes import sha256_of_text
from toolkit.inference.decode import Decoder, Done, Generated
from toolkit.manifest import is_damaged, sealed

VERSION = 2  # raise it when decoding itself changes


class CachedDecoder:
    """A decoder that looks into the cache first and opens the model only for prompts that are not there.

    key: what decides the texts, as JSON values. encode: a prompt's token ids. open_model: gives the decoder that works;
    entered at the first prompt that is not cached and left with this object, which is a context manager. settings: what
    the evaluation says of how it was decoded. sampled: each text hangs on those decoded with it, so that all of a call
    are found, or made again. `found` and `decoded` count prompts.
    """

    def __init__(
        self,
        key: Mapping[str, Any],
        encode: Callable[[str], list[int]],
        open_model: Callable[[], AbstractContextManager[Decoder]],
        settings: Mapping[str, Any],
        sampled: bool = False,
    ) -> None:
        self.folder = cache_root() / "decoded" / _hash(json.dumps({"version": VERSION, **key}, sort_keys=True))
        self.settings: dict[str, Any] = dict(settings)
        self.found = self.decoded = 0
        self._encode, self._sampled = encode, sampled
        self._open = open_model
        self._decoder: Decoder | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> CachedDecoder:
        return self

    def __exit__(self, *error: Any) -> None:
        self._decoder = None
        self._opened.close()

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        names = {prompt: f"{_hash(json.dumps(self._encode(prompt)))}.json" for prompt in prompts}
        folder = self.folder / _hash("".join(names.values())) if self._sampled else self.folder
        files = {prompt: folder / name for prompt, name in names.items()}
        made = {prompt: kept for prompt, file in files.items() if (kept := _read(file)) is not None}
        missing = [prompt for prompt in files if prompt not in made]
        if self._sampled and missing:
            missing = list(files)

        def keep(index: int, one: Generated) -> None:
            made[missing[index]] = one
            write_text(files[missing[index]], json.dumps(sealed(asdict(one))))

        if missing:
            if self._decoder is None:
                self._decoder = self._opened.enter_context(self._open())
            self._decoder(missing, keep)
        self.found += len(files) - len(missing)
        self.decoded += len(missing)
        for index, prompt in enumerate(prompts):
            if done is not None:
                done(index, made[prompt])
        return [made[prompt] for prompt in prompts]


def fingerprint(files: Iterable[Path]) -> str:
    """A hash of the names and contents of files. A file's own is kept under its path, size and time, because reading
    gigabytes takes longer than an evaluation out of the cache."""
    return _hash(json.dumps([(file.name, remembered_sha256(file)) for file in sorted(files)]))


def _read(file: Path) -> Generated | None:
    try:
        value = jsons.loads(file.read_text(encoding="utf-8"))
        text, new_tokens, stopped = value["text"], value["new_tokens"], value["stopped"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = isinstance(text, str) and isinstance(new_tokens, int) and isinstance(stopped, bool)
    if is_damaged(value) or not fits:
        return None
    return Generated(text, new_tokens, stopped)


def _hash(text: str) -> str:
    return sha256_of_text(text)[:32]
