"""What a family says is held to what transformers, PEFT and llama.cpp do with a tiny random model of it.

Runs over every registered family; one that is added needs no test of its own here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data import call_templates
from tests.data.toys import QWEN_LIKE
from tests.export.ollama_rules import Answer, answer, prompts_with_the_gguf
from tests.export.shapes import base_model, peft_logits
from tests.export.test_gguf import IDS, agree, llama_logprobs, write
from tests.families.conftest import PROMISES, START, STOP, TABLE, Tiny
from tests.real import find_tokenizer
from tests.tiny import ADD, make_model, split_as, write_recipe
from tests.training.test_compiled import checkpoint_some, step
from tests.training.test_packing import gradients, rows_of
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.call_parsing import parse
from toolkit.data.render import Renderer
from toolkit.data.template import CallFormat, templated
from toolkit.data.tokenizers import load_tokenizer
from toolkit.errors import ModelError
from toolkit.export.architecture import read_architecture
from toolkit.export.export import export
from toolkit.export.merge import open_merged
from toolkit.export.ollama import BUILT_IN, modelfile
from toolkit.export.tokenizer import pre_tokenizer_name, read_tokenizer
from toolkit.export.verify import VerifyReport
from toolkit.export.writer import Metadata, write_gguf
from toolkit.models.families import FAMILIES, shape_from_config
from toolkit.planning.plan import plan_recipe
from toolkit.recipe import load
from toolkit.recipe.schema import LoraSection
from toolkit.training.run import run


def test_weights_and_modules_are_the_models(tiny: Tiny) -> None:
    from torch import nn
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.folder)
    weights = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert tiny.shape.weights() == weights and list(tiny.shape.norms())
    assert tiny.shape.parameters == sum(weight.numel() for weight in model.parameters())
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    said = {name: (fan_in, fan_out) for name, fan_in, fan_out in tiny.shape.modules() if name in linears}
    assert said == {name: (module.in_features, module.out_features) for name, module in linears.items()}
    for part, groups in tiny.family.same_input.items():
        names = {name.rpartition(".")[2] for name in linears if f".{part}." in name}
        assert names == {name for group in groups for name in group}


@pytest.mark.skipif(TABLE in os.environ, reason="it is being made")
def test_the_table_has_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs" / "families.md").read_text()
    table = page.partition(START)[2].partition(STOP)[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == sorted(FAMILIES)
    assert all(promise in table for promise in PROMISES.values())
    assert "FAILS" not in table and "not tried" not in table


def test_all_linear_is_pefts(tiny: Tiny) -> None:
    model = tiny.adapted()
    pefts = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in model.named_modules()
        if name.endswith(".lora_A.default")
    }
    assert {name for name, _, _ in tiny.shape.lora_targets("all-linear")} == pefts
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert tiny.shape.trainable_parameters(LoraSection(r=4)) == trained


def test_a_model_is_planned(tiny: Tiny, tmp_path: Path, cache: Path) -> None:
    plan = plan_recipe(load(write_recipe(tmp_path, tiny.folder, 12)), gpu="cpu")
    assert plan.shape == tiny.shape and plan.trainable == tiny.shape.trainable_parameters(LoraSection(r=4))
    assert plan.fits and plan.time is not None and plan.time.total > 0


def test_a_known_model_has_the_familys_modules(tiny: Tiny) -> None:
    """What is said of a model by its name alone is what its config.json would say, but for sizes."""
    config = json.loads((tiny.folder / "config.json").read_text())
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes = (*names, "head_dim", "vocab_size", "tie_word_embeddings")
    for shape in tiny.family.known():
        own = {**config, **{name: getattr(shape, name) for name in sizes}}
        assert shape_from_config(own, "config.json") == shape


LENGTHS = [40, 9, 90, 23, 31]  # one longer than the windows that tiny models have, and than a chunk of a delta rule


def packed_batches(tiny: Tiny) -> list[dict[str, Any]]:
    from toolkit.engines.compiled_layers import EDGES
    from toolkit.training.packing import PackingCollator

    rows = rows_of(LENGTHS, tiny.shape.vocab_size)
    batches: list[dict[str, Any]] = PackingCollator(0, 100, 64, EDGES)([{"rows": rows}])["micro_batches"]
    assert len(batches) == 2
    return batches


def assert_alike(found: tuple[float, dict[str, Any]], expected: tuple[float, dict[str, Any]]) -> None:
    """(loss, gradients) in float32."""
    import torch

    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys() and expected[1]
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def test_packed_equals_padded(tiny: Tiny) -> None:
    from toolkit.kernels.packed_attention import can_pack
    from toolkit.training.dataset import Collator

    model = tiny.adapted()
    if tiny.family.windowed:
        model.config.sliding_window = 64
    assert can_pack(model, max(LENGTHS)) is None
    padded = Collator(0)([{"rows": rows_of(LENGTHS, tiny.shape.vocab_size)}])
    assert_alike(
        gradients(model, packed_batches(tiny), packs=True),
        gradients(model, [padded], packs=False),
    )


def test_what_not_every_engine_closes_is_said() -> None:
    mistral, hybrid = FAMILIES["mistral"], FAMILIES["lfm2"]
    assert mistral.more_to_close({"sliding_window": 4096}, 4096) is None
    assert mistral.more_to_close({"sliding_window": None}, 8192) is None
    assert mistral.more_to_close({"sliding_window": 4096}, 8192) == (
        "its tokens see a window of 4,096, and chats may have 8,192"
    )
    assert "carry from chat to chat" in str(hybrid.more_to_close({"layer_types": ["conv", "full_attention"]}, 1))
    assert hybrid.more_to_close({"layer_types": ["full_attention"]}, 1) is None


def test_recomputing_layers_changes_nothing(tiny: Tiny) -> None:
    model = tiny.adapted()
    expected = step(model, packed_batches(tiny), None)
    checkpoint_some(model, tiny.shape.num_hidden_layers)
    assert_alike(step(model, packed_batches(tiny), None), expected)


def test_compiled_equals_eager(tiny: Tiny) -> None:
    """With adapters within the frozen products, where the family's layers let them."""
    import torch
    from torch._dynamo.utils import counters

    from toolkit.engines.compiled_layers import CompiledLayers

    if tiny.family.not_compiled:
        pytest.skip(f"no: {tiny.family.not_compiled}")
    model = tiny.adapted()
    expected = step(model, packed_batches(tiny), None)
    torch._dynamo.reset()
    counters.clear()
    layers = CompiledLayers(model, longest=512, backend="aot_eager", fuse=torch.float32)
    assert layers.groups
    assert_alike(step(model, packed_batches(tiny), layers), expected)
    assert counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()


def test_what_is_not_exported_is_refused_by_name(tiny: Tiny, tmp_path: Path) -> None:
    assert read_architecture(tiny.folder).class_name == tiny.family.class_name
    config = json.loads((tiny.folder / "config.json").read_text()) | {"architectures": ["Other"], "model_type": "other"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"Other \(other\) can't be exported; what can: Gemma3.*Granite.*Llama"):
        read_architecture(tmp_path)


@pytest.mark.parametrize(
    ("family", "own", "message"),
    [
        ("mistral", {"sliding_window": 512}, "sliding_window = 512 below max_position_embeddings = 2,048"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}, "no_rope_layers"),
        ("lfm2", {"head_dim": 32}, "head_dim = 32 of its own"),
        ("qwen3_5_text", {"linear_value_head_dim": 32}, "linear_value_head_dim = 32 beside linear_key_head_dim = 16"),
        (
            "qwen3_5_text",
            {"layer_types": ["linear_attention", "full_attention", "full_attention", "linear_attention"]},
            "layer_types without an interval",
        ),
        ("qwen3_5_text", {"rope_parameters": {"mrope_section": [11, 11, 10]}}, r"mrope_section \[11, 11, 10\]"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    tmp_path: Path, family: str, own: dict[str, Any], message: str
) -> None:
    folder = make_model(tmp_path / "model", family)
    read_architecture(folder)
    config = json.loads((folder / "config.json").read_text()) | own
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{message}.* can't be exported"):
        read_architecture(folder)


def test_llama_cpp_computes_what_transformers_computes(tiny: Tiny, tmp_path: Path) -> None:
    """Names, order of rows, biases, norms and rope of a GGUF, with its adapter merged and with none."""
    weights = open_merged(tiny.folder, tiny.adapter)
    types = write(tmp_path / "m.gguf", weights)
    assert sum(types.values()) == sum(len(parts) for parts in tiny.family.gguf_parts(tiny.shape).values())
    positions = list(range(2, len(IDS), 3))
    rows = llama_logprobs(tmp_path / "m.gguf", positions)
    agree(rows, peft_logits(tiny.folder, tiny.adapter, IDS), positions, 2e-3)
    with pytest.raises(AssertionError):  # the comparison has power
        agree(rows, peft_logits(tiny.folder, None, IDS), positions, 2e-3)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.75,
    "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 4.0],
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "original_max_position_embeddings": 1024,  # no less than the runtime's context, by which llama.cpp chooses
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "rope_theta": 10_000.0}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 10_000.0}
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}


@pytest.mark.parametrize(
    ("family", "own"),
    [
        ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 1024}),
        (
            "phi3",
            {
                "rope_parameters": {**LONGROPE, "original_max_position_embeddings": 8},
                "original_max_position_embeddings": 8,
            },
        ),
        (
            "olmo3",
            {"rope_parameters": {"full_attention": {**YARN, "attention_factor": 1.2}, "sliding_attention": PLAIN}},
        ),
        ("gemma3_text", {"rope_parameters": {"full_attention": LINEAR}, "layer_types": ["full_attention"] * 6}),
        ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 9}),
        ("granitemoehybrid", {"position_embedding_type": None}),
        ("granitemoehybrid", {"attention_bias": False, "position_embedding_type": "nope"}),
    ],
)
def test_ropes_and_layers_of_llama_cpp_are_those_of_transformers(
    tmp_path: Path, family: str, own: dict[str, Any]
) -> None:
    folder = base_model(tmp_path / "model", family)
    split_as(folder, FAMILIES[family].pre_tokenizers[0])
    usual = peft_logits(folder, None, IDS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | own))
    write(tmp_path / "m.gguf", open_merged(folder, None))
    positions = list(range(2, len(IDS), 3))
    rows = llama_logprobs(tmp_path / "m.gguf", positions)
    agree(rows, peft_logits(folder, None, IDS), positions, 2e-3)
    with pytest.raises(AssertionError):
        agree(rows, usual, positions, 2e-3)


def test_windows_of_llama_cpp_are_those_of_transformers(tiny: Tiny, tmp_path: Path) -> None:
    config = json.loads((tiny.folder / "config.json").read_text())
    if tiny.family.window(config) is None or "layer_types" not in config:
        pytest.skip("every layer sees all tokens")
    folder = shutil.copytree(tiny.folder, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 9}))
    write(tmp_path / "m.gguf", open_merged(folder, None))
    positions = list(range(2, len(IDS), 3))
    rows = llama_logprobs(tmp_path / "m.gguf", positions)
    agree(rows, peft_logits(folder, None, IDS), positions, 2e-3)
    with pytest.raises(AssertionError):
        agree(rows, peft_logits(tiny.folder, None, IDS), positions, 2e-3)


def test_a_gguf_says_what_config_json_says(tiny: Tiny, tmp_path: Path) -> None:
    import gguf

    write(tmp_path / "m.gguf", open_merged(tiny.folder, None))
    values = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "m.gguf").fields.items()}
    arch, shape = tiny.family.gguf_arch, tiny.shape
    assert values["general.architecture"] == arch
    assert values[f"{arch}.block_count"] == shape.num_hidden_layers
    assert values[f"{arch}.embedding_length"] == shape.hidden_size
    assert values[f"{arch}.attention.head_count_kv"] == tiny.family.kv_heads(shape)
    assert values[f"{arch}.attention.key_length"] == shape.head_dim
    assert values[f"{arch}.rope.freq_base"] == read_architecture(tiny.folder).rope_theta
    assert values["tokenizer.ggml.pre"] == tiny.family.pre_tokenizers[0].name


def test_llama_cpp_splits_text_as_the_tokenizers_do(tiny: Tiny, tmp_path: Path) -> None:
    from toolkit.export.verify.verification_data import HARD_STRINGS
    from toolkit.inference.gguf import GgufModel

    weights = open_merged(tiny.folder, None)
    for pre in tiny.family.pre_tokenizers:
        folder = tmp_path / pre.name
        folder.mkdir()
        for file in tiny.folder.glob("*token*"):
            shutil.copy(file, folder)
        split_as(folder, pre)
        tokenizer = read_tokenizer(folder, tiny.shape.vocab_size)
        assert tokenizer.pre == pre.name
        write_gguf(folder / "m.gguf", weights, tokenizer, Metadata("tiny"), "F16")
        theirs = load_tokenizer(folder)
        with GgufModel(folder / "m.gguf", n_ctx=64, threads=1) as model:
            for text in HARD_STRINGS:
                assert model.tokenize(text) == theirs(text, add_special_tokens=False)["input_ids"], (pre.name, text)


def test_from_a_run_to_files_that_are_shown_to_be_the_model(tiny: Tiny, tmp_path: Path, cache: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        tiny.folder,
        16,
        data={"call_format": "hermes"},
        train={"max_steps": 3, "gradient_checkpointing": False},
        eval={"early_stopping_patience": 0, "max_new_tokens": 12},
    )
    done = run(load(recipe), tmp_path / "run", export=False)
    made = export(str(done.path), gguf=["f16"], chats=2)
    report, record = VerifyReport.load(made.path), made.record()
    assert record.status == "passed" and not report.skipped, report.lines
    assert record.base.arch == tiny.family.gguf_arch
    modelfile, template = (made.path / "Modelfile").read_text(), (made.path / "chat_template.jinja").read_text()
    said = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
    assert answer(modelfile, said, ["add"]) == Answer([("add", {"a": 3, "b": 4})], "")
    assert prompts_with_the_gguf(modelfile, template)
    assert f"# Calls are {record.calls_read_by['Ollama']}." in modelfile and record.calls_read_by["Ollama"] == "read"


@pytest.mark.parametrize("form", ["hermes", "json", "jsonrpc"])
def test_calls_there_and_back(tiny: Tiny, form: CallFormat) -> None:
    assert_calls_come_back(Renderer.of(load_tokenizer(tiny.folder), form), form)


def test_its_own_calls_are_read_back_and_ollamas_parser_is_named(tiny: Tiny) -> None:
    """By the documented template of its form, with the family's tokenizer."""
    form = tiny.family.call_format
    if form is None:
        pytest.skip("none: its models are not taught to call")
    template = QWEN_LIKE if form == "hermes" else call_templates.frame(form)
    tokenizer = templated(load_tokenizer(tiny.folder), template)
    assert_calls_come_back(Renderer(tokenizer), form)
    text = modelfile(Path("x.gguf"), tokenizer, max_length=None, context=2048)
    built_in = BUILT_IN.get(form)
    named = f"\n# RENDERER {built_in}\n# PARSER {built_in}\n" if built_in else ""
    assert named in text and bool(named) == ("# PARSER" in text)
    if form == "hermes":
        said = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
        assert answer(text, said, ["add"]) == Answer([("add", {"a": 3, "b": 4})], "")


def test_the_familys_own_templates_write_calls_as_it_says(tiny: Tiny) -> None:
    """With the real tokenizer of a known model, where this machine has one."""
    names = [name for names in tiny.family.known().values() for name in names]
    folders = (find_tokenizer(f"{tiny.family.model_type}-tokenizer", name) for name in names)
    folder = next((folder for folder in folders if folder is not None), None)
    if tiny.family.call_format is None or folder is None:
        pytest.skip("no call format of its own" if tiny.family.call_format is None else f"none of {', '.join(names)}")
    tokenizer = load_tokenizer(folder)
    pre_tokenizer_name(json.loads((folder / "tokenizer.json").read_text()), folder)
    renderer = Renderer.of(tokenizer, "native")
    if not renderer.markup.tools:
        pytest.skip(f"no: {renderer.markup.why_no_tools}")
    assert_calls_come_back(renderer, tiny.family.call_format)


def assert_calls_come_back(renderer: Renderer, form: str) -> None:
    """Calls of a chat are read from what its template writes, and are in the format."""
    calls = (ToolCall("add", {"a": 1, "b": 2}), ToolCall("add", {"a": 34, "b": -5}))[: 1 if form == "llama" else 2]
    before = "Let me see." if form in ("hermes", "json", "jsonrpc") else ""
    turns = (
        Turn("user", "What is it?"),
        Turn("assistant", before, tool_calls=calls),
        *(Turn("tool", str(number), name="add") for number, _ in zip((3, 29), calls, strict=False)),
        Turn("assistant", "3 and 29."),
    )
    (row,) = renderer.rows(Chat(turns, (ADD,), where="chat"))
    first, _ = (row.text[start:stop] for start, stop in row.spans)
    parsed = parse(first.removesuffix(renderer.markup.end), form)
    assert parsed.calls == calls and parsed.in_format and parsed.text == before
