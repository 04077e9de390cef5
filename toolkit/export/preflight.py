"""What would stop an export, found before any work: `toolkit run` asks before it trains, `toolkit export` first.

All problems are raised at once; what is only worth knowing comes back as lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.data.parts import part_chats
from toolkit.errors import DataError, InputError, Problem, ToolkitError
from toolkit.export.architecture import Architecture, read_architecture
from toolkit.export.quantize import backend_for, quant_type
from toolkit.export.tokenizer import read_tokenizer
from toolkit.machine import require_space
from toolkit.recipe import LoadedRecipe
from toolkit.recipe.schema import Recipe
from toolkit.words import typed

# bytes a weight, with the share that falls back to larger types at its worst (SmolLM2: 576 columns)
_BYTES = {"F16": 2.0, "BF16": 2.0, "Q8_0": 1.07, "Q6_K": 1.07, "Q5_K_M": 0.85, "Q4_K_M": 0.8}
_DESCRIPTIONS_READ = 200


def preflight(model_folder: Path, quants: Sequence[str], recipe: Recipe | None = None) -> list[str]:
    """Check a base model, its tokenizer and what computes the types in `quants` (as `q8_0`); returns notes.

    Raises `InputError` with every problem found.
    """
    problems: list[Problem] = []
    notes: list[str] = []

    def attempt(check: Callable[[], list[str]]) -> None:
        try:
            notes.extend(check())
        except InputError as error:
            problems.extend(error.problems)

    for quant in dict.fromkeys(quants):
        attempt(lambda quant=quant: _quant(quant))  # type: ignore[misc]
    architecture: list[Architecture] = []

    def shape() -> list[str]:
        architecture.append(read_architecture(model_folder))
        return []

    attempt(shape)
    if architecture:
        attempt(lambda: _tokenizer(model_folder, architecture[0]))
    if recipe is not None:
        attempt(lambda: _descriptions(recipe))
    if problems:
        # libgguf that is missing is missing for every type
        raise InputError(list(dict.fromkeys(problems)))
    return notes


def space_needed(architecture: Architecture, quants: Sequence[str], *, merged: bool) -> int:
    """Bytes that an export takes while it works: merged/, the 16-bit GGUF, the files asked for."""
    parameters = architecture.shape.parameters
    types = {quant_type(quant) for quant in quants}
    if types and not types & {"F16", "BF16"}:
        types.add("F16")
    return int(parameters * (sum(_BYTES[one] for one in types) + (2.0 if merged else 0.0))) + 50_000_000


def require_export_space(target: Path, architecture: Architecture, quants: Sequence[str], *, merged: bool) -> None:
    """Raise `ToolkitError` when the disk of `target` is too small for the export."""
    require_space(target, space_needed(architecture, quants, merged=merged), "the export")


def announce(loaded: LoadedRecipe, exporting: bool) -> str:
    """For `toolkit run`: what it will export after training, and which file says so where the recipe does not."""
    types = ", ".join(loaded.recipe.export.gguf)
    if not exporting:
        return f"export     none (--no-export); the recipe asks for {types}: {typed('export')} does it later"
    where = loaded.where("export.gguf")
    file = where.rpartition(":")[0]
    inherited = "" if where.startswith("--set") or file == str(loaded.path) else f", inherited from {file}"
    return f"export     {types} after training{inherited}; --no-export skips it"


def check_run(recipe: Recipe, model_folder: Path, run_folder: Path) -> list[str]:
    """For `toolkit run`, before it trains: what its [export] will need. Raises `InputError` or `ToolkitError`."""
    try:
        notes = preflight(model_folder, recipe.export.gguf, recipe)
        require_export_space(run_folder, read_architecture(model_folder), recipe.export.gguf, merged=True)
    except InputError as error:
        raise InputError([Problem(one.where, f"[export]: {one.message}") for one in error.problems]) from None
    except ToolkitError as error:
        raise ToolkitError(f"[export]: {error}") from None
    return notes


def _quant(quant: str) -> list[str]:
    backend_for(quant_type(quant))
    return []


def _tokenizer(folder: Path, architecture: Architecture) -> list[str]:
    found = read_tokenizer(folder, architecture.shape.vocab_size)
    if not found.template:
        raise DataError(f"{folder}: the tokenizer has no chat template; take the instruct version of the model")
    if found.eot is None:
        return ["the chat template can't be understood, so no Modelfile is written and no end of turn is marked"]
    return []


def _descriptions(recipe: Recipe) -> list[str]:
    """llama.cpp writes an empty description where a tool has none, as training did; better is to have one."""
    if recipe.data.call_format != "native":
        return []

    bare: set[str] = set()
    try:
        for chat in itertools.islice(part_chats(recipe, "train"), _DESCRIPTIONS_READ):
            bare.update(tool["function"]["name"] for tool in chat.tools if not tool["function"].get("description"))
    except DataError:
        return []  # no matter of the export: the token tables are made next, and name the recipe's line
    if not bare:
        return []
    names = ", ".join(sorted(bare)[:3])
    return [f"{len(bare)} tools have no description ({names}); they are trained and served with an empty one"]
