"""`toolkit eval`: the same chats put to several models, as one table."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.chats import Chat
from toolkit.data.special_text import prompt_ids
from toolkit.data.trained_on import check_trained_on
from toolkit.engines.recipes import load
from toolkit.errors import InputError
from toolkit.evaluation.cached import CachedDecoder, fingerprint
from toolkit.evaluation.evaluate import evaluate
from toolkit.evaluation.executed import evaluate_executed
from toolkit.evaluation.questions import held_out
from toolkit.evaluation.results import Comparison, Evaluation
from toolkit.evaluation.saved import TABLE, check_folder, earlier_files, file_names
from toolkit.evaluation.tables import render_columns
from toolkit.files import write_text
from toolkit.hardware import Hardware, detect, free_cores
from toolkit.inference.decode import Decoder, Done, Generated, TorchDecoder
from toolkit.inference.gguf import GgufDecoder, GgufModel
from toolkit.inference.named_models import Column, Models, columns_of, renderer_of, settle
from toolkit.recipe.places import NAME
from toolkit.recipe.schema import EvalSection, Recipe
from toolkit.versions import installed
from toolkit.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.data.render import Renderer

VERSIONS = ("torch", "transformers", "peft", "xllamacpp")  # of what decodes: answers of others are not taken again


@dataclass(frozen=True, slots=True)
class Options:
    """What `toolkit eval` was asked for; None means what the recipe says, or the recipe's default."""

    data: str | None = None
    recipe: Path | None = None
    chats: int | None = None  # all of the test set, 200 of anything else
    split: str | None = None
    executed: bool = False
    base: bool = True
    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int | None = None
    max_steps: int = 12
    batch_size: int | None = None
    cache: bool = True


@dataclass(slots=True)
class Table:
    """Evaluations of the same chats, the first one the one that others are compared with."""

    chats: str
    columns: list[tuple[str, Evaluation]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON values: {"chats", "columns": [{"name", **Evaluation.summary()}], "differences": [{"name", "from",
        "correct": Paired.as_dict(), "by_kind": {kind: ...}, "became_right": [where], "became_wrong": [where]}]}."""
        name, first = self.columns[0]
        differences = []
        for other, evaluation in self.columns[1:]:
            compared = Comparison.of(first, evaluation)
            kinds = evaluation.by(lambda row: row.kind)
            differences.append(
                {
                    "name": other,
                    "from": name,
                    "correct": compared.paired().as_dict(),
                    "by_kind": {kind: compared.of_kind(kind).paired().as_dict() for kind in kinds},
                    "became_right": [after.where for _, after in compared.flips(gained=True)],
                    "became_wrong": [after.where for _, after in compared.flips(gained=False)],
                }
            )
        columns = [{"name": name, **evaluation.summary()} for name, evaluation in self.columns]
        return {"chats": self.chats, "columns": columns, "differences": differences}

    def save(self, folder: Path) -> None:
        """Write NAME.jsonl for each column (see `Evaluation.save`) and table.json into `folder`, in place of an earlier
        table. Raises an `InputError` where it holds anything else."""
        check_folder(folder)
        earlier = earlier_files(folder)
        names = file_names(name for name, _ in self.columns)
        for file, (_, evaluation) in zip(names, self.columns, strict=True):
            evaluation.save(folder / file)
        write_text(folder / TABLE, json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n")
        for file in earlier.difference(names, (TABLE,)):
            (folder / file).unlink(missing_ok=True)

    def render(self, console: Console, samples: int) -> None:
        """Print the table, the differences from the first column, and chats that flipped."""
        render_columns(self.columns, console, samples)


def evaluate_models(words: list[str], options: Options, console: Console) -> Table:
    """Put the chats to every model that `words` name. Lines about the work go to `console`.

    Raises an `InputError` for models and data that can't be used, before anything is decoded.
    """
    loaded = load(options.recipe) if options.recipe is not None else None
    columns = columns_of(words, base=options.base)
    columns = settle(columns, loaded.recipe if loaded else None, str(options.recipe))
    recipe = loaded.recipe if loaded else next((column.recipe for column in columns if column.recipe), None)
    if options.data is None and recipe is not None:
        _check_data(options, recipe, columns)
    chats, line = held_out(options.data, recipe, options.chats, options.split)
    console.print(f"chats      {line}")
    console.print(f"rendering  {columns[0].template}")
    work = _Work(options, recipe.eval if recipe else EvalSection(), detect(), console)
    table = Table(line)
    try:
        for column in columns:
            table.columns.append((column.name, work.evaluate(column, chats)))
    finally:
        work.models.close()
    return table


def _check_data(options: Options, recipe: Recipe, columns: Sequence[Column]) -> None:
    """Raise `RunError` where the recipe is a run's and its chats are not those that the run was trained on: what is
    held out of others may have been trained on."""
    if options.recipe is not None:
        run = options.recipe.parent if options.recipe.name == NAME else None
    else:
        run = next(column.adapter.parent for column in columns if column.recipe and column.adapter)
    if run is not None:
        check_trained_on(recipe, run, "; name other chats with --data")


@dataclass(slots=True)
class _Clock:
    """What was decoded, not found in the cache, and in how long."""

    prompts: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def told(self) -> str:
        return f"{counted(self.tokens, 'token')} of {counted(self.prompts, 'answer')} decoded in {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class _Clocked:
    """A decoder whose work goes into `clock`."""

    decoder: Decoder
    clock: _Clock

    @property
    def settings(self) -> dict[str, Any]:
        return self.decoder.settings

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        started = time.perf_counter()
        made = self.decoder(prompts, done)
        self.clock.seconds += time.perf_counter() - started
        self.clock.prompts += len(made)
        self.clock.tokens += sum(one.new_tokens for one in made)
        return made


class _Work:
    """Evaluates one column after the other."""

    def __init__(self, options: Options, settings: EvalSection, hardware: Hardware, console: Console) -> None:
        self.options = options
        self.hardware = hardware
        self.console = console
        self.models = Models(hardware)
        self.max_new_tokens = options.max_new_tokens or settings.max_new_tokens
        self.batch_size = options.batch_size or settings.generate_batch_size
        self.threads_set = False
        self.clock = _Clock()

    def evaluate(self, column: Column, chats: list[Chat]) -> Evaluation:
        renderer = renderer_of(column, column.day)  # what it was trained on
        call_format = renderer.call_form
        self.clock = _Clock()
        settings = {
            "model": column.given,
            "column": column.kind,
            "tool_prompt": renderer.rendering.tool_prompt,
            "thinking": renderer.thinking,
            "precision": self.models.precision(column),
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.options.temperature,
        }
        with self._decoder(column, renderer, settings) as decoder:
            if self.options.executed:
                result = evaluate_executed(
                    decoder,
                    renderer,
                    chats,
                    call_format=call_format,
                    max_steps=self.options.max_steps,
                    one_by_one=column.gguf is not None,  # llama.cpp reads on from the turn before
                )
            else:
                result = evaluate(decoder, renderer, chats, call_format=call_format)
            if isinstance(decoder, CachedDecoder):
                result.settings |= {"from_cache": decoder.found, "decoded": decoder.decoded}
            if self.options.max_new_tokens:
                result.settings["limit_of"] = "--max-new-tokens"
        cached = result.settings.get("from_cache", 0)
        note = f", {counted(cached, 'answer')} from the cache" if cached else ""
        decoded = f", {self.clock.told}" if self.clock.prompts else ""
        line = (
            f"{column.name}: {counted(len(result.rows), 'chat')} in {result.settings['seconds']:.0f} s{decoded}{note}"
        )
        self.console.print(line)
        return result

    @contextlib.contextmanager
    def _decoder(self, column: Column, renderer: Renderer, settings: dict[str, Any]) -> Iterator[Decoder]:
        if not self.options.cache:
            with self._opened(column, renderer) as decoder:
                yield decoder
            return
        found, sampled = installed(VERSIONS), self.options.temperature > 0
        key = {
            "weights": fingerprint(column.weights),
            "adapter": column.kind == "tuned",
            "load_in_4bit": column.model.load_in_4bit,
            "attention": column.model.attn_implementation,
            "dtype": column.model.dtype,
            "precision": settings["precision"],
            "device": self.hardware.gpu.name if self.hardware.gpu else "cpu",
            "versions": {name: found.get(name) for name in VERSIONS},
            "stop_ids": renderer.end_token_ids,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.options.temperature,
            **({"seed": self.options.seed, "batch_size": self.batch_size} if sampled else {"seed": None}),
        }

        def encode(prompt: str) -> list[int]:
            return prompt_ids(renderer.tokenizer, prompt)

        with CachedDecoder(key, encode, lambda: self._opened(column, renderer), settings, sampled) as decoder:
            yield decoder

    @contextlib.contextmanager
    def _opened(self, column: Column, renderer: Renderer) -> Iterator[Decoder]:
        """The decoder that does the work, with its model loaded."""
        temperature, seed, stops = self.options.temperature, self.options.seed, renderer.end_token_ids
        if column.gguf is not None:
            self.models.close()
            with GgufModel(column.gguf) as gguf:
                if gguf.n_vocab < len(renderer.tokenizer):
                    raise InputError(
                        f"{column.given}: {gguf.n_vocab:,} tokens, but the tokenizer of {column.folder} has "
                        f"{len(renderer.tokenizer):,}: it is of another model; name its own recipe with --recipe"
                    )
                most, progress = self.max_new_tokens, not self.options.executed  # which shows whole chats
                yield _Clocked(GgufDecoder(gguf, stops, most, temperature, seed, progress), self.clock)
            return
        if self.hardware.gpu is None and not self.threads_set:
            import torch  # takes seconds; GGUF files are asked without it

            torch.set_num_threads(free_cores())
            self.threads_set = True
        with self.models.opened(column) as model:
            most, size = self.max_new_tokens, self.batch_size
            yield _Clocked(TorchDecoder(model, renderer.tokenizer, stops, most, size, temperature, seed), self.clock)
