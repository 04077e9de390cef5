"""A command line that can't be read: one line, with what was wanted, the nearest name and where to look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.command import toolkit
from toolkit.runs import RunFolder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    return lambda *words: toolkit(capsys, monkeypatch, *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runn"], "runn: no such command, did you mean run? See toolkit --help"),
        (["trian"], "trian: no such command, did you mean run? See toolkit --help"),
        (["finetune"], "finetune: no such command, did you mean run? See toolkit --help"),
        (["evl"], "evl: no such command, did you mean eval? See toolkit --help"),
        (["evaluate"], "evaluate: no such command, did you mean eval? See toolkit --help"),
        (["convrt"], "convrt: no such command, did you mean export? See toolkit --help"),
        (["ls"], "ls: no such command, did you mean runs? See toolkit --help"),
        (["xyzzy"], "xyzzy: no such command; see toolkit --help"),
        (["a\nb\x1b[2J"], "a\\nb\\u001b[2J: no such command; see toolkit --help"),
        (["data", "chek"], "chek: no such command, did you mean check? See toolkit data --help"),
        (["data", "ls"], "ls: no such command; see toolkit data --help"),
        (["--vers"], "--vers: unknown option, did you mean --version? See toolkit --help"),
        (["run"], "RECIPE is missing; see toolkit run --help"),
        (["data", "check"], "RECIPE is missing; see toolkit data check --help"),
        (["eval"], "MODEL is missing; see toolkit eval --help"),
        (["run", "x.toml", "--ste", "a=1"], "--ste: unknown option, did you mean --set? See toolkit run --help"),
        (["run", "x", "--no-exprt"], "--no-exprt: unknown option, did you mean --no-export? See toolkit run --help"),
        (["eval", "x", "--limit", "3"], "--limit: unknown option, did you mean --chats? See toolkit eval --help"),
        (["run", "x.toml", "-z"], "-z: unknown option; see toolkit run --help"),
        (["bench", "--foo"], "--foo: unknown option; see toolkit bench --help"),
        (["run", "x.toml", "--gpus"], "--gpus: no value given, wanted N; see toolkit run --help"),
        (["data", "preview", "x.toml", "-n"], "-n: no value given, wanted CHATS; see toolkit data preview --help"),
        (["chat", "x", "--seed"], "--seed: no value given, wanted one; see toolkit chat --help"),
        (["run", "x.toml", "--no-export=3"], "--no-export: takes no value; see toolkit run --help"),
        (["plan", "x.toml", "--price", "-1"], "--price -1: wanted 0 at least; see toolkit plan --help"),
        (["plan", "x.toml", "--price", "a"], "--price a: wanted a number; see toolkit plan --help"),
        (["verify", "x", "--updates", "1.5"], "--updates 1.5: wanted a whole number; see toolkit verify --help"),
        (["run", "x.toml", "--gpus=0"], "--gpus 0: wanted 1 at least; see toolkit run --help"),
        (["serve", "x", "--parallel", "200000"], "--parallel 200000: wanted 256 at most; see toolkit serve --help"),
        (
            ["serve", "x", "--context", "3000000000"],
            "--context 3000000000: wanted 8,388,607 at most; see toolkit serve --help",
        ),
        (
            ["chat", "x", "--context", "3000000000"],
            "--context 3000000000: wanted 8,388,607 at most; see toolkit chat --help",
        ),
        (["run", "x.toml", "y.toml"], "y.toml: more arguments than `run` takes; see toolkit run --help"),
    ],
)
def test_usage_errors_are_a_line(call: Any, words: list[str], told: str) -> None:
    assert call(*words) == (2, "", f"error: {told}\n")


def test_every_value_that_is_refused_says_what_was_wanted(call: Any) -> None:
    """Of each option that takes a number, in each command: no word of the library that found it."""
    from toolkit.commands.main import _commands

    tried = 0
    for verb, command in _commands().commands.items():
        needed = ["x" for param in command.params if param.required and not param.opts[0].startswith("-")]
        for option in (param.opts[0] for param in command.params if getattr(param, "min", None) is not None):
            _, _, err = call(verb, *needed, f"{option}=a")
            assert err.startswith(f"error: {option} a: wanted a ") and err.count("\n") == 1, err
            tried += 1
    assert tried > 10


def test_a_command_that_only_has_others_shows_its_help(call: Any) -> None:
    code, _, err = call("data")
    assert code == 2 and err.startswith("Usage: toolkit data") and "error: " not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["eval", "runs/x", "--set", "a=1"],
            "--chats, --max-new-tokens and --batch-size change that, --recipe FILE.toml",
        ),
        (["export", "runs/x", "--set", "a=1"], "--gguf, --merge-base,"),
        (
            ["serve", "runs/x", "--set", "a=1"],
            "option; --set changes a recipe: run, plan, launch and data take it; see",
        ),
        (["run", "--resume", "runs/x"], "toolkit run runs/x/recipe.toml --resume runs/x"),
        (["run", "--no-export", "--resume=a b"], "toolkit run 'a b/recipe.toml' --resume 'a b'"),
        (["run", "--resume"], "toolkit run runs/mine-2/recipe.toml --resume runs/mine-2"),
        (["run", "other.toml", "--resume"], "toolkit run runs/other/recipe.toml --resume runs/other"),
        (["run", "new.toml", "--resume"], "toolkit run runs/NAME/recipe.toml --resume runs/NAME"),
    ],
)
def test_what_to_type_instead(call: Any, tmp_path: Path, words: list[str], told: str) -> None:
    for age, name in enumerate(("mine-3", "mine-2", "mine", "other")):  # the newest first; mine-3 has ended
        RunFolder.create(tmp_path / "runs" / name, "")
        os.utime(tmp_path / "runs" / name / "recipe.toml", (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "mine-3" / "summary.json").write_text("{}")
    code, _, err = call(*words)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and told in err
