"""`toolkit run`: from a recipe to a run folder with a trained adapter."""

from __future__ import annotations

import importlib.util
import os
import shlex
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from toolkit import engines, models
from toolkit.data.clock import day_of
from toolkit.data.pinning import pinned, with_model_at
from toolkit.data.render import Renderer
from toolkit.data.tokenizers import load_tokenizer
from toolkit.errors import EngineError, Problem, RunError
from toolkit.export.preflight import announce, check_run
from toolkit.files import write_text
from toolkit.hardware import Hardware, detect, free_cores
from toolkit.machine import require_space
from toolkit.models.families import find_shape, left_out, refuse_quantised, unknown_family
from toolkit.planning.budget import budget_of, recomputes
from toolkit.planning.ran_out import case_of, known
from toolkit.planning.steps import updates_of
from toolkit.ranks import Ranks, here, join
from toolkit.recipe import LoadedRecipe, dump
from toolkit.recipe.schema import Recipe
from toolkit.records import write_json
from toolkit.runs import RunFolder, default_folder
from toolkit.terminal import new_console
from toolkit.training import resumed_settings
from toolkit.training.completion import Beginning, complete, going_on
from toolkit.training.loading import load_model, tables_of
from toolkit.training.prepared import Prepared
from toolkit.training.record import (
    began_with,
    check_ranks,
    describe_data,
    described_environment,
    engine_lines,
    rank_line,
    weights_of,
    write_samples,
    write_tools,
)
from toolkit.training.resume import Resumed, has_updates_left, take_up
from toolkit.words import typed

SPACE = 200_000_000  # bytes that a run folder may need


def run(loaded: LoadedRecipe, out: Path | None = None, resume: Path | None = None, *, export: bool = True) -> RunFolder:
    """Train what `loaded` describes and leave a run folder; `export` False leaves out what its [export] asks for.

    Where torchrun has started this process it is one of several that train together (`toolkit.ranks`), of which the
    first writes the folder.

    Raises an `InputError` before anything is written when the recipe can't run here, `TrainingError` when training
    went wrong and `InterruptedRun` when the user stopped it; the last two leave the last checkpoint in place.
    """
    ranks = join(os.environ)
    console = new_console(soft_wrap=True)
    with ExitStack() as held:
        return _run(loaded, out, resume, export, console, held, ranks)


def left_to_train(loaded: LoadedRecipe, out: Path | None, resume: Path | None) -> bool:
    """Whether `run` would train, or only finish what is trained: a look before processes are started for it.

    Raises the `InputError` of `run` for a wrong `out` or `resume`. Writes nothing.
    """
    _check_trackers(loaded.recipe)
    if resume is None:
        RunFolder.require_free(out or default_folder(loaded.name))
        return True
    folder = _opened(out, resume)
    with folder.held():
        return has_updates_left(loaded, folder)


def _opened(out: Path | None, resume: Path) -> RunFolder:
    if out is not None and out != resume:
        raise RunError("--out and --resume name different folders; --resume goes on in its own")
    return RunFolder.open(resume)


def _run(
    loaded: LoadedRecipe,
    out: Path | None,
    resume: Path | None,
    export: bool,
    console: Console,
    held: ExitStack,
    ranks: Ranks,
) -> RunFolder:
    recipe = loaded.recipe
    beginning = held.enter_context(Beginning(resume is not None))
    check_ranks(ranks, recipe, {"--resume": resume, "--out": out, "--no-export": not export})
    exporting = export and bool(recipe.export.gguf)
    _check_trackers(recipe)
    resumed = None
    if resume is not None:
        folder = _opened(out, resume)

        def taken_up() -> Resumed:
            held.enter_context(folder.held())
            return take_up(loaded, folder, lambda text: console.print(f"note       {text}", markup=False))

        resumed = ranks.first(taken_up)
        recipe = resumed.recipe
        if resumed.trained:
            command = _again(loaded, folder, export)
            beginning.over = True
            ranks.leave()
            if ranks.first_one:
                complete(recipe, folder, console, exporting=exporting, command=command, trained=False)
            return folder
        target = resume
    else:
        target = ranks.first(lambda: out or default_folder(loaded.name))
        recipe = ranks.first(lambda: pinned(loaded.recipe))
        if out is None and target.name != loaded.name:
            console.print(f"note       {_taken(target.with_name(loaded.name), target)}", markup=False)
        ranks.first(lambda: RunFolder.require_free(target))
    hardware = detect()
    _set_threads(recipe, hardware)
    begun_with = resumed_settings.engine_of(resumed.environment) if resumed is not None else None
    # imports Unsloth first where it is the engine
    engine, precision = ranks.first(lambda: engines.choose(recipe, hardware, begun_with))
    if not ranks.first_one:
        engines.choose(recipe, hardware, engine.value)
    if line := rank_line(ranks, hardware):
        console.print(line, markup=False)
    console.print(f"engine     {engine}\nprecision  {precision}", markup=False)
    if engine.note:
        console.print(f"note       {engine.note}", markup=False)

    model_folder = ranks.machine_first(lambda: models.resolve(recipe.model))
    if resumed is None:
        recipe = with_model_at(recipe, models.commit_of(recipe.model, model_folder))
    refuse_quantised(recipe.model)
    if (shape := find_shape(recipe.model)) is not None and (told := unknown_family(shape)) is not None:
        console.print(f"note       {told}", markup=False)
    if (told := left_out(recipe.model)) is not None:
        console.print(f"note       {told}", markup=False)
    if recipe.export.gguf:
        console.print(announce(loaded, exporting), markup=False)
        for note in ranks.first(lambda: list(check_run(recipe, model_folder, target))) if exporting else ():
            console.print(f"note       {note}", markup=False)
    tokenizer = load_tokenizer(model_folder)
    begun_in = resumed.environment if resumed is not None else None
    template, kept = resumed_settings.template_of(recipe, tokenizer, folder if resumed is not None else None, begun_in)
    if line := resumed_settings.template_line(recipe, tokenizer):
        console.print(line, markup=False)
    day = day_of(begun_in)
    tables = ranks.machine_first(lambda: tables_of(recipe, model_folder, template if kept else None, day))
    renderer = Renderer.by(tokenizer, template, tables.train.day)
    tokenizer = renderer.tokenizer
    ranks.agree({"model": weights_of(model_folder), "training data": tables.train.content})
    if begun_in is not None:
        ranks.first(lambda: resumed_settings.check_data(folder, begun_in, tables))
    updates = updates_of(recipe, tables.train.n_chats)
    describe_data(console, recipe, tables, updates)
    budget = budget_of(recipe, engine.value, precision.value, hardware, tables.train, ranks.size)
    case = case_of(recipe, engine.value, precision.value, hardware, budget, ranks.size)
    ran_out = None
    if resumed is None or resumed.checkpoint is None:  # else it goes on as it was cut, which its log says
        ran_out = ranks.first(lambda: known(case))
    if ran_out is not None:
        budget = ran_out.within(budget)
    if budget is not None:
        console.print(f"packing    {budget.tokens:,} tokens a micro-batch: {budget.reason}")
        if budget.checkpointing:
            console.print(f"recompute  {budget.checkpointing}")
    ranks.first(lambda: require_space(target, SPACE, "checkpoints and the adapter"))

    started = time.perf_counter()
    loaded_model = load_model(recipe, model_folder, tokenizer, engine, precision, hardware, budget)
    report = loaded_model.report
    load_seconds = time.perf_counter() - started
    console.print(engine_lines(report))
    if loaded_model.recorder is not None and budget is not None:
        some = recomputes(recipe, budget.checkpointed)
        told = "none: layers that recompute can't be recorded" if some else "each length is recorded once and replayed"
        console.print(f"graphs     {told}")
    # not before the model is there: what can't be loaded leaves no folder behind
    if resumed is None:
        folder = ranks.first(lambda: _created(target, dump(recipe), loaded.name if out is None else None, console))
        if ranks.first_one:
            held.enter_context(folder.held())
    command = _again(loaded, folder, export)
    beginning.over = True
    # PyTorch, and what is another under Unsloth, which the choice of an engine has imported by now
    from toolkit.training.memory import release_memory
    from toolkit.training.methods import method_of
    from toolkit.training.session import Session

    prepared = Prepared(recipe, loaded_model, tables, updates, budget, case, ran_out)
    with going_on(command):
        if ranks.first_one:
            if template.text is not None:
                write_text(folder.template, template.text)
            described = described_environment(folder, recipe, model_folder, hardware, report, tables, budget)
            described["model"]["load_seconds"] = round(load_seconds, 2)
            write_json(folder.environment, described | began_with(resumed))
            write_samples(folder, tables.train, tokenizer)
            write_tools(folder, tables.train)
        session = Session(method_of(prepared), folder, console, renderer, model_folder)
        session.go(resumed=resumed, command=command)
    # the export reads the weights again, one at a time: what training held would only be in its way
    del session, prepared, loaded_model
    release_memory()
    ranks.leave()
    if not ranks.first_one:
        return folder
    complete(recipe, folder, console, exporting=exporting, command=command)
    return folder


def _created(target: Path, recipe: str, name: str | None, console: Console) -> RunFolder:
    """A new run folder; where another run has taken it meanwhile, another for its `name`, if the user named none."""
    while True:
        try:
            return RunFolder.create(target, recipe)
        except RunError:
            if name is None or not target.exists():
                raise
        target = default_folder(name)
        console.print(f"note       another run took the folder a moment ago: this one goes to {target}", markup=False)


def _taken(before: Path, target: Path) -> str:
    """Why a run goes to another folder than its recipe's name says."""
    earlier = RunFolder(before)
    goes = f"{before} is there already, so this run goes to {target}"
    if earlier.recipe.is_file() and not earlier.summary.is_file():
        return f"{goes} (that one is not finished: --resume {before} goes on with it)"
    return goes


def _check_trackers(recipe: Recipe) -> None:
    """Raise `EngineError` for every tracker in train.report_to that is not installed."""
    missing = [name for name in recipe.train.report_to if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(
            [Problem("", f"train.report_to: {name} is not installed; pip install {name}") for name in missing]
        )


def _set_threads(recipe: Recipe, hardware: Hardware) -> None:
    """Choose CPU threads: as many as the recipe sets, or as there are free cores, which `ThreadKeeper` goes on with."""
    import torch

    if recipe.train.torch_threads:
        torch.set_num_threads(recipe.train.torch_threads)
    elif hardware.gpu is None:
        torch.set_num_threads(max(1, free_cores() // here().local_size))
    elif here().size > 1:
        torch.set_num_threads(max(1, hardware.cores // here().local_size))


def _again(loaded: LoadedRecipe, folder: RunFolder, export: bool) -> str:
    """The command that goes on with this run."""
    words = ["run", str(loaded.path)] + ([] if export else ["--no-export"])
    for override in loaded.overrides:
        words += ["--set", override]
    if here().size > 1 and here().machines == 1:
        words += ["--gpus", str(here().size)]
    words += ["--resume", str(folder.path)]
    return typed(*words) if here().machines == 1 else f"torchrun, as before, with -m {shlex.join(['toolkit', *words])}"
