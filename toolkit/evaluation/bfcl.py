"""The Berkeley Function Calling Leaderboard's files as chats, and its rules for which calls are right.

Read from a folder that the user names (or the wheel of the package `bfcl-eval` itself): questions in
BFCL_v4_CATEGORY.json, answers under possible_answer/. Supported: simple (Python, Java, JavaScript), multiple, parallel,
parallel_multiple, irrelevance and their live_ versions, live_relevance. Multi-turn, memory and web search need
simulated worlds of their own and are reported as not supported.

What counts as right, as there: calls in any order; each argument one of the values listed for it; an argument that
lists "" may be left out, unless the function requires it; texts are compared without case, spaces and the signs
,./-_*^; Java and JavaScript functions take every argument as text in that language. Wider than there: 5.0 is 5, an
argument that lists no value at all takes the empty list, Java's suffixes (5L, 1.5f) are not demanded, and what the
answer itself leaves out is not demanded either.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.chats import ROLES, Chat, ToolCall, Turn
from toolkit.data import literals
from toolkit.data.sources import shortened
from toolkit.errors import DataError, Problem
from toolkit.evaluation.same_json import same_json

KINDS = {
    "simple": "single",
    "simple_python": "single",
    "simple_java": "single",
    "simple_javascript": "single",
    "java": "single",
    "javascript": "single",
    "multiple": "single",
    "parallel": "parallel",
    "parallel_multiple": "parallel",
    "irrelevance": "irrelevance",
    "relevance": "relevance",
}
LANGUAGES: dict[str, literals.Language] = {
    "java": "java",
    "simple_java": "java",
    "javascript": "javascript",
    "simple_javascript": "javascript",
}
_FILE = re.compile(r"(?:(BFCL_v\d+|gorilla_openfunctions_v\d+_test)_)?(\w+)\.jsonl?")
_TYPES = {
    "dict": "object",
    "hashmap": "object",
    "hashtable": "object",
    "float": "number",
    "double": "number",
    "tuple": "array",
    "list": "array",
    "arraylist": "array",
    "bool": "boolean",
    "long": "integer",
    "short": "integer",
    "byte": "integer",
    "bigint": "integer",
    "char": "string",
}
File = Path | zipfile.Path
_ANYTHING = ("any", "")
_IGNORED_SIGNS = re.compile(r"[ ,./\-_*^]")
_TEXT_TYPES = ("string", "any", "char")


@dataclass(frozen=True, slots=True)
class Found:
    """Chats by category in the files' order, and the categories that are there but not supported."""

    chats: dict[str, list[Chat]]
    unsupported: list[str]


def read(source: str) -> Found:
    """The chats of a folder or wheel. Raises `DataError` with every file and row that can't be read."""
    root = _root(Path(source).expanduser(), source)
    chats: dict[str, list[Chat]] = {}
    unsupported: list[str] = []
    problems: list[Problem] = []
    files: list[File] = list(root.iterdir())
    for file in sorted(files, key=lambda one: one.name):
        match = _FILE.fullmatch(file.name)
        if match is None or not file.is_file():
            continue
        category = match[2]
        if _kind(category) is None:
            if match[1]:
                unsupported.append(category)
            continue
        answers = root / "possible_answer" / file.name
        chats[category] = list(_chats(file, answers if answers.is_file() else None, category, problems))
    if problems:
        raise DataError(shortened(problems))
    if not any(chats.values()):
        there = (
            f"only {', '.join(unsupported)}, which are not supported" if unsupported else "no file of a known category"
        )
        raise DataError(f"bfcl:{source}: {there}; wanted BFCL_v4_simple_python.json, BFCL_v4_multiple.json and so on")
    return Found(chats, unsupported)


def spread(found: Found, count: int) -> list[Chat]:
    """At most `count` chats, as evenly over the categories as they have chats; the first ones of each."""
    taken = dict.fromkeys(found.chats, 0)
    left = min(count, sum(map(len, found.chats.values())))
    while left:
        for category, chats in found.chats.items():
            if left and taken[category] < len(chats):
                taken[category] += 1
                left -= 1
    return [chat for category, chats in found.chats.items() for chat in chats[: taken[category]]]


def _root(path: Path, source: str) -> File:
    if path.is_file() and zipfile.is_zipfile(path):
        inside = zipfile.Path(zipfile.ZipFile(path), "bfcl_eval/data/")
        if inside.is_dir():
            return inside
    if not path.is_dir():
        raise DataError(
            f"bfcl:{source}: no such folder; the files are in the package bfcl-eval: "
            "pip download --no-deps bfcl-eval, then --data bfcl: and the wheel's name"
        )
    for inner in (path, path / "bfcl_eval" / "data", path / "data"):
        if (inner / "possible_answer").is_dir() or any(inner.glob("BFCL_v*.json*")):
            return inner
    return path


def _kind(category: str) -> str | None:
    return KINDS.get(category.removeprefix("live_"))


def _chats(file: File, answers: File | None, category: str, problems: list[Problem]) -> Iterator[Chat]:
    kind = _kind(category)
    assert kind is not None
    expected = {}
    if answers is not None:
        expected = {row["id"]: row.get("ground_truth") for _, row in _rows(answers, problems) if "id" in row}
    for number, row in _rows(file, problems):
        where = f"{file}:{number}"
        truth = expected.get(row.get("id"))
        if kind not in ("irrelevance", "relevance") and not truth:
            problems.append(Problem(where, f"no answer for {row.get('id')!r} in possible_answer/{file.name}"))
            continue
        try:
            yield _chat(row, truth or [], category, kind, where)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            problems.append(Problem(where, f"not a row of BFCL: {type(error).__name__}: {error}"))


def _rows(file: File, problems: list[Problem]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = jsons.loads(line)
        except ValueError as error:
            problems.append(Problem(f"{file}:{number}", f"not JSON: {error}"))
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            problems.append(Problem(f"{file}:{number}", "wanted an object"))


def _chat(row: dict[str, Any], truth: list[Any], category: str, kind: str, where: str) -> Chat:
    question = row["question"]
    messages = question[0] if isinstance(question[0], list) else question
    turns = []
    for message in messages:
        if message["role"] not in ROLES:
            raise ValueError(f"role {message['role']}")
        turns.append(Turn(message["role"], message["content"]))
    language = LANGUAGES.get(category)
    functions = row["function"] if isinstance(row["function"], list) else [row["function"]]
    required = {one["name"]: one["parameters"].get("required", []) for one in functions}
    types = {one["name"]: _declared(one["parameters"]) for one in functions}
    answer = []
    for call in truth:
        ((name, options),) = call.items()
        answer.append(
            {
                "name": name,
                "options": options,
                "required": required.get(name, []),
                "types": types.get(name, {}),
                "language": language,
            }
        )
    calls = tuple(ToolCall(one["name"], _example(one)) for one in answer)
    return Chat(
        (*turns, Turn("assistant", "", calls)),
        tuple(_tool(function, language) for function in functions),
        kind,
        source=f"bfcl:{category}",
        where=f"bfcl:{row.get('id', where)}",
        meta={"judged": [len(turns)], "bfcl": answer},
    )


def _declared(parameters: dict[str, Any]) -> dict[str, str]:
    return {name: str(about.get("type", "any")).lower() for name, about in parameters.get("properties", {}).items()}


def _tool(function: dict[str, Any], language: literals.Language | None) -> dict[str, Any]:
    """A function as the toolkit's tools are: JSON schema's types, and text for values of another language."""
    parameters = function["parameters"]
    if language is None:
        schema = _schema(parameters)
    else:
        written = {"java": "Java", "javascript": "JavaScript"}[language]
        properties = {
            name: {
                "type": "string",
                "description": f"{about.get('description', '')} ({written} {about.get('type', 'any')}, as source text)",
            }
            for name, about in parameters.get("properties", {}).items()
        }
        schema = {"type": "object", "properties": properties, "required": parameters.get("required", [])}
    return {
        "type": "function",
        "function": {"name": function["name"], "description": function.get("description", ""), "parameters": schema},
    }


def _schema(value: Any) -> Any:
    """A schema with JSON schema's names of types at every depth."""
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if key == "type" and isinstance(inner, str):
            if inner.lower() not in _ANYTHING:
                found[key] = _TYPES.get(inner.lower(), inner.lower())
        elif key == "properties" and isinstance(inner, dict):
            found[key] = {name: _schema(about) for name, about in inner.items()}
        else:
            found[key] = _schema(inner)
    return found


def _example(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The first right value of every argument that must be there, for people to read."""
    return {name: example(options) for name, options in answer["options"].items() if needed(answer, name)}


def needed(answer: Mapping[str, Any], name: str) -> bool:
    """Whether an argument of an answer must be there."""
    return "" not in answer["options"][name] or name in answer["required"]


def example(options: Sequence[Any]) -> Any:
    """The first value that is right among an argument's."""
    value = next((option for option in options if option != ""), "" if options else [])
    return _first(value)


def _first(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: example(inner) if isinstance(inner, list) else _first(inner)
            for key, inner in value.items()
            if not (isinstance(inner, list) and "" in inner)
        }
    return [_first(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Answer:
    """One expected call of a BFCL row: `toolkit.evaluation.wanted.Wanted` by BFCL's rules."""

    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.about["name"])

    @property
    def needed(self) -> int:
        """How many arguments must be there."""
        return sum(needed(self.about, name) for name in self.about["options"])

    def found(self, call: ToolCall) -> int:
        """How many of those a call has right."""
        return sum(needed(self.about, name) for name in self._right(call))

    def right(self, call: ToolCall) -> int:
        """How many of a call's arguments are right."""
        return len(self._right(call))

    def accepts(self, call: ToolCall) -> bool:
        return call.name == self.name and self.right(call) == len(call.arguments) and self.found(call) == self.needed

    def accepts_but_case(self, call: ToolCall) -> bool:
        # BFCL's own comparison of texts is without case and spaces; folded source text of Java would be other code
        return self.accepts(call)

    def _right(self, call: ToolCall) -> list[str]:
        return [name for name, value in call.arguments.items() if self._fits(name, value)]

    def _fits(self, name: str, value: Any) -> bool:
        options = self.about["options"].get(name)
        if options is None:
            return False
        readings: Iterable[Any] = (value,)
        if language := self.about["language"]:
            if not isinstance(value, str):
                return False
            literal = literals.read(value, language)
            is_text = self.about["types"].get(name) in _TEXT_TYPES
            readings = (value, literal) if is_text or isinstance(literal, str) else (literal,)
        wanted = options or [[]]
        return any(same(one, option) for one in readings for option in wanted)


def same(value: Any, option: Any) -> bool:
    """Whether a value is the one listed, by BFCL's rules; objects list the values that each key may have."""
    if isinstance(value, str) and isinstance(option, str):
        return _plain(value) == _plain(option)
    if isinstance(value, list) and isinstance(option, list):
        return len(value) == len(option) and all(map(same, value, option))
    if isinstance(value, dict) and isinstance(option, dict):
        for key, inner in option.items():
            if key not in value and not (isinstance(inner, list) and "" in inner):
                return False
        return all(key in option and _one_of(inner, option[key]) for key, inner in value.items())
    return same_json(value, option)


def _one_of(value: Any, options: Any) -> bool:
    return any(same(value, option) for option in options) if isinstance(options, list) else same(value, options)


def _plain(text: str) -> str:
    return _IGNORED_SIGNS.sub("", text).lower().replace("'", '"')
