"""JSON files of a run: damage is named with its file, and costs no more than the line that it is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import Problem, RunError
from toolkit.records import read_jsonl, read_list, read_object, read_rows, write_json

ROWS = [{"update": i, "loss": 2.0 - i / 10} for i in range(6)]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1, "text": "ä"})
    assert read_object(tmp_path / "x.json") == {"a": 1, "text": "ä"}
    assert read_object(tmp_path / "none.json") == {} and read_list(tmp_path / "none.json") == []
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert read_object(tmp_path / "old.json") == {"a": 1}, "written before there were checksums"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\x00\x80", "not JSON"),
        (b"[1]", "wanted a JSON object, found list"),
        (b'{"a": 2, "checksum": "0"}', "changed since it was written"),
    ],
)
def test_a_damaged_object_is_named_with_what_to_do(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_object(path, "do this")
    assert str(caught.value).startswith(f"{path}: {told}") and str(caught.value).endswith("; do this")


def test_any_changed_byte_of_an_object_is_seen_or_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"engine": {"value": "peft"}, "numbers": [1, 2.5, -3e-5]})
    whole, value = path.read_bytes(), read_object(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        try:
            found = read_object(path)
        except RunError:
            continue
        # a key of another name can be the checksum's own, which leaves an object that was never sealed
        assert found == value or "checksum" not in path.read_text()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"\x00\xff\x80\x81", "utf-8"),
        (b'{"update": 3, "lo', "Unterminated"),
        (b"[]", "wanted an object, found list"),
        (b'{"update": "3"}', "update: wanted a whole number"),
        (b'{"update": 3, "loss": "high"}', "loss: wanted a number, found 'high'"),
        (b"[" * 100_000, ""),
    ],
)
def test_a_bad_line_costs_itself_alone(tmp_path: Path, bad: bytes, told: str) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row).encode() for row in ROWS]
    lines[3] = bad
    lines[4] += b"\r"
    path.write_bytes(b"\n".join([b"", lines[0], b"  ", *lines[1:], b'{"update": 6, "l']))
    problems: list[Problem] = []
    assert list(read_rows(path, problems)) == [row for row in ROWS if row["update"] != 3]
    (problem,) = problems
    assert problem.where == f"{path}:6" and told in problem.message
    kept = list(read_jsonl(path))
    assert [row for row in kept if row in ROWS] == [row for row in ROWS if row["update"] != 3]


@pytest.mark.parametrize(
    "bad",
    [
        b'{"update": 1500, "loss": true}',
        b'{"update": true, "loss": 1.0}',
        b'{"update": -1, "loss": 1.0}',
        b'{"update": 1500, "memory": %d}' % 2**63,
        b'{"update": 1500, "eval_groups": [1.0, "2"]}',
        b'{"update": 1500}, {"update": 1500}',
        b'{"update": 1500}],[{"update": 1500}',
        b"1500",
    ],
)
def test_of_many_lines_a_bad_one_costs_itself_alone(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    rows: list[dict[str, Any]] = [
        {"update": n, "loss": 1 / (n + 1), "memory": n, "grad_norm": None} for n in range(3000)
    ]
    lines = [json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join([*lines[:1500], bad, b"", *lines[1501:], b""]))
    problems: list[Problem] = []
    assert list(read_rows(path, problems)) == [row for row in rows if row["update"] != 1500]
    assert [problem.where for problem in problems] == [f"{path}:1501"]
