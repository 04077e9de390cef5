"""A GGUF in llama.cpp against transformers on the same weights: tokens, prompts, probabilities, greedy text."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.shapes import peft_logits
from tests.export.verify.planted import plant
from toolkit.data.tokenizers import load_tokenizer
from toolkit.errors import EngineError, ModelError
from toolkit.export.verify.agreement import load_file
from toolkit.export.verify.files import GgufFile
from toolkit.exports import ExportFolder
from toolkit.inference import gguf as module
from toolkit.inference.decode import decode
from toolkit.inference.folder import stream
from toolkit.inference.gguf import GgufDecoder, GgufModel, cut_at_stop

PROMPT = "<|im_start|>user\nChat 3: what is 4 plus 5?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def model(exported: Path) -> Iterator[GgufModel]:
    with GgufModel(ExportFolder(exported).ggufs()[0], n_ctx=256, threads=1, parallel=2) as opened:
        yield opened


def test_tokens_prompts_and_vocabulary(model: GgufModel, exported: Path) -> None:
    tokenizer = load_tokenizer(exported.parents[1] / "base")
    ids = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    assert model.tokenize(PROMPT) == ids and model.detokenize(ids) == PROMPT
    messages = [{"role": "user", "content": "Chat 3: what is 4 plus 5?"}]
    assert model.apply_template(messages) == PROMPT
    assert model.n_vocab == len(tokenizer)


def test_an_assistants_turn_at_the_end_is_a_whole_turn(model: GgufModel, exported: Path) -> None:
    tokenizer = load_tokenizer(exported.parents[1] / "base")
    said = [{"role": "assistant", "content": text} for text in ("I am", "here")]
    for messages in ([{"role": "user", "content": "Hi"}, *said[:1]], [{"role": "user", "content": "Hi"}, *said]):
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert model.apply_template(messages) == wanted


def test_probabilities_are_those_of_the_adapted_base(model: GgufModel, exported: Path) -> None:
    import torch

    ids = model.tokenize(PROMPT)
    record = ExportFolder(exported).record()
    assert record.adapter
    logits = peft_logits(Path(record.base.folder), Path(record.adapter), ids)
    expected = torch.log_softmax(logits, dim=-1)
    for position, top in zip([3, len(ids)], model.logprobs(ids, [3, len(ids)], top=50), strict=True):
        assert len(top.ids) == 50 and top.logprobs == sorted(top.logprobs, reverse=True)
        assert torch.allclose(expected[position - 1][top.ids], torch.tensor(top.logprobs), atol=5e-3)
        assert top.ids[0] == int(expected[position - 1].argmax())


def test_probabilities_where_the_end_token_is_the_most_probable(model: GgufModel) -> None:
    """llama.cpp tells nothing of a sampled end token, and an end token must still be told of."""
    ids = model.tokenize(PROMPT)
    everything = model.logprobs(ids, range(1, len(ids) + 1), top=model.n_vocab)
    end = model.tokenize("<|im_end|>")[0]
    assert all(len(top.ids) == model.n_vocab and end in top.ids for top in everything)


def test_greedy_text_agrees_with_transformers(model: GgufModel, exported: Path) -> None:
    record = ExportFolder(exported).record()
    torch_model = load_file(GgufFile(model.path), record, "float32", "cpu")
    tokenizer = load_tokenizer(Path(record.tokenizer["folder"]))
    stop = [tokenizer.eos_token_id]
    prompts = [PROMPT, PROMPT.replace("4", "7")]
    expected = decode(torch_model, tokenizer, prompts, max_new_tokens=12, batch_size=2, stop_ids=stop, progress=False)
    seen = {}
    made = GgufDecoder(model, stop, 12, progress=False)(prompts, lambda index, one: seen.update({index: one}))
    assert [one.new_tokens for one in made] == [one.new_tokens for one in expected]
    assert [one.text[:8] for one in made] == [one.text[:8] for one in expected]
    assert seen == dict(enumerate(made))
    streamed = "".join(model.stream(PROMPT, max_new_tokens=12))
    assert streamed.replace("�", "") == made[0].text.replace("�", "")
    pieces = "".join(stream(torch_model, tokenizer, PROMPT, stop_ids=stop, max_new_tokens=12))
    # half a character at the end is not shown
    assert expected[0].text.startswith(pieces) and len(expected[0].text) - len(pieces) <= 3


def test_an_end_token_is_kept_among_the_ids_and_not_shown(model: GgufModel, exported: Path, tmp_path: Path) -> None:
    """The same file, where a token that it writes later than others is the one that ends a turn."""
    prompts = [PROMPT.replace("3", str(number)) for number in range(40)]
    answers = model.complete(prompts, max_new_tokens=8)
    places = [next((i for i in range(1, len(ids)) if ids[i] not in ids[:i]), 0) for ids in answers]
    prompt, written, place = next(found for found in zip(prompts, answers, places, strict=True) if found[2])
    folder = Path(shutil.copytree(exported, tmp_path / "ending"))
    plant(folder, keys={"tokenizer.ggml.eos_token_id": written[place], "tokenizer.ggml.eot_token_id": written[place]})
    with GgufModel(ExportFolder(folder).ggufs()[0], n_ctx=256, threads=1) as ending:
        ids = ending.complete([prompt], max_new_tokens=8)[0]
        assert ids == written[: place + 1]
        assert "".join(ending.stream(prompt, max_new_tokens=8)) == ending.detokenize(ids[:-1])
        (made,) = GgufDecoder(ending, [written[place]], 8, progress=False)([prompt])
        assert made.stopped and made.new_tokens == place + 1 and made.text == ending.detokenize(ids[:-1])


def test_a_chat_that_does_not_fit(model: GgufModel) -> None:
    with pytest.raises(ModelError, match="don't fit into a context of 256"):
        model.complete([PROMPT * 20], max_new_tokens=4)
    with pytest.raises(ModelError, match="don't fit into a context of 256"):
        model.complete([PROMPT], max_new_tokens=2000, stop_ids=[])


def test_stops_end_a_text_and_are_kept() -> None:
    assert cut_at_stop([5, 6, 2, 7], frozenset({2})) == [5, 6, 2]
    assert cut_at_stop([5, 6], frozenset({2})) == [5, 6]


def test_files_that_are_no_models(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        GgufModel(tmp_path / "none.gguf", threads=1)
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelError, match="not a GGUF file"):
        GgufModel(tmp_path / "text.gguf", threads=1)
    whole = ExportFolder(exported).ggufs()[0].read_bytes()
    (tmp_path / "short.gguf").write_bytes(whole[: len(whole) - 9000])
    with pytest.raises(ModelError, match=r"short\.gguf: not a readable GGUF \(.* is cut short\)"):
        GgufModel(tmp_path / "short.gguf", threads=1)


def test_a_runtime_that_is_missing_or_can_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # what Python does for a module that is not there
    with pytest.raises(EngineError, match=r"can't load here|not installed"):
        module.runtime()
    (tmp_path / "xllamacpp.py").write_text('raise ImportError("libc.so.6: version GLIBC_2.38 not found")')
    monkeypatch.delitem(sys.modules, "xllamacpp")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineError, match=r"GLIBC_2\.38") as error:
        module.runtime()
    assert "toolkit[serve]" in str(error.value) and "\n" not in str(error.value)


def test_calls_go_to_llama_cpp_as_json_text() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    sent = module.openai_message({"role": "assistant", "content": "", "tool_calls": [call]})
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
