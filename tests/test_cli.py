"""The command line from outside: exit codes, where messages go, what is imported, what is sent home (nothing)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.command import toolkit
from toolkit.environment import ALLOCATOR, QUIET, quiet
from toolkit.errors import InterruptedRun, RecipeError, TrainingError
from toolkit.runs import RunFolder

ROOT = Path(__file__).parents[1]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    return lambda *words: toolkit(capsys, monkeypatch, *words)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "x.toml").write_text("[train]\nseed = 1\n")
    return "x.toml"


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    """Put a module in place of a heavy one."""
    module = ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["run", "--help"], ["plan", "-h"], ["data", "check", "-h"], ["eval", "-h"]]
)
def test_help(call: Any, words: list[str]) -> None:
    code, out, _ = call(*words)
    assert code == 0
    assert "Usage: toolkit" in out


def test_help_names_the_verbs(call: Any) -> None:
    _, out, _ = call("--help")
    for verb in ("run", "plan", "data", "eval", "doctor"):
        assert re.search(rf"^  {verb} ", out, re.MULTILINE)


def test_version(call: Any) -> None:
    code, out, _ = call("--version")
    assert code == 0
    assert re.fullmatch(r"toolkit \d+\.\d+\.\d+\n", out)


@pytest.mark.parametrize("verb", [["run"], ["plan"], ["data", "check"]])
@pytest.mark.parametrize("name", ["chats.jsonl", "chats.json", "my chats.csv", "chats.jsonl.zst", "chats.txt"])
def test_data_in_a_recipes_place(call: Any, tmp_path: Path, verb: list[str], name: str) -> None:
    (tmp_path / name).write_text('{"messages": []}\n{"messages": []}\n' if name.endswith(("l", "t")) else "[{}]")
    if name == "chats.json":
        (tmp_path / name).write_text('[{"messages": []}]')
    code, _, err = call(*verb, name)
    quoted = f"'{name}'" if " " in name else name
    assert code == 2 and "this is data, and a recipe is TOML; write a recipe for it: toolkit init " + quoted in err


def test_a_folder_of_data_in_a_recipes_place(call: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chats.jsonl").write_text("{}\n")
    code, _, err = call("run", "data")
    assert (code, err) == (2, "error: data is a folder of data; write a recipe for it: toolkit init data\n")


def test_input_errors_are_a_line_each(call: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[lora]\nlora_dropuot = 0.1\nr = -1\n" + "x" * 200 + " = 1\n")
    for verb in (["run"], ["plan"], ["data", "check"], ["data", "preview"], ["data", "build"]):
        code, out, err = call(*verb, "bad.toml", "--set", "train.lerning_rate=1")
        assert code == 2
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 4
        assert lines[0] == "error: bad.toml:2: lora.lora_dropuot: unknown key, did you mean lora_dropout?"
        assert lines[3] == "error: --set train.lerning_rate=1: unknown key, did you mean learning_rate?"


@pytest.mark.parametrize("verb", [["chat"], ["eval"], ["report"], ["serve"], ["export"], ["run", "x.toml", "--resume"]])
def test_a_folder_of_runs_in_a_runs_place_is_told_what_it_holds(
    call: Any, recipe: str, tmp_path: Path, verb: list[str]
) -> None:
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.toml").write_text("")
    code, _, err = call(*verb, "runs")
    assert code == 2 and "runs: not a run folder, but it holds some: first, second" in err


def test_missing_recipe(call: Any) -> None:
    code, _, err = call("run", "nothing.toml")
    assert (code, err) == (2, "error: no file nothing.toml, wanted a recipe (a .toml file)\n")


def test_unknown_card(call: Any, recipe: str) -> None:
    code, _, err = call("plan", recipe, "--gpu", "t44")
    assert code == 2
    assert err.startswith("error: --gpu t44: unknown card, did you mean t4?")
    for word, card in (("t5", "t4"), ("l5", "l4"), ("h20", "h200")):
        assert f"--gpu {word}: unknown card, did you mean {card}?" in call("plan", recipe, "--gpu", word)[2]


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (RecipeError("wrong"), 2, "error: wrong\n"),
        (TrainingError("loss is nan\nkept: a checkpoint"), 1, "error: loss is nan\nkept: a checkpoint\n"),
        (InterruptedRun("stopped; go on"), 130, "stopped; go on\n"),
    ],
)
def test_errors_of_the_work(
    call: Any, recipe: str, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int, message: str
) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise raised

    fake(monkeypatch, "toolkit.training.run", run=run)
    assert call("run", recipe) == (code, "", message)


STRUCK = """
import sys
from types import SimpleNamespace
from toolkit.commands.main import main
sys.modules["toolkit.training.run"] = SimpleNamespace(run=lambda *_, **__: exec("raise KeyboardInterrupt"))
sys.argv = ["toolkit", "run", "x.toml"]
main()
"""


def test_an_interrupt_within_exec_ends_as_any_other(recipe: str, tmp_path: Path) -> None:
    """As where dataclasses are made; `python -m` would forget the exit code."""
    (tmp_path / "struck.py").write_text(STRUCK)
    words = [sys.executable, "-m", "struck"]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_bug_keeps_its_traceback(call: Any, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise KeyError("oops")

    fake(monkeypatch, "toolkit.training.run", run=run)
    code, _, err = call("run", recipe)
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: this is a bug in toolkit")


def test_run_hands_on_what_was_given(call: Any, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def train(*given: Any, export: bool) -> RunFolder:
        calls.append((*given, export))
        return RunFolder(Path("here"))

    fake(monkeypatch, "toolkit.training.run", run=train)
    code, said, _ = call("run", recipe, "--set", "train.seed=5", "--set", "lora.r=4", "--out", "here")
    told = "next       toolkit export here --gguf q8_0\n           toolkit chat here\n           toolkit eval here\n"
    assert (code, said) == (0, told)
    assert call("run", recipe, "--resume", "there", "--no-export")[0] == 0
    (loaded, out, resume, exports), (_, no_out, folder, no_export) = calls
    assert (loaded.recipe.train.seed, loaded.recipe.lora.r) == (5, 4)
    assert (out, resume, no_out, folder) == (Path("here"), None, None, Path("there"))
    assert (exports, no_export) == (True, False)


@pytest.mark.parametrize(("ok", "complete", "code"), [(True, True, 0), (False, True, 2), (True, False, 2)])
def test_data_check(
    call: Any, recipe: str, monkeypatch: pytest.MonkeyPatch, ok: bool, complete: bool, code: int
) -> None:
    report = SimpleNamespace(ok=ok, complete=complete, render=lambda console: console.print("counts"))
    fake(monkeypatch, "toolkit.data.check", check=lambda loaded: report)
    assert call("data", "check", recipe) == (code, "counts\n", "")


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_doctor(call: Any, monkeypatch: pytest.MonkeyPatch, ok: bool, code: int) -> None:
    report = SimpleNamespace(ok=ok, render=lambda console: console.print("facts"))
    fake(monkeypatch, "toolkit.doctor", examine=lambda: report)
    assert call("doctor") == (code, "facts\n", "")


def test_data_preview(call: Any, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    fake(monkeypatch, "toolkit.data.preview", preview=lambda *args: calls.append(args))
    assert call("data", "preview", recipe, "-n", "5", "--html", "a.html")[0] == 0
    assert calls[0][1:3] == (5, Path("a.html"))


def test_plan_prints_a_plan(call: Any, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code, out, _ = call("plan", recipe, "--gpu", "l4", "--price", "0.8", "--set", "train.max_steps=100")
    assert code == 0
    assert "1,720,574,976 parameters" in out
    assert "100 of 4 x 4" in out
    assert "predicted at $0.80 an hour" in out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import json, sys\nsys.argv = ['toolkit', '--help']\nfrom toolkit.commands.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'transformers', 'trl', 'peft', 'datasets', 'pydantic', 'numpy', 'scipy')\n"
        "heavy += ('huggingface_hub',)\n"
        "print(json.dumps([[name for name in heavy if name in sys.modules], len(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    heavy, modules = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert modules < 300  # 156 with Python 3.11, the interpreter's own among them


def test_nothing_is_sent_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    quiet()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"
    assert "UNSLOTH_DISABLE_STATISTICS" in os.environ
    assert os.environ["WANDB_ERROR_REPORTING"] == "true", "what the user has set stays"


@pytest.mark.parametrize("said", [None, *ALLOCATOR])
def test_a_gpus_memory_grows_in_place_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    for name in ALLOCATOR:
        monkeypatch.setenv(name, "")  # so that what is set here goes again
        monkeypatch.delenv(name)
    if said is not None:
        monkeypatch.setenv(said, "max_split_size_mb:128")
    quiet()
    found = {name: os.environ.get(name) for name in ALLOCATOR}
    usual = dict.fromkeys(ALLOCATOR, "expandable_segments:True")
    assert found == (usual if said is None else dict.fromkeys(ALLOCATOR) | {said: "max_split_size_mb:128"})
