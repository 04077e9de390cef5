"""Each fault that an export can have is planted, and the report has to fail at the check that is about it."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.command import toolkit
from tests.export.verify.planted import make_export, plant, rehash
from tests.tiny import write_recipe
from toolkit.errors import EngineError, RunError
from toolkit.export.export import export
from toolkit.export.verify import VerifyReport, verify
from toolkit.export.verify.verification_data import gather
from toolkit.exports import ExportFolder
from toolkit.recipe import load
from toolkit.training.run import run

pytest.importorskip("xllamacpp")
RUNNING = ("tokenizer", "template", "agreement", "runtime", "calls")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("made"), "llama")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the export that a test may spoil; base and adapter are shared."""
    return Path(shutil.copytree(made, tmp_path / "export"))


def check(folder: Path, chats: int = 2) -> tuple[VerifyReport, set[str]]:
    """The report, and the names of the checks that failed."""
    report = verify(folder, chats=chats, threads=1)
    return report, {one.name for one in report.failures}


def test_a_clean_export_passes(folder: Path) -> None:
    report, failed = check(folder, chats=3)
    assert report.passed and not failed, report.lines
    assert {one.name for one in report.checks} == {"structure", "weights", *RUNNING, "control"}
    assert not report.skipped and not report.lines
    agreement, control = report.of("agreement", "run-F16.gguf"), report.of("control")
    assert agreement and control
    assert agreement.numbers["all"]["kl_mean"] < 1e-4 < control.numbers["without_adapter"]["all"]["kl_mean"]
    assert agreement.numbers["all"]["positions"] == report.how["positions"] > 20
    saved = json.loads((folder / "export_report.json").read_text())
    assert saved["passed"] is True and saved["verdict"] == report.verdict
    assert VerifyReport.load(folder) == report
    assert {step.name for step in report.steps} >= {"weights", "its answers", "dequantised", "in llama.cpp"}
    assert (
        all(step.done == step.of for step in report.steps) and report.times in (folder / "export_report.md").read_text()
    )
    old = {name: value for name, value in saved.items() if name != "steps"}
    (folder / "export_report.json").write_text(json.dumps(old))
    assert VerifyReport.load(folder).steps == [] and VerifyReport.load(folder).checks == report.checks
    html = (folder / "export_report.html").read_text()
    assert "://" not in html and "<script" not in html and report.verdict in html
    assert "| run-F16.gguf |" in (folder / "export_report.md").read_text()


def test_another_template(folder: Path) -> None:
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"
    plant(folder, keys={"tokenizer.chat_template": template})
    report, failed = check(folder)
    assert failed == {"template"}
    assert "[user]" in report.lines[0] or "[system]" in report.lines[0]
    assert "is not the one that was trained with: write it again with --force" in report.lines[0]


def test_another_pre_tokenizer(folder: Path) -> None:
    plant(folder, keys={"tokenizer.ggml.pre": "smollm"})  # takes digits one by one
    report, failed = check(folder)
    assert "tokenizer" in failed and not failed & {"structure", "weights", "agreement"}
    assert "training cut" in report.lines[0]
    assert "tokenizer.ggml.pre is not that of" in report.lines[0] and "write it again with --force" in report.lines[0]


def test_a_dropped_adapter(folder: Path) -> None:
    record = ExportFolder(folder).record()
    base = export(record.base.folder, gguf=["f16"], out=folder.parent / "base", merged=False, verify=False)
    shutil.copy(base.ggufs()[0], ExportFolder(folder).ggufs()[0])
    rehash(folder)
    report, failed = check(folder)
    assert failed >= {"weights", "agreement", "runtime", "control"} and "structure" not in failed
    one, control = report.of("agreement", "run-F16.gguf"), report.of("control")
    assert one and control
    base_kl = control.numbers["without_adapter"]["all"]["kl_mean"]
    assert one.numbers["all"]["kl_mean"] == pytest.approx(base_kl, rel=0.01)


def test_swapped_tensors(folder: Path) -> None:
    def swap(held: dict[str, Any]) -> dict[str, Any]:
        a, b = "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"
        return held | {a: held[b], b: held[a]}

    plant(folder, tensors=swap)
    report, failed = check(folder)
    assert failed >= {"weights", "agreement"} and not failed & {"structure", "tokenizer", "template"}
    weights = report.of("weights", "run-F16.gguf")
    assert weights and {one["tensor"] for one in weights.numbers["worst"][:2]} == {
        "blk.0.ffn_gate.weight",
        "blk.0.ffn_up.weight",
    }


def test_rows_in_the_wrong_order(folder: Path) -> None:
    """What a writer does that forgets llama.cpp's order of Llama's query rows."""

    def unordered(held: dict[str, Any]) -> dict[str, Any]:
        names = [name for name in held if name.endswith("attn_q.weight")]
        rows = {name: held[name].reshape(4, 8, 2, -1).swapaxes(1, 2).reshape(held[name].shape) for name in names}
        return held | {name: np.ascontiguousarray(mixed) for name, mixed in rows.items()}

    plant(folder, tensors=unordered)
    _, failed = check(folder)
    assert failed >= {"weights", "agreement", "runtime"} and "structure" not in failed


def test_another_rope(folder: Path) -> None:
    plant(folder, keys={"llama.rope.freq_base": 500.0})
    report, failed = check(folder)
    assert failed >= {"structure", "agreement", "runtime"} and "weights" not in failed
    assert "llama.rope.freq_base is 500.0" in report.lines[0]


def test_a_nan(folder: Path) -> None:
    def nan(held: dict[str, Any]) -> dict[str, Any]:
        held["blk.1.ffn_down.weight"][3, 5] = np.nan
        return held

    plant(folder, tensors=nan)
    report, failed = check(folder)
    assert failed == {"structure"}
    assert "blk.1.ffn_down.weight holds 1 values that are NaN or infinite" in report.lines[0]
    assert {one.name for one in report.skipped} >= set(RUNNING)


def test_a_missing_tensor(folder: Path) -> None:
    plant(folder, tensors=lambda held: {name: data for name, data in held.items() if name != "blk.0.attn_v.weight"})
    report, failed = check(folder)
    assert failed == {"structure"} and "blk.0.attn_v.weight" in report.lines[0]


def test_a_file_that_is_not_the_one_written(folder: Path) -> None:
    path = ExportFolder(folder).ggufs()[0]
    path.write_bytes(path.read_bytes() + b"\0")
    report, failed = check(folder)
    assert failed == {"structure"} and "sha256" in report.lines[0]


def test_a_file_cut_short(folder: Path) -> None:
    path = ExportFolder(folder).ggufs()[0]
    path.write_bytes(path.read_bytes()[:5000])
    report, failed = check(folder)
    assert failed == {"structure"} and not report.passed


def test_merged_safetensors_of_another_model(folder: Path) -> None:
    base = Path(ExportFolder(folder).record().base.folder)
    shutil.copy(base / "model.safetensors", folder / "merged" / "model.safetensors")
    rehash(folder)
    report, failed = check(folder)
    assert failed == {"weights"} and "merged/model.safetensors" in report.lines[0]


@pytest.mark.slow
def test_a_run_that_changed_nothing_has_no_power(folder: Path, tmp_path: Path) -> None:
    """An adapter of zeros: the file is right, but these checks could not have told it from the base."""
    from safetensors.torch import load_file, save_file

    record = ExportFolder(folder).record()
    assert record.adapter
    zero = Path(shutil.copytree(record.adapter, tmp_path / "zero"))
    tensors = load_file(zero / "adapter_model.safetensors")
    save_file({name: tensor * 1e-7 for name, tensor in tensors.items()}, zero / "adapter_model.safetensors")
    out = export(zero, gguf=["f16"], base=record.base.folder, out=tmp_path / "out", verify=False, merged=False)
    report, failed = check(out.path)
    assert failed == {"control"} and "no power" in report.lines[0]


@pytest.mark.slow
def test_text_that_is_not_composed(tmp_path: Path) -> None:
    """Qwen's tokenizer composes text (NFC), llama.cpp does not: told by name; what composing does not mend fails."""
    folder = make_export(tmp_path, "qwen3")
    report, failed = check(folder)
    assert not failed, report.lines
    tokenizer = report.of("tokenizer", "run-F16.gguf")
    assert tokenizer and tokenizer.numbers["equal_after_nfc"] >= 4
    (note,) = tokenizer.notes
    assert "(NFC)" in note and "(none of them of the data)" in note
    spec_path = tmp_path / "base" / "tokenizer.json"
    spec = json.loads(spec_path.read_text())
    spec["normalizer"] = {"type": "NFKC"}
    spec_path.write_text(json.dumps(spec))
    report, failed = check(folder)
    assert failed == {"tokenizer"} and "normalizer NFKC can't be exported" in report.lines[0]


@pytest.mark.slow
def test_a_plain_model_has_no_control(folder: Path, tmp_path: Path) -> None:
    base = ExportFolder(folder).record().base.folder
    out = export(base, gguf=["f16"], out=tmp_path / "out", verify=False, merged=False)
    report, failed = check(out.path)
    control = report.of("control")
    assert not failed and control and control.outcome == "skip", report.lines
    assert report.how["chats_from"] == "built-in held-out chats"


def test_little_time_compares_fewer_chats_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = verify(folder, chats=4, max_minutes=1e-6, threads=1, console=Console(soft_wrap=True))
    assert report.passed, report.lines
    counted = {step.name: (step.done, step.of) for step in report.steps if step.of}
    assert counted["its predictions"] == (1, 4) and counted["its answers"] == (2, 4)  # two at a time
    assert counted["without the adapter"] == counted["dequantised"] == (1, 1) and counted["in llama.cpp"] == (1, 2)
    assert counted["weights"][0] == counted["weights"][1] > 1, "what is read whole is not cut"
    note = "1 of 4 chats were compared in every step: more did not fit into 1e-06 minutes; --max-minutes allows more"
    out = capsys.readouterr().out
    assert note in report.how["notes"] and note in out
    assert "time       " in out and "run-F16.gguf: dequantised" in out


def test_a_model_that_does_not_end_its_turns_is_not_decoded_to_the_limit(folder: Path) -> None:
    """Random weights never end: an answer is cut at half as much again as the longest in the data."""
    record = ExportFolder(folder).record()
    assert record.recipe
    recipe = Path(record.recipe)
    recipe.write_text(recipe.read_text().replace("max_new_tokens = 12", "max_new_tokens = 2000"))
    try:
        found = gather(ExportFolder(folder), record, 3)
    finally:
        recipe.write_text(recipe.read_text().replace("max_new_tokens = 2000", "max_new_tokens = 12"))
    longest = 0
    for prompt in found.asked:
        assert prompt.row is not None
        row, start = found.rows[prompt.row].ids, len(found.ids(prompt.text))
        longest = max(longest, row.index(found.renderer.end_token_ids[0], start) - start + 1)
    assert found.max_new_tokens == int(1.5 * longest) + 32 < 2000
    assert gather(ExportFolder(folder), record, 3).max_new_tokens == 12


def test_without_llama_cpp_the_rest_is_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise EngineError("running a GGUF needs xllamacpp, which is not installed: pip install 'toolkit[serve]'")

    monkeypatch.setattr(import_module("toolkit.export.verify.verify"), "runtime", missing)
    report, failed = check(folder)
    assert not failed
    assert {one.name for one in report.skipped} == {"tokenizer", "template", "runtime"}
    calls = report.of("calls", "run-F16.gguf")
    assert calls and calls.numbers["route"] == "transformers, dequantised"
    assert "could not be made" in report.verdict


def test_what_can_not_be_verified(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not an export folder"):
        verify(tmp_path)
    record = ExportFolder(folder).record()
    record.adapter = str(tmp_path / "gone")
    record.save(folder)
    with pytest.raises(RunError, match="not there any more"):
        verify(folder)
    with pytest.raises(RunError, match="verify the export first"):
        VerifyReport.load(tmp_path)


def test_the_command_says_again_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["export", "--verify-only", str(folder), "--chats", "1"]
    good = ExportFolder(folder).ggufs()[0].read_bytes()
    plant(folder, keys={"tokenizer.chat_template": "{{ messages[0]['content'] }}"})
    code, out, err = toolkit(capsys, monkeypatch, *words)
    assert code != 0 and "FAILED     template: run-F16.gguf" in out and "FAILED.txt" in err
    assert ExportFolder(folder).record().status == "failed" and "template" in (folder / "FAILED.txt").read_text()
    ExportFolder(folder).ggufs()[0].write_bytes(good)
    rehash(folder)
    code, out, err = toolkit(capsys, monkeypatch, *words)
    assert code == 0 and "verified   passed" in out, err
    assert ExportFolder(folder).record().status == "passed" and not (folder / "FAILED.txt").exists()
    code, _, err = toolkit(capsys, monkeypatch, "export", "--verify-only", str(folder / "merged"))
    assert code == 2 and "not an export folder" in err


@pytest.mark.parametrize("holdout", [4, pytest.param(0, marks=pytest.mark.slow)])
def test_a_run_over_chats_without_tools(tmp_path: Path, tiny_model: Path, cache: Path, holdout: int) -> None:
    """By a template that knows none. Where the run held none out, built-in chats that need no tool are compared on."""
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        12,
        data={"call_format": "native"},
        train={"max_steps": 3},
        eval={"holdout": holdout, "early_stopping_patience": 0, "max_new_tokens": 8},
    )
    rows = [[{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"{n}!"}] for n in range(12)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    done = run(load(recipe), tmp_path / "run", export=False)
    report, failed = check(export(str(done.path), gguf=["f16"], verify=False, merged=False).path)
    assert not failed and report.how["chats"] == 2, report.lines
    assert report.how["chats_from"].startswith("the recipe" if holdout else "built-in")
