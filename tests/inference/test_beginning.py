"""A prompt in llama.cpp begins as training's did: with the token that begins a text once, where a family has one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.export.shapes import base_model
from tests.export.test_gguf import write
from tests.tiny import CHATML
from toolkit.chats import Chat, Turn
from toolkit.data.render import Renderer
from toolkit.data.tokenizers import load_tokenizer
from toolkit.export.merge import open_merged
from toolkit.inference.gguf import GgufDecoder, GgufModel
from toolkit.inference.prompting import Prompting, prompting_of
from toolkit.inference.serve.backend import Backend
from toolkit.inference.speaker import GgufSpeaker, Sampling

pytest.importorskip("xllamacpp")

TURNS = (Turn("user", "What is 4 plus 5?"), Turn("assistant", "It is 9."), Turn("user", "And 3?"))
WITH_BOS = "{{ bos_token }}" + CHATML
BOS = "<|endoftext|>"


def as_llama(folder: Path, template: str, *, puts: bool = True) -> None:
    """A byte-level tokenizer that puts (`puts`) a token before every text, as Llama 3's does, or does not."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(folder)
    tokenizer.bos_token, tokenizer.pad_token, tokenizer.chat_template = BOS, "<|im_start|>", template
    if puts:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.bos_token_id)]
        )
    tokenizer.save_pretrained(folder)


def as_gemma(folder: Path, template: str) -> None:
    """SentencePiece's, of single characters and bytes, behind `<bos>`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>"]
    letters = sorted({*"▁\nabcdefghijklmnopqrstuvwxyzWIA0123456789?.,"})
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "is"]
    vocab = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab, [("i", "s")], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(special)
    backend.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<|im_end|>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    for path in folder.glob("*token*"):
        path.unlink()
    tokenizer.save_pretrained(folder)


class Made(NamedTuple):
    """A GGUF open in llama.cpp, training's renderer, and how many tokens of that kind a prompt begins with."""

    model: GgufModel
    renderer: Renderer
    begins: int


CASES = {
    "llama: put before texts and written by the template": ("llama", as_llama, WITH_BOS, 1),
    "gemma3_text: put before texts and written by the template": ("gemma3_text", as_gemma, WITH_BOS, 1),
    "mistral: put before texts, and not written": ("mistral", as_llama, CHATML, 0),
    "qwen3: written by the template, and not put": ("qwen3", lambda *a: as_llama(*a, puts=False), WITH_BOS, 1),
}


@pytest.fixture(scope="module", params=sorted(CASES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    family, tokenizer, template, begins = CASES[request.param]
    folder = base_model(tmp_path_factory.mktemp(family) / "base", family)
    tokenizer(folder, template)
    path = folder.parent / "m.gguf"
    write(path, open_merged(folder, None))
    with GgufModel(path, n_ctx=512, threads=1, plain=True) as model:
        yield Made(model, Renderer.of(load_tokenizer(folder), "native"), begins)


def prompting_by(made: Made, who: str) -> Prompting:
    """The file's own template writes prompts, or training's renderer."""
    own = prompting_of(made.model.path)
    return own if who == "the file" else replace(own, renderer=made.renderer)


def trained(made: Made) -> list[int]:
    """Ids of the prompt that training had."""
    text = made.renderer.prompt(Chat((*TURNS, Turn("assistant")), where="chat"), len(TURNS))
    tokenizer = made.renderer.tokenizer
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert [token == tokenizer.bos_token_id for token in ids[:2]] == [bool(made.begins), False]
    return ids


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What llama.cpp was asked to complete."""
    found: list[dict[str, Any]] = []
    send = GgufModel._send

    def keep(self: GgufModel, connection: Any, path: str, body: Any) -> Any:
        if path == "/completion":
            found.append(json.loads(json.dumps(body)))
        return send(self, connection, path, body)

    monkeypatch.setattr(GgufModel, "_send", keep)
    return found


@pytest.mark.parametrize("who", ["the file", "the renderer"])
def test_in_chat(made: Made, who: str, asked: list[dict[str, Any]]) -> None:
    speaker = GgufSpeaker(made.model, prompting_by(made, who), "", None)
    for _ in speaker.stream(speaker.prompt(TURNS, []), Sampling(max_new_tokens=2)):
        pass
    (body,) = asked
    assert body["prompt"] == trained(made)


@pytest.mark.parametrize("who", ["the file", "the renderer"])
def test_in_serve(made: Made, who: str) -> None:
    async def ids() -> list[int]:
        transport = httpx.AsyncHTTPTransport(uds=str(made.model.process.socket))
        backend = Backend(transport, "m", prompting_by(made, who), 512)
        try:
            return (await backend.chat_prompt(TURNS, [])).ids
        finally:
            await backend.close()

    assert asyncio.run(ids()) == trained(made)


def test_in_an_evaluation(made: Made, asked: list[dict[str, Any]]) -> None:
    """Which puts to the file the text that training's renderer writes."""
    text = made.renderer.prompt(Chat((*TURNS, Turn("assistant")), where="chat"), len(TURNS))
    GgufDecoder(made.model, made.renderer.end_token_ids, 2, progress=False)([text])
    (body,) = asked
    assert body["prompt"] == trained(made)


def test_llama_cpp_counts_as_many_tokens(made: Made) -> None:
    """What it evaluates is what it was given: it puts no token before ids."""
    ids = trained(made)
    with closing(made.model.process.connect()) as connection:
        body = {"prompt": ids, "n_predict": 1}
        assert json.loads(made.model._send(connection, "/completion", body).read())["tokens_evaluated"] == len(ids)


def test_a_plain_text_begins_once_too(made: Made) -> None:
    first = made.model.put_before()
    assert made.model.prompt_ids("is it") == [*first, *made.model.tokenize("is it")]
    begun = made.renderer.tokenizer.bos_token + "is it"
    assert made.model.prompt_ids(begun) == made.model.tokenize(begun)
