"""Whatever can answer in a chat: a GGUF in llama.cpp, or a folder through transformers, prompted as in training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toolkit.data.calls import CallFormat, to_messages
from toolkit.data.chats import Chat, Turn
from toolkit.data.render import Renderer
from toolkit.errors import ModelError
from toolkit.evaluation.columns import Column, Rendering, columns_of, renderer_of, settle
from toolkit.export.layout import ExportFolder
from toolkit.inference.folder import stream
from toolkit.inference.gguf import GgufModel
from toolkit.recipe.schema import Recipe

Prompter = Callable[[Sequence[Turn], Sequence[dict[str, Any]]], str]


@dataclass(frozen=True, slots=True)
class Sampling:
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0


class Speaker(Protocol):
    """`about` says in a line what runs and how; `recipe` is the run's, where there is one."""

    @property
    def call_format(self) -> CallFormat: ...

    @property
    def about(self) -> str: ...

    @property
    def recipe(self) -> Recipe | None: ...

    def prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        """The rendered text that the assistant's next turn is prompted with."""
        ...

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        """The assistant's turn, piece by piece."""
        ...


@dataclass(frozen=True, slots=True)
class GgufSpeaker:
    model: GgufModel
    call_format: CallFormat
    about: str
    recipe: Recipe | None
    prompter: Prompter

    def prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        return self.prompter(turns, tools)

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        yield from self.model.stream(
            prompt,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
        )


@dataclass(frozen=True, slots=True)
class FolderSpeaker:
    model: Any
    renderer: Renderer
    about: str
    recipe: Recipe | None

    @property
    def call_format(self) -> CallFormat:
        return self.renderer.call_format

    def prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        return _as_trained(self.renderer, turns, tools)

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        yield from stream(
            self.model,
            self.renderer.tokenizer,
            prompt,
            stop_ids=self.renderer.end_token_ids,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
        )


@contextlib.contextmanager
def open_speaker(word: str, *, context: int = 4096, threads: int | None = None) -> Iterator[Speaker]:
    """What `word` names, loaded: a GGUF, an export folder (its smallest GGUF), a run, a model folder or a hub id.

    A GGUF with an export.json beside it is prompted as its run was trained; another one by the template inside it.
    Raises `ModelError`, `RunError` and `EngineError`.
    """
    column = find_column(word)
    if column.gguf is not None:
        with GgufModel(column.gguf, n_ctx=context, threads=threads) as model:
            yield _gguf_speaker(column, model)
        return
    with _folder_speaker(settle([column])[0], threads) as speaker:
        yield speaker


def find_column(word: str) -> Column:
    """The one model that a word means; of an export folder its smallest GGUF, or else its merged model."""
    columns = columns_of([word], base=False)
    ggufs = [column for column in columns if column.gguf is not None]
    return min(ggufs, key=lambda one: one.gguf.stat().st_size if one.gguf else 0) if ggufs else columns[-1]


@contextlib.contextmanager
def _folder_speaker(column: Column, threads: int | None) -> Iterator[FolderSpeaker]:
    import torch

    from toolkit.evaluation.columns import Models
    from toolkit.hardware import detect, free_cores

    hardware = detect()
    if hardware.gpu is None:
        torch.set_num_threads(threads or free_cores())
    models = Models(hardware)
    where = hardware.gpu.name if hardware.gpu else f"{torch.get_num_threads()} CPU threads"
    about = f"{column.name}, {models.precision(column)}, {where}"
    with models.opened(column) as model:
        yield FolderSpeaker(model, renderer_of(column), about, column.recipe)
    models.close()


def _gguf_speaker(column: Column, model: GgufModel) -> GgufSpeaker:
    about = f"{model.path.name}, llama.cpp, {model.threads} CPU threads"
    if column.folder is not None:
        settled = settle([column])[0]
        renderer = renderer_of(settled)
        prompter: Prompter = lambda turns, tools: _as_trained(renderer, turns, tools)  # noqa: E731
        return GgufSpeaker(model, renderer.call_format, about, _recipe_of(model.path), prompter)
    rendering = _own_rendering(model)
    about += f"; prompts by the file's own template, calls as {rendering.call_format}"
    prompter = lambda turns, tools: _by_own_template(model, rendering, turns, tools)  # noqa: E731
    return GgufSpeaker(model, rendering.call_format, about, None, prompter)


def _as_trained(renderer: Renderer, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
    return renderer.prompt(Chat((*turns, Turn("assistant")), tuple(tools), where="chat"), len(turns))


def _by_own_template(
    model: GgufModel, rendering: Rendering, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]
) -> str:
    chat = Chat(tuple(turns), tuple(tools))
    given = to_messages(chat, rendering.call_format, rendering.tool_prompt, tool_role=rendering.call_format == "native")
    return model.apply_template(given.messages, given.tools)


def _own_rendering(model: GgufModel) -> Rendering:
    """`native` where the file's template speaks of tools, else `json`. Raises `ModelError` when it has no template."""
    from toolkit.export.verify.files import GgufFile

    template = GgufFile(model.path).value("tokenizer.chat_template")
    if not template:
        raise ModelError(f"{model.path}: has no chat template; take the instruct version of the model")
    return Rendering("native" if "tools" in template else "json", "signature", "template")


def _recipe_of(path: Path) -> Recipe | None:
    """The recipe of the run that a GGUF was exported from, if it is still there."""
    record = ExportFolder(path.parent).record()
    if record.recipe is None or not Path(record.recipe).is_file():
        return None
    from toolkit.recipe import load

    return load(Path(record.recipe)).recipe
