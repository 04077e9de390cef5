"""A GGUF and the run that it was exported from answer the same chats alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.evaluation.test_eval_command import RECIPE
from tests.export.shapes import adapter, base_model
from tests.tiny import write_chats
from toolkit.evaluation.columns import columns_of, settle
from toolkit.evaluation.command import Options, evaluate_models

pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an export in it: a merged model and a 16-bit GGUF."""
    from toolkit.export.export import export

    place = tmp_path_factory.mktemp("gguf")
    folder = place / "run"
    adapter(folder / "adapter", base_model(place / "model", "llama"))
    chats = write_chats(place / "chats.jsonl", 30)
    (folder / "recipe.toml").write_text(RECIPE.format(model=place / "model", chats=chats, call_format="json"))
    export(folder, gguf=["f16"], verify=False, console=Console(quiet=True))
    return folder


def test_folder_merged_and_gguf_agree(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    words = [str(run), str(run / "export")]
    table = evaluate_models(words, Options(chats=6, max_new_tokens=12), Console(quiet=True))
    said = {name: [row.generated for row in evaluation.rows] for name, evaluation in table.columns}
    assert list(said) == ["base", "run", "run-merged", "run-F16"]
    assert said["run-F16"] == said["run"] == said["run-merged"]
    assert said["base"] != said["run"]
    assert "llama.cpp" in str(table.columns[3][1].settings) and len(set(said["run"])) > 1
    again = evaluate_models(words, Options(chats=6, max_new_tokens=12), Console(quiet=True))
    assert again.columns[3][1].settings["decoded"] == 0
    assert again.columns[3][1].rows == table.columns[3][1].rows


def test_settings_come_from_export_json(run: Path) -> None:
    gguf = next((run / "export").glob("*.gguf"))
    (column,) = settle(columns_of([str(gguf)]))
    assert column.rendering is not None and column.rendering.call_format == "json"
    assert column.folder == (run.parent / "model").resolve()
