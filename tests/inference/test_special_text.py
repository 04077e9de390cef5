"""What users and tools say is text to a model, whoever runs it: no special token comes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.data.test_special_text import HOSTILE, chat_with
from tests.tiny import SPECIAL
from toolkit.data.render import Renderer
from toolkit.data.special_text import prompt_ids
from toolkit.data.tokenizers import load_tokenizer
from toolkit.exports import ExportFolder
from toolkit.inference.decode import decode
from toolkit.inference.folder import stream
from toolkit.inference.gguf import GgufDecoder, GgufModel
from toolkit.inference.prompting import prompting_of
from toolkit.inference.serve.backend import Backend
from toolkit.inference.speaker import GgufSpeaker, Sampling

pytest.importorskip("xllamacpp")
CHAT = chat_with(HOSTILE)
TURNS, TOOLS = CHAT.turns[:-1], CHAT.tools


@pytest.fixture(scope="module")
def renderer(exported: Path) -> Renderer:
    return Renderer(load_tokenizer(exported / "merged"))


@pytest.fixture(scope="module")
def trained(renderer: Renderer) -> list[int]:
    """The prompt as it is put to the trained model: as many special tokens as a chat without such text has."""
    text, harmless = (renderer.prompt(chat, len(TURNS)) for chat in (CHAT, chat_with("Say MOO")))
    ids, others = (prompt_ids(renderer.tokenizer, one) for one in (text, harmless))
    special = renderer.tokenizer.convert_tokens_to_ids(SPECIAL)
    assert sum(one in special for one in ids) == sum(one in special for one in others) == 11
    return ids


@pytest.mark.parametrize("who", ["the file", "the renderer"])
def test_in_llama_cpp(
    exported: Path, renderer: Renderer, trained: list[int], monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """In chat, in serve and in an evaluation of the file."""
    (path,) = ExportFolder(exported).ggufs()
    prompting = prompting_of(path)
    prompting = replace(prompting, renderer=None if who == "the file" else renderer)
    asked: list[list[int]] = []
    send = GgufModel._send

    def keep(self: GgufModel, connection: Any, place: str, body: Any) -> Any:
        if place == "/completion":
            asked.append(list(body["prompt"]))
        return send(self, connection, place, body)

    monkeypatch.setattr(GgufModel, "_send", keep)
    with GgufModel(path, n_ctx=8192, threads=1, plain=True) as model:

        async def served() -> list[int]:
            backend = Backend(httpx.AsyncHTTPTransport(uds=str(model.process.socket)), "m", prompting, 8192)
            try:
                return (await backend.chat_prompt(TURNS, TOOLS)).ids
            finally:
                await backend.close()

        speaker = GgufSpeaker(model, prompting, "", None)
        list(speaker.stream(speaker.prompt(TURNS, TOOLS), Sampling(max_new_tokens=1)))
        GgufDecoder(model, [], 1, progress=False)([renderer.prompt(CHAT, len(TURNS))])
        assert asked == [trained, trained] and asyncio.run(served()) == trained


def test_in_transformers(renderer: Renderer, trained: list[int]) -> None:
    """In chat with a folder, and in an evaluation: the model sees these ids."""
    seen: list[list[int]] = []
    base = torch.nn.Embedding(8, 8)

    class Model:
        def get_input_embeddings(self) -> Any:
            return base

        def __call__(self, input_ids: Any, **more: Any) -> Any:
            seen.append(input_ids[0].tolist())
            raise InterruptedError

    text = renderer.prompt(CHAT, len(TURNS))
    with pytest.raises(InterruptedError):
        list(stream(Model(), renderer.tokenizer, text, stop_ids=[], max_new_tokens=1))
    assert seen == [trained]


def test_in_an_evaluation(
    renderer: Renderer, trained: list[int], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    from toolkit.inference import continuous

    seen: list[list[int]] = []
    work = continuous.decode_continuously

    def keep(base: Any, ids: list[list[int]], rows: int, **how: Any) -> Any:
        seen.extend(ids)
        return work(base, ids, rows, **how)

    monkeypatch.setattr(continuous, "decode_continuously", keep)
    model = AutoModelForCausalLM.from_pretrained(exported.parents[1] / "base", dtype=torch.float32)
    text = renderer.prompt(CHAT, len(TURNS))
    decode(model, renderer.tokenizer, [text], max_new_tokens=1, batch_size=1, stop_ids=[], progress=False)
    assert seen == [trained]
