"""On which line of a TOML file each key stands. `tomllib` reads the values; this only remembers places.

The scanner is run on text that `tomllib` has already accepted, so it never has to judge whether the text is valid.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")


def positions(text: str) -> dict[Path, int]:
    """The line (from 1) of every table, key and array item of a valid TOML text.

    Paths are `("lora", "r")`; items of arrays and of arrays of tables carry their index: `("data", "sources", 0)`.
    A table that several headers name keeps the first line.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.counted_to = 0
        self.line = 1
        self.lines: dict[Path, int] = {}
        self.table_arrays: dict[Path, int] = {}  # path of an array of tables -> index of its last table

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self._blank()
            if self.at >= len(self.text):
                return self.lines
            if self.text.startswith("[[", self.at):
                self.at += 2
                table = self._header(array=True)
                self.at += 2
            elif self.text[self.at] == "[":
                self.at += 1
                table = self._header(array=False)
                self.at += 1
            else:
                self._pair(table)

    def _here(self) -> int:
        self.line += self.text.count("\n", self.counted_to, self.at)
        self.counted_to = self.at
        return self.line

    def _note(self, path: Path) -> None:
        self.lines.setdefault(path, self._here())

    def _blank(self) -> None:
        """Skip white space, line ends and comments."""
        while self.at < len(self.text):
            if self.text[self.at] in " \t\r\n":
                self.at += 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def _header(self, *, array: bool) -> Path:
        keys = self._dotted_key()
        path: Path = ()
        for key in keys[:-1]:
            path = (*path, key)
            self._note(path)
            if path in self.table_arrays:
                path = (*path, self.table_arrays[path])
        path = (*path, keys[-1])
        self._note(path)
        if array:
            self.table_arrays[path] = self.table_arrays.get(path, -1) + 1
            path = (*path, self.table_arrays[path])
            self._note(path)
        return path

    def _pair(self, table: Path) -> None:
        self._blank()
        start = self.at
        keys = self._dotted_key()
        end, self.at = self.at, start
        for n in range(1, len(keys) + 1):
            self._note((*table, *keys[:n]))
        self.at = end
        self._blank()
        self.at += 1  # the equals sign
        self._value((*table, *keys))

    def _dotted_key(self) -> list[str]:
        keys = []
        while True:
            self._blank()
            keys.append(self._key())
            self._blank()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _key(self) -> str:
        if self.text[self.at] in "\"'":
            start = self.at
            self._string()
            decoded = tomllib.loads(f"key = {self.text[start : self.at]}")["key"]
            assert isinstance(decoded, str)
            return decoded
        match = _BARE_KEY.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return match.group()

    def _value(self, path: Path) -> None:
        self._blank()
        first = self.text[self.at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            match = _SCALAR.match(self.text, self.at)
            assert match is not None
            self.at = match.end()

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self._blank()
            if self.text[self.at] == ",":
                self.at += 1
            elif self.text[self.at] == "]":
                self.at += 1
                return
            else:
                self._note((*path, index))
                self._value((*path, index))
                index += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self._blank()
            if self.text[self.at] == ",":
                self.at += 1
            elif self.text[self.at] == "}":
                self.at += 1
                return
            else:
                self._pair(path)

    def _string(self) -> None:
        quote = self.text[self.at]
        mark = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(mark)
        while not self.text.startswith(mark, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(mark)
        # a multi-line string may end in quotes of its own: up to two more belong to it
        extra = 0
        while len(mark) == 3 and extra < 2 and self.text.startswith(quote, self.at):
            self.at += 1
            extra += 1
