"""The notebooks are what their source makes, say commands that there are, and run from first cell to last."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from typer.main import get_command

from tests.tiny import write_chats
from toolkit.commands.main import app
from toolkit.drafting.draft import draft
from toolkit.recipe import load

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
PLACES = ("colab", "kaggle")
SAVED = ("train.max_minutes=5", "train.save_steps=25")


@pytest.fixture(scope="module")
def make() -> Callable[[str], Any]:
    found: Callable[[str], Any] = runpy.run_path(str(NOTEBOOKS / "make.py"))["text"]
    return found


def codes(place: str) -> list[str]:
    notebook = nbformat.read(NOTEBOOKS / f"{place}.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("place", PLACES)
def test_a_notebook_is_what_its_source_makes(place: str, make: Callable[[str], Any]) -> None:
    assert (NOTEBOOKS / f"{place}.ipynb").read_text(encoding="utf-8") == make(place)


@pytest.mark.parametrize("place", PLACES)
def test_a_notebook_says_what_has_not_been_shown(place: str) -> None:
    text = (NOTEBOOKS / f"{place}.ipynb").read_text(encoding="utf-8")
    assert "Nothing in this notebook has run on a T4, on Colab or on Kaggle yet" in re.sub(r'\\n",\s*"', " ", text)
    assert not any(
        other in text for other in {"/content/", "/kaggle/"} - {f"/{'content' if place == 'colab' else place}/"}
    )


@pytest.mark.parametrize("place", PLACES)
def test_every_command_of_a_notebook_is_one_that_there_is(place: str) -> None:
    """Verbs and options, as the command line has them."""
    calls = [
        [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        for code in codes(place)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "toolkit"
    ]
    verbs = set()
    for verb, *words in calls:
        command: Any = get_command(app)
        command = command.commands[verb]
        if hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= known, (verb, words)
        verbs.add(verb)
    assert verbs == {"doctor", "init", "data", "plan", "run", "report", "chat", "export"}


def executed(place: str, work: Path, environment: dict[str, str], **parameters: object) -> list[str]:
    """What each code cell of a notebook printed, with other parameters than it has (as papermill puts them in).

    Raises `CellExecutionError` for a cell that fails.
    """
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOKS / f"{place}.ipynb", as_version=4)
    at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    known = {node.id for node in ast.walk(ast.parse(notebook.cells[at].source)) if isinstance(node, ast.Name)}
    assert parameters.keys() <= known
    given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(given))
    work.mkdir()
    paths = [str(ROOT / "tests" / "notebooks" / "standins"), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", **environment}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(work)}}).execute(
        env=environment
    )
    return [
        "".join(output.get("text", "") or output.get("data", {}).get("text/html", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def common(model: Path, cache: Path, home: Path) -> tuple[dict[str, str], dict[str, object]]:
    environment = {"TOOLKIT_CACHE": str(cache)}
    parameters: dict[str, object] = {"MODEL": str(model), "HOME": str(home), "MINUTES": 5, "INSTALL": False}
    return environment, {**parameters, "QUESTION": "What is 2 plus 3?"}


@pytest.mark.slow
def test_colab_from_an_upload_to_a_download(tmp_path: Path, tiny_model: Path, cache: Path) -> None:
    environment, parameters = common(tiny_model, cache, tmp_path / "drive")
    environment["UPLOADED"] = str(write_chats(tmp_path / "chats.jsonl", 24))
    said = "\n".join(executed("colab", tmp_path / "work", environment, **parameters))
    for text in (
        "toolkit run works here",
        "mounted /content/drive",
        "24 chats",
        "updates fit into 5 minutes",
        "&lt;h1&gt;",
        "downloaded export/mine-Q8_0.gguf True",
        "downloaded export/Modelfile True",
    ):
        assert text in said, text
    kept = {path.name for path in (tmp_path / "drive").iterdir()}
    assert kept == {"chats.jsonl", "mine.toml", "runs"}, "on another machine nothing else is there"


@pytest.mark.endurance
def test_kaggle_goes_on_from_an_earlier_output(
    tmp_path: Path, tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.training.run import run

    home, earlier = tmp_path / "working" / "toolkit", tmp_path / "input" / "notebook" / "toolkit"
    home.mkdir(parents=True)
    list(draft(write_chats(home / "chats.jsonl", 48), str(tiny_model), home / "mine.toml"))
    made = run(load(home / "mine.toml", SAVED), home / "runs" / "mine")
    for path in (made.adapter, made.summary, made.report, made.done, made.evaluation / "after.jsonl"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    earlier.parent.mkdir(parents=True)
    home.rename(earlier)
    environment, parameters = common(tiny_model, cache, home)
    said = executed("kaggle", tmp_path / "work", environment, INPUT=str(tmp_path / "input"), **parameters)
    text = "\n".join(said)
    assert f"copied {earlier}" in text
    assert f"resuming   from {home / 'runs' / 'mine' / 'checkpoints'}" in text
    assert (home / "runs" / "mine" / "summary.json").is_file()
    assert (home / "mine-Q8_0.gguf").is_file()


@pytest.mark.slow
def test_a_command_that_fails_stops_the_notebook(tmp_path: Path, tiny_model: Path, cache: Path) -> None:
    """What comes after would only hide it."""
    from nbclient.exceptions import CellExecutionError

    environment, parameters = common(tiny_model, cache, tmp_path / "drive")
    (tmp_path / "bad.jsonl").write_text("no json\n")
    environment["UPLOADED"] = str(tmp_path / "bad.jsonl")
    with pytest.raises(CellExecutionError, match=r"init .* exit code 2"):
        executed("colab", tmp_path / "work", environment, **parameters)
