"""A GGUF and the run that it was exported from answer the same chats alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.test_eval_command import RECIPE
from tests.export.shapes import adapter, base_model
from tests.tiny import write_chats
from toolkit.evaluation.command import Options, evaluate_models
from toolkit.inference.named_models import columns_of, settle
from toolkit.terminal import new_console

pytest.importorskip("xllamacpp")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an export in it: a merged model and a 16-bit GGUF."""
    from toolkit.export.export import export

    place = tmp_path_factory.mktemp("gguf")
    folder = place / "run"
    base = base_model(place / "model", "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    with torch.no_grad():  # so that answers differ from prompt to prompt
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(std=0.15)
    model.save_pretrained(base)
    adapter(folder / "adapter", base)
    chats = write_chats(place / "chats.jsonl", 30)
    (folder / "recipe.toml").write_text(
        RECIPE.format(model=place / "model", chats=chats, call_format="json").replace("holdout = 6", "holdout = 12")
    )
    export(folder, gguf=["f16"], verify=False, console=new_console(quiet=True))
    return folder


def test_folder_merged_and_gguf_agree(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    words = [str(run), str(run / "export")]
    table = evaluate_models(words, Options(chats=12, max_new_tokens=4), new_console(quiet=True))
    said = {name: [row.generated for row in evaluation.rows] for name, evaluation in table.columns}
    assert list(said) == ["base", "run", "run-merged", "run-F16"]
    # 16-bit rounding flips ties of a random model now and then; another prompt would change nearly all
    for name in ("run-merged", "run-F16"):
        assert sum(map(str.__eq__, said[name], said["run"])) >= 9, (name, said)
    assert sum(map(str.__eq__, said["base"], said["run"])) <= 3
    assert len(set(said["run"])) > 3
    assert table.columns[3][1].settings["precision"] == "llama.cpp"
    again = evaluate_models(words, Options(chats=12, max_new_tokens=4), new_console(quiet=True))
    assert again.columns[3][1].settings["decoded"] == 0
    assert again.columns[3][1].rows == table.columns[3][1].rows


def test_settings_come_from_export_json(run: Path) -> None:
    gguf = next((run / "export").glob("*.gguf"))
    (column,) = settle(columns_of([str(gguf)]))
    assert column.template is not None and column.template.rendering.call_format == "json"
    assert column.folder == (run.parent / "model").resolve()
