from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.data.toys import ADD, WEATHER, weather_row, write_jsonl
from toolkit.chats import Chat
from toolkit.data import packed, readers
from toolkit.data.notes import Reading
from toolkit.data.readers import _json_values, read_rows
from toolkit.data.sources import load_chats
from toolkit.errors import DataError
from toolkit.recipe.schema import SourceSection

CITIES = ["Oslo", "Bergen", "Bodø", "Tromsø", "Hamar"]
ROWS = [weather_row(city) for city in CITIES]


def load(path: Path | str, reading: Reading | None = None, **options: Any) -> list[Chat]:
    return list(load_chats([SourceSection(source=str(path), **options)], reading))


def cities(chats: list[Chat]) -> list[str]:
    return [chat.turns[1].content.removeprefix("What is the weather in ").removesuffix("?") for chat in chats]


def write(folder: Path, name: str) -> Path:
    """The five rows in a file whose name says how."""
    path = folder / name
    plain = folder / name.removesuffix(".gz").removesuffix(".zst")
    if plain.suffix == ".jsonl":
        write_jsonl(plain, ROWS)
    elif plain.suffix == ".json":
        plain.write_text(json.dumps(ROWS, indent=2))
    elif plain.suffix == ".csv":
        with plain.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["messages", "tools"])
            writer.writerows([json.dumps(row["messages"]), json.dumps(row["tools"])] for row in ROWS)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), plain)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif path.suffix == ".zst":
        path.write_bytes(zstandard.compress(plain.read_bytes()))
    if path != plain:
        plain.unlink()
    return path


NAMES = [f"rows{kind}{packed}" for kind in (".jsonl", ".json", ".csv", ".parquet") for packed in ("", ".gz", ".zst")]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_file_gives_the_same_chats(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    chats = load(path)
    assert cities(chats) == CITIES
    assert [chat.turns for chat in chats] == [chat.turns for chat in load(write_jsonl(tmp_path / "plain.jsonl", ROWS))]
    assert chats[0].tools == (WEATHER, ADD), "Arrow gives each tool the union of all fields; the nulls must go"
    assert all(chat.where.startswith(f"{path}:") and chat.where.split(":")[-1].isdigit() for chat in chats)


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(["", json.dumps(ROWS[0]), "", json.dumps(ROWS[1])]))
    assert [chat.where for chat in load(path)] == [f"{path}:2", f"{path}:4"]
    pretty = tmp_path / "x.json"
    pretty.write_text(json.dumps(ROWS, indent=1))
    lines = pretty.read_text().splitlines()
    for chat in load(pretty):
        assert lines[int(chat.where.rsplit(":", 1)[1]) - 1] == " {"


def test_a_folder_is_its_data_files_in_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", ROWS[2:])
    write_jsonl(tmp_path / "a.jsonl", ROWS[:2])
    (tmp_path / "README.md").write_text("not data")
    assert cities(load(tmp_path)) == CITIES


def test_a_json_file_may_hold_rows_under_a_key_or_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"version": 1, "data": ROWS}))
    assert cities(load(path)) == CITIES
    assert cities(load(write_jsonl(path, ROWS))) == CITIES
    assert cities(load(write_jsonl(path, ROWS[:1]))) == CITIES[:1]


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.none() | st.floats(-9, 9), max_size=3)
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_json_is_read_in_pieces_of_any_size(values: list[Any], indent: int | None, as_list: bool) -> None:
    import io

    text = json.dumps(values, indent=indent) if as_list else "\n".join(json.dumps(value) for value in values)

    class Drops(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            return super().read(3)

    assert [value for _, value in _json_values(Drops(text))] == values


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(1.0, CITIES), (0.5, [CITIES[1], CITIES[3]]), (2.0, [city for city in CITIES for _ in range(2)])],
)
def test_weights_say_how_often_a_chat_is_taken(tmp_path: Path, weight: float, expected: list[str]) -> None:
    assert cities(load(write_jsonl(tmp_path / "x.jsonl", ROWS), weight=weight)) == expected


def test_limits_and_several_sources(tmp_path: Path) -> None:
    first, second = write_jsonl(tmp_path / "a.jsonl", ROWS), write_jsonl(tmp_path / "b.jsonl", ROWS)
    specs = [SourceSection(source=str(first), limit=2), SourceSection(source=str(second), weight=2.0, limit=3)]
    assert cities(list(load_chats(specs))) == [*CITIES[:2], "Oslo", "Oslo", "Bergen"]


def test_builtin_chats() -> None:
    chats = load("builtin:tools", size=30, seed=1, max_tools=4)
    assert len(chats) == 30 and all(len(chat.tools) <= 4 for chat in chats)
    with pytest.raises(DataError, match=r"builtin:tool: no such built-in chats, did you mean builtin:tools\?"):
        load("builtin:tool")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [json.dumps(weather_row(str(number) * 1500)) for number in range(800)]
    path.write_text("\n".join(rows) if name == "x.jsonl" else f"[{','.join(rows)}]")
    del rows
    specs = [SourceSection(source=str(path))]
    next(load_chats(specs))  # imports
    tracemalloc.start()
    assert sum(1 for _ in load_chats(specs)) == 800
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < path.stat().st_size / 20


class TestBadInput:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "train.jsonl", ROWS)
        with pytest.raises(DataError, match=r"trian\.jsonl: no such file, did you mean train\.jsonl\?"):
            load(tmp_path / "trian.jsonl")
        with pytest.raises(DataError, match="no such file"):
            load("nowhere.jsonl")
        with pytest.raises(DataError, match="no such file"):
            load("data/nowhere.jsonl.gz")

    @pytest.mark.parametrize("text", ["", "\n\n", "[]"])
    def test_no_rows(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "x.json"
        path.write_text(text)
        with pytest.raises(DataError, match=r"x\.json: empty"):
            load(path)

    def test_a_folder_without_data(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no data files in this folder"):
            load(tmp_path)

    def test_an_unknown_kind_of_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.xlsx"
        path.write_text("?")
        with pytest.raises(DataError, match=r"x\.xlsx: unknown kind of file; wanted \.jsonl"):
            load(path)
        with pytest.raises(DataError, match=r"wanted \.jsonl.*; save a table with tabs as \.csv, with commas"):
            load(path.rename(tmp_path / "x.tsv"))

    def test_bad_rows_are_reported_with_their_line_all_at_once(self, tmp_path: Path) -> None:
        broken = weather_row()
        broken["messages"] = broken["messages"][:2]
        path = tmp_path / "x.jsonl"
        path.write_text("\n".join([json.dumps(ROWS[0]), "{oops", json.dumps(broken), json.dumps(ROWS[1])]))
        with pytest.raises(DataError) as caught:
            load(path)
        assert [problem.where for problem in caught.value.problems] == [f"{path}:2", f"{path}:3", ""]
        assert "not JSON" in str(caught.value) and "no assistant turn" in str(caught.value)
        assert "2 of 4 rows can't be used (50.00%), more than data.max_bad = 0 allows" in str(caught.value)
        reading = Reading()
        assert cities(load(path, reading)) == CITIES[:2]
        assert (reading.rows, reading.bad) == (4, 2)
        assert tuple(reading.by_cause()) == caught.value.problems[:2]

    def test_rows_that_fail_alike_are_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        path.write_text("{oops\n" * 30 + '{"a": 1}\n')
        with pytest.raises(DataError) as caught:
            load(path)
        alike, other, summary = map(str, caught.value.problems)
        assert alike.startswith(f"{path}:1: not JSON") and f"30 rows like this: also {path}:2, " in alike
        assert alike.endswith(" and 25 more]")
        assert other.startswith(f"{path}:31: no known format: found a;")
        assert summary.startswith("31 of 31 rows can't be used (100.00%)") and summary.endswith(": mend them")

    @pytest.mark.parametrize("name", [name for name in NAMES if name.endswith((".gz", ".zst"))])
    @pytest.mark.parametrize("how", ["cut", "garbage"])
    def test_broken_packed_files(self, tmp_path: Path, name: str, how: str) -> None:
        path = write(tmp_path, name)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"garbage" + content)
        with pytest.raises(DataError, match=rf"{name}: (broken or cut off|can't be read)"):
            load(path)

    def test_broken_parquet(self, tmp_path: Path) -> None:
        path = write(tmp_path, "rows.parquet")
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match=r"rows\.parquet: can't be read: broken parquet"):
            load(path)

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        path.write_bytes(json.dumps(ROWS[0]).encode() + b"\n\xff\xfe\n")
        with pytest.raises(DataError, match="not UTF-8"):
            load(path)

    def test_a_csv_without_the_needed_columns_is_one_problem(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("question,answer\n" + "2+2,4\n" * 5)
        with pytest.raises(DataError) as caught:
            load(path)
        assert len(caught.value.problems) == 1
        assert "found answer, question" in str(caught.value) and "alpaca: instruction and output" in str(caught.value)

    def test_a_csv_row_with_too_many_cells(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("instruction,output\nadd,4\nadd,4,5\n")
        with pytest.raises(DataError, match=r"x\.csv:3: 3 cells, but the header has 2 columns"):
            load(path)

    def test_a_list_without_end(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        path.write_text(json.dumps(ROWS)[:-1])
        with pytest.raises(DataError, match="the list has no end"):
            load(path)
        path.write_text(json.dumps(ROWS)[:-20])
        with pytest.raises(DataError, match="not JSON from here on"):
            load(path)

    def test_no_network(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        with pytest.raises(DataError) as caught:
            load("someone/no-such-chats")
        assert "builtin:tools" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_zst_of_several_frames(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(b"".join(zstandard.compress((json.dumps(row) + "\n").encode()) for row in ROWS))
    assert [number for number, _ in read_rows(path)] == [1, 2, 3, 4, 5]


def _gz(path: Path, blocks: Iterator[bytes]) -> None:
    with gzip.open(path, "wb") as file:
        for block in blocks:
            file.write(block)


def _zst(path: Path, blocks: Iterator[bytes]) -> None:
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as file:
        for block in blocks:
            file.write(block)


@pytest.mark.parametrize("pack", [_gz, _zst])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_what_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pack: Callable[[Path, Iterator[bytes]], None]
) -> None:
    monkeypatch.setattr(packed, "_SMALL", 1 << 24)
    path = tmp_path / f"x.{kind}.{pack.__name__[1:]}"
    begin = b'messages\n"' if kind == "csv" else b'[{"messages": "'
    pack(path, iter([begin, *[b"a" * (1 << 20)] * 256]))  # a quarter of a GiB in less than half a MiB
    assert path.stat().st_size < 1 << 19
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{path.name}: unpacks to [\d,]+ times its size, at most 300 is taken"):
        for _ in read_rows(path):
            pass
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()


def test_a_parquet_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_SMALL", 1 << 20)
    table = pyarrow.table({"messages": ["a" * (1 << 22)]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"x\.parquet: unpacks to [\d,]+ times its size"):
        list(read_rows(tmp_path / "x.parquet"))


def test_a_line_that_is_too_long_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_MOST_ROW", 200)
    lines = ['{"a": 1}', json.dumps({"a": "x" * 200}), "x" * 199, '{"a": 2}', json.dumps({"a": "x" * 2**17})]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    found = list(read_rows(tmp_path / "x.jsonl"))
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    assert found[0][1] == {"a": 1} and found[3][1] == {"a": 2}
    assert ["more than" in str(row) for _, row in found] == [False, True, False, False, True]
    (tmp_path / "x.json").write_text(f"[{lines[0]}, {json.dumps({'a': 'x' * 2**18})}, {lines[3]}]")
    (_, first), (place, error) = read_rows(tmp_path / "x.json")
    assert first == {"a": 1} and place == "1:12" and "write a row a line" in str(error)


def test_a_file_of_utf_16_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes((json.dumps(weather_row("Oslo")) + "\n").encode("utf-16") + "{}\n{}\n".encode("utf-16-le"))
    found = [(place, str(row)) for place, row in read_rows(path)]
    assert len(found) == 1 and "not UTF-8 text but UTF-16" in found[0][1]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_in_a_file_of_lines_is_said_once(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps([weather_row(), weather_row()], indent=indent))
    with pytest.raises(DataError) as caught:
        list(load_chats([SourceSection(source=str(path))]))
    assert str(caught.value).startswith(f"{path}:1: a JSON list begins here, and a row a line is wanted; name the")
    assert "not JSON" not in str(caught.value)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_objects_over_several_lines_in_a_file_of_lines_are_said_once(tmp_path: Path, ending: str) -> None:
    text = "\n".join(json.dumps(weather_row(f"Malmö {number}"), indent=2, ensure_ascii=False) for number in range(200))
    packed = gzip.compress(text.encode()) if ending else text.encode()
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(packed)
    with pytest.raises(DataError) as caught:
        list(load_chats([SourceSection(source=str(path))]))
    assert str(caught.value).startswith(
        f"{path}:1: an object over several lines begins here, and a row a line is wanted"
    )
    assert "not JSON" not in str(caught.value)
    as_advised = tmp_path / f"rows.json{ending}"
    as_advised.write_bytes(packed)
    assert len(list(load_chats([SourceSection(source=str(as_advised))]))) == 200


@pytest.mark.parametrize("broken", ['{"messages": [', "{", '{"a": 1} or so', "nothing"])
def test_a_first_line_that_is_broken_is_one_bad_row(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([broken, *(json.dumps(weather_row()) for _ in range(2))]))
    reading = Reading()
    assert len(list(load_chats([SourceSection(source=str(path))], reading))) == 2
    assert reading.bad == 1 and reading.by_cause()[0].message.startswith("not JSON")


def test_a_weight_that_takes_nothing_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [weather_row() for _ in range(3)])
    with pytest.raises(DataError, match=r"rows\.jsonl: weight = 0\.3 takes none of 3 chats; wanted 0\.334 or more$"):
        list(load_chats([SourceSection(source=str(path), weight=0.3)]))
    assert len(list(load_chats([SourceSection(source=str(path), weight=0.334)]))) == 1
