"""From what the user names (a base model, a run folder, an export folder, a GGUF) to the columns of one table.

Each column knows its weights' files, its tokenizer and, where a recipe or an export.json says so, how chats are
rendered for it. Nothing is loaded for that; `Models` loads what a column needs when it is asked to, one at a time.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from toolkit import models
from toolkit.data.clock import day_of
from toolkit.data.compose import compose
from toolkit.data.markup import probe
from toolkit.data.render import Renderer
from toolkit.data.template import ChatTemplate, Rendering, own_template, templated
from toolkit.data.tokenizers import load_tokenizer
from toolkit.engines import peft as plain
from toolkit.engines.precision import choose_precision
from toolkit.engines.requirements import check_hardware, check_installed
from toolkit.errors import ModelError, Problem, RunError, did_you_mean
from toolkit.exports import ExportFolder, ExportRecord
from toolkit.hardware import Hardware
from toolkit.inference.without_adapter import base_columns
from toolkit.recipe.schema import ModelSection, Recipe
from toolkit.records import read_object
from toolkit.runs import ADAPTER, RunFolder, check_adapter, holding, recipe_of
from toolkit.trusted import load_adapter

Kind = Literal["model", "base", "tuned", "gguf"]


@dataclass(frozen=True, slots=True)
class Column:
    """One model of the table.

    kind: `model` a plain model folder, `base` a run's base model with the adapter off, `tuned` with it on, `gguf` a
    file. folder: the model folder (of a GGUF: of its tokenizer, None where that is not known). adapter: the run's.
    template: None where nothing says it. day: the date that a run's chats were written with, where its template asks
    for one, else empty. model: how the weights are held. recipe: the run's.
    """

    name: str
    given: str
    kind: Kind
    folder: Path | None
    model: ModelSection
    adapter: Path | None = None
    gguf: Path | None = None
    template: ChatTemplate | None = None
    day: str = ""
    recipe: Recipe | None = None

    @property
    def weights(self) -> list[Path]:
        """The files whose contents decide what the model writes."""
        if self.gguf is not None:
            return [self.gguf]
        assert self.folder is not None
        files = [self.folder / "config.json", *self.folder.glob("*.safetensors")]
        return files + ([self.adapter / name for name in ADAPTER] if self.adapter and self.kind == "tuned" else [])

    @property
    def same(self) -> tuple[Any, ...]:
        """Columns of which this is equal hold the same weights in the same way."""
        return (self.folder, self.gguf, self.adapter if self.kind == "tuned" else None, self.model.load_in_4bit)


def columns_of(words: Sequence[str], *, base: bool = True) -> list[Column]:
    """The columns that the words of a command line mean, in their order.

    A run folder gives two where `base` is True, the first with the adapter off, unless that model is there already. An
    export folder gives its merged model and each GGUF. Raises one `InputError` with every word that can't be used.
    """
    found: list[Column] = []
    problems: list[Problem] = []
    for word in words:
        try:
            meant = _columns(word)
        except (ModelError, RunError) as error:
            problems += [Problem(word, problem.message.removeprefix("model.name: ")) for problem in error.problems]
            continue
        for column in meant:
            if column.kind == "base" and (not base or any(one.same == column.same for one in found)):
                continue
            if any(one.same == column.same and column.kind != "base" for one in found):
                problems.append(Problem(word, "named twice"))
                continue
            found.append(column)
    if problems:
        raise ModelError(problems)
    return _named_apart(found)


def settle(columns: Sequence[Column], recipe: Recipe | None = None, where: str = "") -> list[Column]:
    """The columns, each with a template, all in one rendering: their own, that of `recipe` (read from `where`), else
    what the first one's template allows. One that has no day of its own takes the first there is: all are asked alike.

    Raises `ModelError` when two of them differ, and for a GGUF whose tokenizer nothing names.
    """
    columns = [replace(column, template=column.template or _says_itself(column)) for column in columns]
    own = [(column.given, column.template.rendering) for column in columns if column.template is not None]
    if recipe is not None:
        own.insert(0, (where, Rendering.of(recipe.data)))
    if len({rendering for _, rendering in own}) > 1:
        raise ModelError(
            [Problem(place, str(rendering)) for place, rendering in own]
            + [
                Problem(
                    "", "models that were trained with different renderings can't share a table; evaluate them apart"
                )
            ]
        )
    known = next((column.folder for column in columns if column.folder is not None), None)
    if known is None and recipe is not None:
        known = models.resolve(recipe.model, weights=False)
    if known is None:
        raise ModelError(
            [
                Problem(
                    column.given,
                    "no export.json beside this GGUF says which tokenizer it has; name the recipe that it comes from "
                    "(--recipe), or its model folder before it",
                )
                for column in columns
            ]
        )
    rendering = own[0][1] if own else None
    old = next((one.template for one in columns if one.template and one.template.text is None), None)
    day = next((column.day for column in columns if column.day), "")
    settled = []
    for column in columns:
        folder = column.folder or known
        template = column.template or old or _made(folder, rendering)
        rendering = template.rendering
        settled.append(replace(column, folder=folder, template=template, day=column.day or day))
    return settled


def _says_itself(column: Column) -> ChatTemplate | None:
    """The template of a plain model that came out of a training here; None where it is a model's own."""
    if column.kind != "model" or column.folder is None:
        return None
    template = ChatTemplate.of(own_template(load_tokenizer(column.folder), "native")[0])
    return template if template.rendering != Rendering() else None


def _made(folder: Path, rendering: Rendering | None) -> ChatTemplate:
    """A template for a model's own tokenizer; without a rendering `native` where it knows tools, else `hermes`."""
    tokenizer = load_tokenizer(folder)
    if rendering is None:
        knows_tools = probe(templated(tokenizer, own_template(tokenizer, "native")[0])).tools
        rendering = Rendering("native" if knows_tools else "hermes")
    return ChatTemplate.of(compose(tokenizer, rendering))


def _columns(word: str) -> list[Column]:
    path = Path(word).expanduser()
    if path.suffix == ".gguf":
        return [_gguf(path, word)]
    if (path / "recipe.toml").is_file():
        return _run(path, word)
    if (path / "export.json").is_file():
        return _export(ExportFolder(path), word)
    if (path / "adapter_config.json").is_file():
        parent = path.resolve().parent
        if (parent / "recipe.toml").is_file():
            return _run(parent, word)
        raise RunError("an adapter alone does not say how chats were rendered; name the run folder that it is in")
    if path.is_dir() and not (path / "config.json").is_file():
        if inside := holding(path):
            raise RunError(f"not a run folder{inside}")
        raise RunError("neither a run folder (recipe.toml), an export folder (export.json) nor a model (config.json)")
    if not path.exists() and path.parent != Path() and path.parent.is_dir():
        around = [one.name for one in path.parent.iterdir()]
        raise RunError(f"no such folder or file{did_you_mean(path.name, around)}")
    section = ModelSection(name=word)
    folder = models.resolve(section)
    record = _record_of_merged(folder)
    template = _of_export(ExportFolder(folder.resolve().parent), record) if record else None
    name = f"{record.name}-merged" if record else word.rstrip("/").rpartition("/")[2].removeprefix("pypi:")
    return [Column(name, word, "model", folder, section, template=template, day=_day_of(record))]


def _run(path: Path, word: str) -> list[Column]:
    run = RunFolder(path)
    recipe = recipe_of(run)
    adapter = run.adapter
    if missing := [name for name in ADAPTER if not (adapter / name).is_file()]:
        raise RunError(f"no adapter in this run yet ({missing[0]} is missing): finish it with --resume {path}")
    check_adapter(adapter, run.mended)
    folder = models.resolve(recipe.model)
    template = ChatTemplate.read(path, Rendering.of(recipe.data))
    tuned = Column(
        path.resolve().name,
        word,
        "tuned",
        folder,
        recipe.model,
        adapter,
        template=template,
        day=day_of(read_object(run.environment, run.mended)) if template is not None and template.dated else "",
        recipe=recipe,
    )
    return [replace(tuned, name="base", kind="base"), tuned]


def _export(export: ExportFolder, word: str) -> list[Column]:
    record = export.record()
    found = [_gguf(file, str(file)) for file in export.ggufs()]
    if record.merged is not None and export.merged.is_dir():
        found[:0] = _columns(str(export.merged))
    if not found:
        raise RunError("neither a merged model nor a GGUF in this export folder")
    return [replace(column, given=word) for column in found]


def _gguf(path: Path, word: str) -> Column:
    if not path.is_file():
        around = [one.name for one in path.parent.glob("*.gguf")] if path.parent.is_dir() else []
        raise ModelError(f"no such file{did_you_mean(path.name, around)}")
    export = ExportFolder(path.parent)
    folder, template, record = None, None, None
    if export.record_path.is_file():
        record = export.record()
        folder = Path(record.tokenizer["folder"])
        if not folder.is_dir():
            folder = models.resolve(ModelSection(name=record.base.name, revision=record.base.revision), weights=False)
        template = _of_export(export, record)
    return Column(path.stem, word, "gguf", folder, ModelSection(), gguf=path, template=template, day=_day_of(record))


def _of_export(export: ExportFolder, record: ExportRecord) -> ChatTemplate | None:
    """What renders an export's chats; None where a plain model was exported, which was not trained here."""
    return ChatTemplate.read(export.path, Rendering.of(record.data)) if record.data else None


def _day_of(record: ExportRecord | None) -> str:
    """The date that the chats of an export's run were written with; empty where there is none, or no run."""
    return record.data.day if record is not None and record.data is not None else ""


def _record_of_merged(folder: Path) -> ExportRecord | None:
    """The export.json of the export that a model folder is the merged model of."""
    export = ExportFolder(folder.resolve().parent)
    is_merged = export.record_path.is_file() and export.merged.resolve() == folder.resolve()
    return export.record() if is_merged else None


def _named_apart(columns: Sequence[Column]) -> list[Column]:
    """The columns with names that differ: the folder above where two are alike, then a number."""
    names = [column.name for column in columns]
    renamed: list[Column] = []
    for column in columns:
        name = column.name
        if names.count(name) > 1 and column.kind != "base":
            path = (column.gguf or Path(column.given)).resolve()
            name = f"{path.parent.name}/{name}"
        unique, number = name, 2
        while unique in {one.name for one in renamed}:
            unique, number = f"{name} ({number})", number + 1
        renamed.append(replace(column, name=unique))
    return renamed


class Models:
    """Loads the model of a column when it is wanted and keeps the last one: a run's base column shares its model."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self._key: tuple[Any, ...] = ()
        self._model: Any = None

    def precision(self, column: Column) -> str:
        """bf16, fp16 or fp32: what this machine computes the column's model in; llama.cpp's own business for a GGUF."""
        return "llama.cpp" if column.gguf else choose_precision(Recipe(model=column.model), self.hardware).value

    @contextlib.contextmanager
    def opened(self, column: Column) -> Iterator[Any]:
        """The transformers model of a column, with its adapter on, off and proved to be off, or without one."""
        adapter = column.adapter
        key = (column.folder, adapter, column.model)
        if self._key != key:
            self.close()
            self._model, self._key = self._load(column), key
        with base_columns(self._model) if column.kind == "base" else contextlib.nullcontext():
            yield self._model

    def close(self) -> None:
        """Forget the model and give its memory back."""
        import torch  # takes seconds, and nothing else here needs it

        self._model, self._key = None, ()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self, column: Column) -> Any:
        assert column.folder is not None
        recipe = Recipe(model=column.model)
        check_hardware(recipe, self.hardware)
        check_installed(recipe)
        model = plain.load_base(recipe, column.folder, choose_precision(recipe, self.hardware), self.hardware)
        if column.adapter is not None:
            model = load_adapter(model, column.adapter, is_trainable=False)
        return model.eval()


def renderer_of(column: Column, day: str = "") -> Renderer:
    """Renders chats for a settled column; `day`: what its template writes where it asks for the date, else today's."""
    assert column.folder is not None and column.template is not None
    return Renderer.by(load_tokenizer(column.folder), column.template, day)
