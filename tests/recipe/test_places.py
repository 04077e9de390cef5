"""A run's recipe names its data as its user did; it is read where the run's environment.json says that it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toolkit.data.keys import source_files
from toolkit.data.pinning import named_as
from toolkit.data.trained_on import check_trained_on
from toolkit.errors import RecipeError, RunError
from toolkit.recipe import dump, load
from toolkit.recipe.places import Known, described
from toolkit.records import write_json

RECIPE = '[[data.sources]]\nsource = "chats.jsonl"\n[[data.sources]]\nsource = "more"\n[eval]\nholdout = 1\n'


@pytest.fixture
def run(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that began in here/, over here/chats.jsonl and here/more/; it is used in there/."""
    for name in ("here/runs/r", "here/more", "there"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("chats.jsonl").write_text("its own\n")
    Path("more/a.jsonl").write_text("its own too\n")
    folder = tmp_path / "here" / "runs" / "r"
    (folder / "recipe.toml").write_text(RECIPE)
    sources = load(folder / "recipe.toml").recipe.data.sources
    data = {"files": source_files(sources), **described(sources, Path("runs/r"))}
    assert data["files"].keys() == {"chats.jsonl", "more/a.jsonl"}
    write_json(folder / "environment.json", {"data": data})
    monkeypatch.chdir(tmp_path / "there")
    return folder


def test_data_is_found_from_another_folder_under_its_own_names(run: Path) -> None:
    loaded = load(run / "recipe.toml")
    began = run.parent.parent
    assert [one.place for one in loaded.recipe.data.sources] == [str(began / "chats.jsonl"), str(began / "more")]
    assert [one.source for one in loaded.recipe.data.sources] == ["chats.jsonl", "more"]
    assert 'source = "chats.jsonl"' in dump(loaded.recipe) and str(began) not in dump(loaded.recipe)
    assert loaded.notes[0] == f"{run}/recipe.toml:2: chats.jsonl is read from {began}, as {run} has none"
    check_trained_on(loaded.recipe, run)


def test_the_working_folder_comes_first_where_its_file_is_that_of_the_run(run: Path) -> None:
    Path("chats.jsonl").write_text("another\n")  # of the same name, as each project has one
    (source, _) = load(run / "recipe.toml").recipe.data.sources
    assert source.place == str(run.parent.parent / "chats.jsonl")
    Path("chats.jsonl").write_text("its own\n")
    assert load(run / "recipe.toml").recipe.data.sources[0].place == "chats.jsonl"
    # nobody has what the run had: the one here is named, and refused
    Path("chats.jsonl").write_text("another\n")
    (run.parent.parent / "chats.jsonl").write_text("changed\n")
    recipe = load(run / "recipe.toml").recipe
    assert recipe.data.sources[0].place == "chats.jsonl"
    told = r"^chats\.jsonl: not the data that .*/r was trained on \(SHA-256 \w{64} wanted, \w{64} found\); or else$"
    with pytest.raises(RunError, match=told):
        check_trained_on(recipe, run, "; or else")


def test_a_run_that_moved_with_its_data_finds_it(run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(tmp_path / "here", tmp_path / "elsewhere")) / "runs" / "r"
    recipe = load(moved / "recipe.toml").recipe
    assert recipe.data.sources[0].place == str(tmp_path / "elsewhere" / "chats.jsonl")
    check_trained_on(recipe, moved)


def test_what_is_gone_or_came_to_it_is_said(run: Path) -> None:
    began = run.parent.parent
    (began / "more" / "b.jsonl").write_text("new\n")
    with pytest.raises(RunError, match=r"^more/b\.jsonl: not the data that .* \(it was not there then\)$"):
        check_trained_on(load(run / "recipe.toml").recipe, run)
    (began / "more" / "a.jsonl").rename(began / "more" / "aa.jsonl")
    with pytest.raises(
        RunError, match=r"^more/a\.jsonl: .* it is not at .*/more/a\.jsonl any more, did you mean aa\.jsonl\?"
    ):
        check_trained_on(load(run / "recipe.toml").recipe, run)


def test_the_same_files_under_other_names_are_the_runs(run: Path, tmp_path: Path) -> None:
    own = load(run / "recipe.toml").recipe
    shutil.copytree(tmp_path / "here", "copy", ignore=shutil.ignore_patterns("runs"))
    Path("copy/mine.toml").write_text(RECIPE)
    given = load(Path("copy/mine.toml")).recipe
    assert given.data.sources[0].source == "copy/chats.jsonl"
    named = named_as(given, own, Known.of(run))
    assert [(one.source, one.place) for one in named.data.sources] == [
        ("chats.jsonl", "copy/chats.jsonl"),
        ("more", "copy/more"),
    ]
    Path("copy/chats.jsonl").write_text("another\n")
    assert [one.source for one in named_as(given, own, Known.of(run)).data.sources] == ["copy/chats.jsonl", "more"]


def test_a_damaged_environment_says_nothing(run: Path) -> None:
    (run / "environment.json").write_text("{")
    check_trained_on(load(run / "recipe.toml").recipe, run)
    assert load(run / "recipe.toml").notes == ()
    with pytest.raises(RecipeError):
        load(run / "recipe.toml", ["data.sources.0.size=x"])
