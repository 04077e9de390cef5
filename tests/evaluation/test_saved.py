"""Where `toolkit eval --out` writes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import toolkit
from tests.evaluation.test_results import row
from toolkit.errors import InputError
from toolkit.evaluation.command import Table
from toolkit.evaluation.results import Evaluation
from toolkit.evaluation.saved import check_folder, file_names


def table(*names: str) -> Table:
    """A column a name, of one answer that is the name."""
    return Table("1 chat", [(name, Evaluation([row(1, correct=True, text=name)])) for name in names])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_column_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ["a/q4", "a-q4", "a q4", "A-Q4", "a-q4-2", "base", "base (2)", "///"]
    table(*names).save(tmp_path)
    found = file_names(names)
    assert files(tmp_path) == {"table.json", *found}
    assert len({name.casefold() for name in found}) == len(names)
    assert [Evaluation.load(tmp_path / file).rows[0].generated for file in found] == names
    assert found[0] == "a-q4.jsonl" and found[5:7] == ["base.jsonl", "base-2.jsonl"]


def test_an_earlier_table_is_replaced_whole(tmp_path: Path) -> None:
    table("base", "one").save(tmp_path / "out")
    table("base", "two").save(tmp_path / "out")
    assert files(tmp_path / "out") == {"base.jsonl", "two.jsonl", "table.json"}
    check_folder(tmp_path / "out")


@pytest.mark.parametrize("inside", ["evaluation", "adapter", "checkpoints", "export"])
@pytest.mark.parametrize("made", [True, False])
def test_a_run_s_own_folders_are_refused_before_anything_is_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, inside: str, made: bool
) -> None:
    """Those that training has yet to make too: it would then write among the table's files."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text("")
    if made:
        (run / inside).mkdir()
    code, _, err = toolkit(capsys, monkeypatch, "eval", "no/such", "--out", str(run / inside))
    assert code == 2
    assert err == f"error: --out {run / inside}: the run's own folder; name another, as {run / 'later'}\n"
    code, _, err = toolkit(capsys, monkeypatch, "eval", "no/such", "--out", str(run))
    assert code == 2 and f"--out {run}: holds " in err and "recipe.toml" in err
    check_folder(run / "later")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"columns": [1]}', json.dumps({"columns": [{"name": "mine"}]})])
def test_files_of_others_are_not_written_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "before.jsonl").write_text("kept\n")
    if text:
        (tmp_path / "table.json").write_text(text)
    with pytest.raises(InputError, match=r"holds before\.jsonl.* which no earlier table wrote; name another folder$"):
        table("before").save(tmp_path)
    assert (tmp_path / "before.jsonl").read_text() == "kept\n"


def test_many_files_are_counted_and_an_empty_folder_is_free(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "one")
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.raises(InputError, match=r"holds 0\.txt, 1\.txt, 2\.txt and 2 more, which"):
        check_folder(tmp_path)
