"""Whatever can answer in a chat: a GGUF in llama.cpp, or a folder through transformers, prompted as in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toolkit.chats import Chat, Turn
from toolkit.data.render import Renderer
from toolkit.data.seen import SeenTools, read_seen
from toolkit.data.tokenizers import special_tokens
from toolkit.exports import ExportFolder
from toolkit.hardware import detect, free_cores
from toolkit.inference.folder import stream
from toolkit.inference.gguf import MARKS, GgufModel
from toolkit.inference.named_models import Column, Models, columns_of, renderer_of, settle
from toolkit.inference.prompting import Prompting, prompting_of
from toolkit.inference.standing import standing
from toolkit.inference.which_gguf import Taken, take
from toolkit.recipe.schema import Recipe
from toolkit.runs import RunFolder, recipe_of


@dataclass(frozen=True, slots=True)
class Sampling:
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0


class Speaker(Protocol):
    """`about` says in a line what runs and how; `recipe` is the run's, where there is one. `seen`: the tools of its
    training, where they are known. `notes`: what users should know of the model."""

    @property
    def call_format(self) -> str: ...

    @property
    def about(self) -> str: ...

    @property
    def recipe(self) -> Recipe | None: ...

    @property
    def seen(self) -> SeenTools | None: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        """The rendered text that the assistant's next turn is prompted with."""
        ...

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        """The assistant's turn, piece by piece."""
        ...


@dataclass(frozen=True, slots=True)
class GgufSpeaker:
    model: GgufModel
    prompting: Prompting
    about: str
    recipe: Recipe | None
    seen: SeenTools | None = None
    notes: Sequence[str] = ()

    @property
    def call_format(self) -> str:
        return self.prompting.call_format

    def prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        if self.prompting.renderer is not None:
            return self.prompting.rendered(turns, tools)
        given = self.prompting.given(turns, tools)
        return self.model.apply_template(given.messages, given.tools, **self.prompting.options)

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
    seen: SeenTools | None = None
    notes: Sequence[str] = ()

    @property
    def call_format(self) -> str:
        return self.renderer.call_form

    def prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        return _as_trained(self.renderer, turns, tools)

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        yield from stream(
            self.model,
            self.renderer.tokenizer,
            prompt,
            stop_ids=self.renderer.end_token_ids,
            hidden_ids=_hidden(self.renderer.tokenizer),
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
        )


@contextlib.contextmanager
def open_speaker(word: str, *, context: int = 4096, threads: int | None = None) -> Iterator[Speaker]:
    """What `word` names, loaded: a GGUF, an export folder (the GGUF that `take` takes), a run, a model folder or a hub
    id.

    A GGUF with an export.json beside it is prompted as its run was trained; another one by the template inside it.
    Raises `ModelError`, `RunError` and `EngineError`.
    """
    columns = columns_of([word], base=False)
    ggufs = [column.gguf for column in columns if column.gguf is not None]
    if ggufs:
        taken = take(ExportFolder(ggufs[0].parent), "chat", context) if len(ggufs) > 1 else None
        taken = taken or Taken(ggufs[0])
        with GgufModel(taken.path, n_ctx=context, threads=threads, plain=True) as model:
            yield _gguf_speaker(taken, model)
        return
    with _folder_speaker(settle(columns[-1:])[0], threads) as speaker:
        yield speaker


@contextlib.contextmanager
def _folder_speaker(column: Column, threads: int | None) -> Iterator[FolderSpeaker]:
    import torch  # takes seconds; a GGUF is spoken to without it

    hardware = detect()
    if hardware.gpu is None:
        torch.set_num_threads(threads or free_cores())
    models = Models(hardware)
    where = hardware.gpu.name if hardware.gpu else f"{torch.get_num_threads()} CPU threads"
    about = f"{column.name}, {models.precision(column)}, {where}"
    with models.opened(column) as model:
        yield FolderSpeaker(model, renderer_of(column), about, column.recipe, _seen_of(column))
    models.close()


def _hidden(tokenizer: Any) -> frozenset[int]:
    """Special tokens, but for those that mark thoughts and calls."""
    names = [name for name in special_tokens(tokenizer) if name not in MARKS]
    return frozenset(tokenizer.convert_tokens_to_ids(names))


def _seen_of(column: Column) -> SeenTools | None:
    """What a run, or the export that a merged model is in, keeps of the tools of its training."""
    if column.adapter is not None:
        return read_seen(column.adapter.parent)
    merged = column.folder is not None and ExportFolder(column.folder.parent).record_path.is_file()
    return read_seen(column.folder.parent) if merged and column.folder is not None else None


def _gguf_speaker(taken: Taken, model: GgufModel) -> GgufSpeaker:
    path = taken.path
    prompting = prompting_of(path)
    about = f"{path.name}, llama.cpp, {model.threads} CPU threads, calls as {prompting.call_format}"
    notes = [*([taken.note] if taken.note else []), *standing(path, prompting.template)]
    return GgufSpeaker(model, prompting, about, _recipe_of(path), read_seen(path.parent), notes)


def _as_trained(renderer: Renderer, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
    return renderer.prompt(Chat((*turns, Turn("assistant")), tuple(tools), where="chat"), len(turns))


def _recipe_of(path: Path) -> Recipe | None:
    """The recipe of the run that a GGUF was exported from, if it is still there."""
    folder = ExportFolder(path.parent)
    record = folder.record() if folder.record_path.is_file() else None
    if record is None or record.recipe is None or not Path(record.recipe).is_file():
        return None
    return recipe_of(RunFolder(Path(record.recipe).parent))
