"""What llama.cpp makes of some tokens by itself is noted; a tokenizer that is really another one still fails."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.export.verify.planted import make_export, plant
from toolkit.data.tokenizers import load_tokenizer
from toolkit.export.tokenizer import CONTROL, NORMAL
from toolkit.export.verify import verify
from toolkit.export.verify.files import GgufFile
from toolkit.export.verify.runtime import TokenizerFindings, compare_tokenizers
from toolkit.export.verify.verification_data import Material, gather
from toolkit.export.verify.vocabulary import Override, overrides, own_marks, with_overrides
from toolkit.exports import ExportFolder
from toolkit.inference.gguf import GgufModel

pytest.importorskip("xllamacpp")
# ordinary tokens here that llama.cpp makes control tokens by their texts
KNOWN = ["</s>", "<|eot_id|>", "<end_of_turn>", "<fim_prefix>", "[EOT]", "<|eom_id|>"]
UNKNOWN = ["<div>", "[INST]", "<s>"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("made"), "llama", tokens=[*KNOWN, *UNKNOWN])


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "export"))


def tokens_of(folder: Path) -> tuple[list[str], list[int]]:
    file = GgufFile(ExportFolder(folder).ggufs()[0])
    return file.value("tokenizer.ggml.tokens"), file.value("tokenizer.ggml.token_type")


def compared(folder: Path) -> tuple[TokenizerFindings, Material]:
    material = gather(ExportFolder(folder), ExportFolder(folder).record(), 1)
    path = ExportFolder(folder).ggufs()[0]
    with GgufModel(path, n_ctx=256, threads=1) as model:
        return compare_tokenizers(model, GgufFile(path), material), material


def test_tokens_that_llama_cpp_makes_control_tokens_are_a_note(folder: Path) -> None:
    report = verify(folder, chats=1, threads=1)
    assert report.passed, report.lines
    check = report.of("tokenizer", "run-F16.gguf")
    assert check and check.outcome == "pass"
    (note,) = check.notes
    first = ", ".join(f"{token!r} a control token" for token in KNOWN[:5])
    assert f"llama.cpp makes {first} and 1 more by itself" in note and "(none of them of the data)" in note
    assert check.numbers["overrides"] == [f"{token!r} a control token" for token in KNOWN]
    assert note in json.loads((folder / "export_report.json").read_text())["checks"][-5]["notes"]
    assert "llama.cpp makes" in (folder / "export_report.html").read_text()
    assert "note: llama.cpp makes" in (folder / "export_report.md").read_text()


def test_only_what_comes_of_them_is_explained(folder: Path) -> None:
    found, _ = compared(folder)
    tokens, _ = tokens_of(folder)
    assert found.overrides == [Override(token, tokens.index(token), True) for token in KNOWN]
    assert not found.different and found.overridden
    for text in found.overridden:
        assert any(token in text for token in KNOWN)


def test_the_data_may_hold_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.export.verify import runtime

    asked = gather

    def with_one(*words: Any) -> Material:
        material = asked(*words)
        material.prompts[0].text += "an </s> in a question"
        return material

    monkeypatch.setattr(sys.modules["toolkit.export.verify.verify"], "gather", with_one)
    monkeypatch.setattr(runtime, "compare_templates", lambda *words: [])
    check = verify(folder, chats=1, threads=1).of("tokenizer", "run-F16.gguf")
    assert check and check.outcome == "pass" and "(1 of them prompts of the data)" in check.notes[0]


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("<|im_start|>", NORMAL),  # training's control token is none in the file
        ("<div>", CONTROL),  # an ordinary token is a control token in the file
        ("<s>", CONTROL),
    ],
)
def test_a_file_with_another_type_fails(folder: Path, token: str, kind: int) -> None:
    tokens, types = tokens_of(folder)
    types[tokens.index(token)] = kind
    plant(folder, keys={"tokenizer.ggml.token_type": types})
    report = verify(folder, chats=1, threads=1)
    check = report.of("tokenizer", "run-F16.gguf")
    assert check and check.outcome == "fail" and token in check.summary
    assert "tokenizer.ggml.token_type is not that of" in check.advice and "--force" in check.advice


def test_a_file_that_is_right_where_llama_cpp_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then writing it again would not help, and the advice does not say so."""
    cut = GgufModel.tokenize

    def otherwise(self: GgufModel, text: str, *, special: bool = True) -> list[int]:
        ids = cut(self, text, special=special)
        return [*ids, 1] if "year 2025" in text else ids

    monkeypatch.setattr(GgufModel, "tokenize", otherwise)
    check = verify(folder, chats=1, threads=1).of("tokenizer", "run-F16.gguf")
    assert check and check.outcome == "fail" and check.summary.startswith("1 of ")
    assert "it is llama.cpp that cuts otherwise: serve merged/" in check.advice and "--force" not in check.advice


def test_every_own_mark_is_tried(folder: Path) -> None:
    tokenizer = load_tokenizer(Path(ExportFolder(folder).record().base.folder))
    texts = own_marks(tokenizer)
    for token in [*KNOWN, *UNKNOWN, *(one.content for one in tokenizer.added_tokens_decoder.values())]:
        assert any(token in text for text in texts)
    assert len(texts) == 2


def test_runs_of_blanks_are_tried_as_they_are_written(folder: Path) -> None:
    """SentencePiece's tokenizers have runs of blanks as added tokens, which no text holds as `▁▁`."""
    tokenizer = load_tokenizer(Path(ExportFolder(folder).record().base.folder))
    tokenizer.add_tokens(["▁▁▁"])
    texts = own_marks(tokenizer)
    assert any(f"a{7 * ' '}\n{6 * ' '}" in text for text in texts) and not any("▁" in text for text in texts)


class Recorded:
    """A runtime that knows texts of `control` tokens in any file."""

    def __init__(self, tokens: list[str], control: set[str]) -> None:
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.control = control
        self.asked: list[str] = []

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        self.asked.append(text)
        lines = [line.removeprefix("a").removesuffix("a") if "\n" not in text else line for line in text.split("\n")]
        return [self.ids[line] for line in lines if line in self.ids and (special or line not in self.control)]


class Listed:
    """A file's tokens and their types."""

    def __init__(self, tokens: list[str], types: list[int]) -> None:
        self.values = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}

    def value(self, key: str) -> Any:
        return self.values[key]


def test_a_large_vocabulary_is_put_to_llama_cpp_in_short_texts() -> None:
    """Every token is, and what it makes of each is found wherever it stands: one long text takes llama.cpp the square
    of its length where a vocabulary has thousands of marks."""
    tokens = [f"<{number}>" for number in range(3000)] + [f"▁word{number}" for number in range(3000)]
    types = [NORMAL] * 6000 + [CONTROL] * 2000
    tokens += [f"<unused{number}>" for number in range(2000)]
    model: Any = Recorded(tokens, {"<7>", "<2999>", *tokens[6000:]})
    file: Any = Listed(tokens, types)
    assert overrides(model, file) == [Override("<7>", 7, True), Override("<2999>", 2999, True)]
    asked = [line for text in model.asked for line in text.split("\n")]
    assert {*tokens[:3000], *tokens[6000:]} <= set(asked) and not {*tokens[3000:6000]} & set(asked)
    assert max(map(len, model.asked)) < 8000 and len(model.asked) < 40


def test_a_tokenizer_with_other_marks(folder: Path) -> None:
    tokenizer = load_tokenizer(Path(ExportFolder(folder).record().base.folder))
    ids = tokenizer.get_vocab()
    made, lost = Override("</s>", ids["</s>"], True), Override("<|im_end|>", ids["<|im_end|>"], False)

    def cut(text: str) -> list[int]:
        return list(with_overrides(tokenizer, [made, lost]).encode(text, add_special_tokens=False).ids)

    plain = tokenizer.backend_tokenizer
    assert cut("a</s>b") == [ids["a"], ids["</s>"], ids["b"]] != plain.encode("a</s>b").ids
    assert ids["<|im_end|>"] not in cut("a<|im_end|>b") and ids["<|im_end|>"] in plain.encode("a<|im_end|>b").ids
    assert cut("a<|im_start|>b") == [ids["a"], ids["<|im_start|>"], ids["b"]]
