"""What `toolkit run` finds out about its [export] before it trains, and what it does after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.export.shapes import base_model
from tests.tiny import write_recipe
from toolkit.errors import DataError, InputError, ToolkitError
from toolkit.export.architecture import read_architecture
from toolkit.export.preflight import announce, check_run, preflight, space_needed
from toolkit.exports import ExportFolder
from toolkit.recipe import load
from toolkit.training.run import run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model(tmp_path_factory.mktemp("preflight") / "base", "llama")


@pytest.fixture
def recipe(base: Path, tmp_path: Path, cache: Path) -> Path:
    return write_recipe(
        tmp_path,
        base,
        12,
        lora={"lora_dropout": 0.0},
        train={"max_steps": 1, "gradient_checkpointing": False},
        eval={"holdout": 2},
        export={"gguf": ["q8_0"], "merge_base": "original", "chats": 3, "max_minutes": 2.5},
    )


def planted(monkeypatch: pytest.MonkeyPatch, passed: bool) -> list[tuple[Path, int, float]]:
    told: list[tuple[Path, int, float]] = []

    def verify(folder: Path, *, chats: int, max_minutes: float, console: Any) -> Any:
        told.append((folder, chats, max_minutes))
        return SimpleNamespace(passed=passed, lines=["Q8_0: too far away"])

    monkeypatch.setattr("toolkit.export.export.verify", verify)
    return told


def test_a_run_exports_at_its_end(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = planted(monkeypatch, True)
    folder = run(load(recipe), tmp_path / "run")
    record = ExportFolder(folder.path / "export").record()
    assert told == [(folder.path / "export", 3, 2.5)]
    assert [file.type for file in record.files] == ["BF16", "Q8_0"] and record.status == "passed"
    assert record.merge_base.asked == "original" and record.recipe == str(folder.recipe)


def test_a_run_without_its_export(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = planted(monkeypatch, True)
    folder = run(load(recipe), tmp_path / "run", export=False)
    assert not told and not (folder.path / "export").exists() and folder.summary.is_file()
    assert load(folder.recipe).recipe.export.gguf == ["q8_0"], "what `toolkit export` does later"
    assert "export     none (--no-export); the recipe asks for q8_0" in capsys.readouterr().out


def test_what_is_exported_is_said_before_training(recipe: Path, tmp_path: Path) -> None:
    own = load(recipe)
    assert announce(own, True) == "export     q8_0 after training; --no-export skips it"
    trial = tmp_path / "trial.toml"
    trial.write_text(f'extends = "{recipe.name}"\n[train]\nmax_steps = 3\n')
    line = announce(load(trial), True)
    assert line == f"export     q8_0 after training, inherited from {recipe}; --no-export skips it"
    said = announce(load(trial, ['export.gguf=["f16", "q8_0"]']), True)
    assert said == "export     f16, q8_0 after training; --no-export skips it"


@pytest.mark.slow
def test_a_failed_gate_fails_the_run_and_keeps_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, False)
    with pytest.raises(ToolkitError, match="the files are kept") as caught:
        run(load(recipe), tmp_path / "run")
    assert caught.value.exit_code == 1
    assert (tmp_path / "run" / "summary.json").is_file() and (tmp_path / "run" / "export" / "FAILED.txt").is_file()


def test_an_export_that_breaks_says_how_to_go_on(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: Any, **more: Any) -> None:
        raise ToolkitError("no disk space")

    monkeypatch.setattr("toolkit.export.export.quantize_gguf", broken)
    with pytest.raises(ToolkitError, match=r"no disk space\n.*toolkit export .*/run --gguf q8_0"):
        run(load(recipe), tmp_path / "run")
    assert (tmp_path / "run" / "adapter").is_dir() and not (tmp_path / "run" / "export").exists()


def test_what_cannot_be_exported_is_not_trained(recipe: Path, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 512}
    (other / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    with pytest.raises(InputError, match=r"\[export\]: .*rope type yarn"):
        run(load(recipe, [f"model.name={other}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_room_for_the_export(recipe: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.export.preflight.space_needed", lambda *words, **more: 2**62)
    with pytest.raises(ToolkitError, match=r"^\[export\]: no disk space for the export"):
        check_run(load(recipe).recipe, base, tmp_path)


def test_space(base: Path) -> None:
    architecture = read_architecture(base)
    small = space_needed(architecture, ["q8_0"], merged=False)
    assert small < space_needed(architecture, ["q8_0"], merged=True)
    assert space_needed(architecture, ["f16", "q8_0"], merged=False) == small  # the 16-bit file is made in either case
    assert small >= 3 * architecture.shape.parameters


def test_no_template(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        preflight(other, ["q8_0"])
    assert preflight(base, ["q8_0"]) == []


def test_tools_without_a_description(base: Path, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "bare.jsonl"
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "tools": [tool]}
    path.write_text(json.dumps(row) + "\n")
    file = tmp_path / "x.toml"
    file.write_text(f'[model]\nname = "{base}"\n[[data.sources]]\nsource = "{path}"\n[eval]\nholdout = 0\n')
    extra = ["eval.early_stopping_patience=0"]
    (note,) = preflight(base, ["q8_0"], load(file, extra).recipe)
    assert note == "1 tools have no description (add); they are trained and served with an empty one"
    assert preflight(base, ["q8_0"], load(file, [*extra, "data.call_format=json"]).recipe) == []


def test_what_is_wrong_with_the_data_is_not_blamed_on_the_export(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("holdout = 2", "holdout = 99"))
    line = recipe.read_text().split("\n").index("holdout = 99") + 1
    loaded = load(recipe, ["data.call_format=native"])
    with pytest.raises(DataError) as caught, loaded.placed():
        run(loaded, tmp_path / "run")
    assert str(caught.value).startswith(f"{recipe}:{line}: eval.holdout = 99 keeps all 12 different chats out")
