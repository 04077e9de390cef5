"""`toolkit export` from outside: exit codes, and one line a problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import toolkit
from tests.export.shapes import adapter, base_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    adapter(root / "adapter", base_model(root / "base"))
    adapter(root / "dora", root / "base", use_dora=True)
    return root


def test_an_export(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["export", str(made / "adapter"), "--out", str(tmp_path / "out"), "--no-verify"]
    code, out, err = toolkit(capsys, monkeypatch, *words)
    assert code == 0 and "wrote      adapter-Q8_0.gguf" in out, err
    assert (tmp_path / "out" / "adapter-Q8_0.gguf").is_file()
    code, out, err = toolkit(capsys, monkeypatch, *words)
    place = tmp_path / "out"
    assert code == 2 and err == (
        f"error: {place}: written, but never compared with the trained model: toolkit export --verify-only {place} "
        "goes on; --force makes it anew, --out names another folder\n"
    )
    code, out, err = toolkit(capsys, monkeypatch, *words, "--gguf", "Q8_0 q9_9")
    assert code == 2 and err.startswith("error: q9_9 is no GGUF type that can be written, wanted one of f16, ")
    assert err.endswith(", did you mean q8_0?\n"), err
    code, out, err = toolkit(capsys, monkeypatch, *words, "--force")
    assert code == 0 and "wrote      adapter-Q8_0.gguf" in out, err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["adapter", "--gguf", "q4_k_x"],
            "q4_k_m, did you mean q4_k_m?",
        ),
        (["adapter", "--gguf", ","], "error: --gguf: wanted types, as q8_0,q4_k_m"),
        (["adapter", "--merge-base", "orginal"], "error: --merge-base: orginal is none, did you mean original?"),
        (["adapter", "--adapter-only", "--gguf", "q8_0"], "wanted --lora?"),
        (["base", "--adapter-only"], "a model without an adapter has no LoRA GGUF"),
        (["dora", "--adapter-only"], "DoRA can't be in a LoRA GGUF; export the merged model instead"),
        (["adapter", "--base", "nowhere/./x"], "error: "),
        (["nothing-here/./"], "error: "),
    ],
)
def test_bad_input_is_one_line_each(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    out = tmp_path / "out"
    code, _, err = toolkit(capsys, monkeypatch, "export", str(made / words[0]), *words[1:], "--out", str(out))
    assert code == 2
    assert told in err and err.count("\n") == 1 and "Traceback" not in err
    assert not out.exists()
