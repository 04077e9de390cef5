"""Folders from outside: what is refused in them, and that nothing in the package reads one another way."""

from __future__ import annotations

import ast
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import bench
import toolkit
from tests.bad_input.common import BASE, errors
from tests.command import toolkit as call
from tests.tiny import make_tokenizer
from toolkit import trusted
from toolkit.errors import ModelError, RunError, ToolkitError

CODE = "open('ran', 'w').write('x')\nclass Mine: pass\n"
Spoil = Callable[[Path], object]


def change(name: str, **values: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**found, **values}))
        (folder / "mine.py").write_text(CODE)

    return spoil


class Evil:
    def __reduce__(self) -> Any:
        return (open, ("ran", "w"))


def pickled(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(Evil()))
        for weights in ("model.safetensors", "adapter_model.safetensors"):
            (folder / weights).unlink(missing_ok=True)

    return spoil


def template(value: object) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        change("tokenizer_config.json", chat_template=value)(folder)

    return spoil


def index(target: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
        weights = {"weight_map": {"lm_head.weight": target.format(parent=folder.parent.resolve())}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(weights))

    return spoil


def linked(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to("../elsewhere.safetensors")


CODES = [
    (change("config.json", auto_map={"AutoConfig": "mine.Mine"}, model_type="mine"), "config.json: auto_map names"),
    (change("config.json", auto_map={"AutoModelForCausalLM": "mine.Mine"}), "config.json: auto_map names"),
    (change("config.json", text_config={"auto_map": {"AutoConfig": "mine.Mine"}}), "config.json: auto_map names"),
    (
        change("tokenizer_config.json", auto_map={"AutoTokenizer": [None, "mine.Mine"]}),
        "tokenizer_config.json: auto_map",
    ),
    (
        change("tokenizer_config.json", auto_map={"AutoTokenizer": ["other/repo--mine.Mine", None]}),
        "other/repo--mine.Mine",
    ),
    (
        change("config.json", num_hidden_layers=10**9),
        "config.json: num_hidden_layers = 1000000000, wanted a number from 1 to 2,000",
    ),
    (
        change("config.json", vocab_size=10**30),
        "config.json: vocab_size = 10000000000000000000, wanted a number from 1 to",
    ),
    (change("config.json", num_attention_heads=0), "config.json: num_attention_heads = 0, wanted a number from 1 to"),
    (change("config.json", hidden_size=-1), "config.json: hidden_size = -1, wanted a number from 1 to 1,000,000"),
    (change("config.json", text_config={"hidden_size": 0}), "config.json: hidden_size = 0, wanted a number from 1 to"),
    (change("config.json", vocab_size="many"), "config.json: vocab_size = 'many', wanted a whole number of at least 1"),
    (change("config.json", head_dim=True), "config.json: head_dim = 'True', wanted a whole number of at least 1"),
    (change("config.json", rms_norm_eps="y"), "config.json: Field 'rms_norm_eps' expected float, got str (value: 'y')"),
    (change("config.json", rope_parameters=5), "config.json: Field 'rope_parameters' with value 5 doesn't match any"),
    (change("config.json", num_attention_heads=3), "config.json: The hidden size (64) is not a multiple of the number"),
    (change("config.json", dtype="floot"), "config.json: dtype: module 'torch' has no attribute 'floot'"),
    (template(5), "tokenizer_config.json: chat_template = 5, wanted a text"),
    (template(True), "tokenizer_config.json: chat_template = True, wanted a text"),
    (template([{"name": "default", "template": 5}]), "chat_template = {'default': 5}, wanted a text"),
]
WEIGHTS: list[tuple[Spoil, str]] = [
    (pickled("pytorch_model.bin"), "pytorch_model.bin is not read: such files run code"),
    (pickled("consolidated.00.pth"), "consolidated.00.pth is not read"),
    (index("../elsewhere.safetensors"), "index.json: leads to '../elsewhere.safetensors'"),
    (index("{parent}/elsewhere.safetensors"), "index.json: leads to '/"),
    (index("pytorch_model.bin"), "index.json: leads to 'pytorch_model.bin'"),
    (index("gone.safetensors"), "index.json: gone.safetensors is not there"),
    (change("model.safetensors.index.json", weight_map=5), "index.json: wanted a weight_map"),
    (linked, "model.safetensors: is a link out of the folder"),
    (change("config.json", transformers_weights="evil.bin"), "transformers_weights = 'evil.bin'"),
    (
        change("adapter_config.json", base_model_name_or_path="../other"),
        "adapter_config.json: this folder holds an adapter",
    ),
]


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe for ./model and chats; no answer stands ready for a question."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "base.toml").write_text(BASE)
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({**row, "n": n}) + "\n" for n in range(12)))
    monkeypatch.chdir(tmp_path)

    def asked(*words: object) -> str:
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", asked)
    return tmp_path


COMMANDS: list[tuple[str, ...]] = [
    ("data", "check", "base.toml"),
    ("data", "preview", "base.toml"),
    ("data", "build", "base.toml"),
    ("plan", "base.toml", "--gpu", "t4"),
    ("run", "base.toml"),
    ("eval", "./model", "--chats", "2"),
    ("chat", "./model", "--once", "Hi"),
    ("export", "./model"),
    ("bench", "--recipe", "base.toml", "--variants", "peft", "--out", "measured"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_code_of_a_model_s_own_is_refused_by_every_command(
    words: tuple[str, ...], place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change("config.json", auto_map={"AutoModelForCausalLM": "mine.Mine", "AutoConfig": "mine.Mine"})(place / "model")
    code, out, err = call(capsys, monkeypatch, *words)
    assert "config.json: auto_map names Python code that comes with the model (mine.Mine" in out + err
    assert (code, err.startswith("error: ")) == (2, True) or words[:2] == ("data", "check")
    assert code != 0 and not (place / "ran").exists() and "Traceback" not in err


@pytest.mark.parametrize(("spoil", "said"), CODES)
def test_what_would_run_or_fill_memory_is_refused_before_a_tokenizer_is_read(
    spoil: Spoil, said: str, place: Path
) -> None:
    from toolkit.data.tokenizers import load_tokenizer

    spoil(place / "model")
    with pytest.raises(ModelError, match="model/") as caught:
        load_tokenizer(place / "model")
    assert said in str(caught.value) and not (place / "ran").exists()


@pytest.mark.parametrize(("spoil", "said"), WEIGHTS)
def test_weights_come_from_safetensors_in_the_folder_alone(
    spoil: Spoil, said: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(place / "model")
    code, _, err = call(capsys, monkeypatch, "run", "base.toml")
    assert code == 2 and len(errors(err)) == 1 and said in err and not (place / "ran").exists()
    with pytest.raises(ModelError):
        trusted.load_model(place / "model")


def test_the_hub_s_cache_may_link_into_its_own_store(tmp_path: Path, tiny_model: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "123"
    shutil.copytree(tiny_model, snapshot)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (snapshot / "model.safetensors").rename(tmp_path / "models--a--b" / "blobs" / "abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    trusted.check_folder(snapshot, weights=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled("adapter_model.bin"), "adapter_model.bin is not read: such files run code"),
        (
            change("adapter_config.json", megatron_config={"a": 1}, megatron_core="mine"),
            "megatron_config names Python code",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("[" * 100_000), "is not readable JSON"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "wanted a JSON object"),
    ],
)
def test_adapters_are_looked_at_too(spoil: Spoil, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    trusted.check_adapter(folder)
    spoil(folder)
    with pytest.raises((ModelError, RunError)) as caught:
        trusted.load_adapter(None, folder)
    assert isinstance(caught.value, ToolkitError) and said in str(caught.value) and not Path("ran").exists()


@cache
def every_call() -> list[tuple[str, ast.Call]]:
    """(file, call) of all calls of an attribute in the sources."""
    return [
        (file.name, node)
        for root in (toolkit, bench)
        for file in sorted(Path(str(root.__file__)).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def calls_of(name: str) -> list[tuple[str, ast.Call]]:
    return [
        (f"{file}:{node.lineno}: {ast.unparse(node.func)}", node)
        for file, node in every_call()
        if isinstance(node.func, ast.Attribute) and node.func.attr == name
    ]


def test_every_from_pretrained_refuses_code_and_pickles() -> None:
    calls = calls_of("from_pretrained")
    assert len(calls) >= 5
    for where, node in calls:
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if "PeftModel" in where:  # has no such option: it runs nothing of the folder's
            assert where.startswith("trusted.py:"), where
        else:
            assert options.get("trust_remote_code") == "False", where
        if "CausalLM" in where:
            assert options.get("use_safetensors") == "True", where


@pytest.mark.parametrize("name", ["load", "loads", "load_module", "exec_module", "import_module"])
def test_nothing_is_unpickled(name: str) -> None:
    for where, node in calls_of(name):
        assert not ("pickle" in where or where.endswith("torch.load")), where
        assert "allow_pickle" not in {word.arg for word in node.keywords}, where


def test_an_adapter_that_unsloth_wrote_is_read(tmp_path: Path) -> None:
    """It names the class of its base model, which nothing imports by that name."""
    mapping = {
        "base_model_class": "Qwen3ForCausalLM",
        "parent_library": "transformers.models.qwen3.modeling_qwen3",
        "unsloth_fixed": True,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "auto_mapping": mapping}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert trusted.check_adapter(tmp_path)["auto_mapping"] == mapping


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a tokenizer of more than 100,000 tokens, from which on transformers looks for Mistral's."""
    folder = tmp_path_factory.mktemp("large")
    make_tokenizer(["It's 2,026."], vocab_size=300).save_pretrained(folder)
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    vocabulary = found["model"]["vocab"]
    vocabulary |= {f"word{number}": number for number in range(len(vocabulary), 100_001)}
    path.write_text(json.dumps(found))
    return folder


@pytest.mark.parametrize(
    "config", [{"model_type": "llama"}, {"model_type": "mistral", "transformers_version": "4.50.0"}]
)
@pytest.mark.parametrize("asked", [False, True])
def test_a_tokenizer_splits_as_its_own_file_says(
    large: Path, tmp_path: Path, config: dict[str, str], asked: bool
) -> None:
    """Without advice to the contrary, unless its folder asks for another pattern."""
    for file in large.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    if asked:
        change("tokenizer_config.json", fix_mistral_regex=True)(tmp_path)
    heard: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(listener)
    try:
        tokenizer = trusted.load_auto_tokenizer(tmp_path)
    finally:
        logger.removeHandler(listener)
    assert heard == []
    # by their pattern digits stand alone and "'s" with its word
    split = [text for text, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("It's 26")]
    assert split == (["It", "'s", "Ġ", "2", "6"] if asked else ["It", "'s", "Ġ26"])
