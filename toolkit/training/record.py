"""What a run says of itself: the lines at its start, and environment.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from toolkit import __version__, models
from toolkit.data import seen
from toolkit.data.keys import source_files
from toolkit.data.overlap import trained_on_too
from toolkit.data.parts import many_held_out
from toolkit.data.tokenizers import tokenizer_key
from toolkit.engines import EngineReport
from toolkit.files import write_text
from toolkit.hardware import Hardware
from toolkit.hashes import sha256_of, sha256_of_text
from toolkit.planning.budget import Budget
from toolkit.planning.sharing import check_share
from toolkit.planning.steps import Updates
from toolkit.ranks import Ranks, here
from toolkit.recipe import dump
from toolkit.recipe.places import described
from toolkit.recipe.schema import EvalSection, Recipe
from toolkit.records import write_json
from toolkit.runs import RunFolder, command_line
from toolkit.training.prepared import Tables
from toolkit.versions import every
from toolkit.words import counted

if TYPE_CHECKING:
    from toolkit.data.table import TokenTable
    from toolkit.training.resume import Resumed

SAMPLES = 6  # rows shown with their mask, each of another kind
SEARCHED = 500  # chats among which the kinds are sought
SAMPLE_TOKENS = 1500


def check_ranks(ranks: Ranks, recipe: Recipe, options: Mapping[str, object]) -> None:
    """Raise `RunError` unless all ranks are to do the same, and `InputError` where there are too many for it."""
    if ranks.size == 1:
        return
    ranks.agree({"toolkit": __version__, "recipe": sha256_of_text(dump(recipe)), **options})
    check_share(recipe.chats_per_update, ranks.size)


def rank_line(ranks: Ranks, hardware: Hardware) -> str:
    """What is said of ranks before training; nothing of one."""
    if ranks.size == 1:
        return ""
    where = "one on each GPU" if hardware.gpu is not None else "on the CPU, for trying it out: no CUDA GPU here"
    machines = f" of {ranks.machines} machines" if ranks.machines > 1 else ""
    return f"ranks      {ranks.size} processes{machines}, {where}; an update's chats are shared by them"


def weights_of(model_folder: Path) -> list[tuple[str, int]]:
    """A model's files of weights and their sizes in bytes."""
    return [(path.name, path.stat().st_size) for path in sorted(model_folder.glob("*.safetensors"))]


def describe_data(console: Console, recipe: Recipe, tables: Tables, updates: Updates) -> None:
    """Print how many chats, tokens and updates there are."""
    table = tables.train
    tokens, trained = int(table.lengths.sum()), int(table.trained.sum())
    held_out = tables.evaluation.n_chats if tables.evaluation else 0
    minutes = recipe.train.max_minutes
    at_most = ""
    if minutes is not None:
        fitted = recipe.train.fitted_steps is not None
        at_most = (
            f", as fitted to {minutes:g} min before" if fitted else f" at most, as many as fit into {minutes:g} min"
        )
    console.print(
        f"chats      {table.n_chats:,} to train on, {held_out:,} held out; "
        f"{tokens:,} tokens, {trained / tokens:.1%} trained, {tokens / table.n_chats:.0f} a chat\n"
        f"updates    {updates.total:,} of {counted(recipe.chats_per_update, 'chat')}{at_most}",
    )
    if told := many_held_out(recipe, table.n_chats, held_out):
        console.print(f"note       {told}", markup=False)
    if recipe.eval.sources and recipe.eval.holdout not in (0, EvalSection().holdout):
        told = f"eval.holdout = {recipe.eval.holdout:g} is not used: [[eval.sources]] say which chats are held out"
        console.print(f"note       {told}", markup=False)
    # chats that are held out of the training sources are never among them
    if recipe.eval.sources and tables.evaluation and (told := trained_on_too(table, tables.evaluation)):
        console.print(f"note       {told}", markup=False)


def engine_lines(report: EngineReport) -> str:
    """What an engine did, as lines for the terminal."""
    lines = [
        f"model      {report.total:,} parameters frozen as {report.weights}, {report.trainable:,} trained in fp32",
        f"attention  {report.attention}",
    ]
    if report.patched:
        parts = ", ".join(f"{count} {part.upper()}" for part, count in report.patched.items())
        lines.append(f"fused      {parts} of {report.expected_layers} layers")
    return "\n".join(lines)


def described_environment(
    folder: RunFolder,
    recipe: Recipe,
    model_folder: Path,
    hardware: Hardware,
    report: EngineReport,
    tables: Tables,
    budget: Budget | None,
) -> dict[str, Any]:
    """What environment.json holds: versions, hardware, engine and why, cut, hashes of model and data, its place."""
    held_out = tables.evaluation
    sources = [*recipe.data.sources, *recipe.eval.sources]
    return {
        "command": command_line(),
        "recipe_sha256": sha256_of(folder.recipe),
        "engine": report.as_dict(),
        "hardware": asdict(hardware),
        "process": described_process(),
        "packages": every(),
        "ranks": {"processes": here().size, "machines": here().machines},
        "micro_batch": asdict(budget) if budget is not None else None,
        "model": described_model(recipe, model_folder),
        "data": {
            "template_sha256": sha256_of(folder.template) if folder.template.is_file() else None,
            "files": source_files(sources),
            **described(sources, folder.path),
            **({"day": tables.train.day} if tables.train.day else {}),
            "train_table_key": tables.train.key,
            "train_table_content": tables.train.content,
            "eval_table_key": held_out.key if held_out else None,
            "eval_table_content": held_out.content if held_out else None,
            "train": described_table(tables.train),
            "eval": described_table(held_out) if held_out else None,
        },
    }


def described_process() -> dict[str, Any]:
    """What else decides the last bits of a CPU's sums: how many threads share them, and the instructions in use."""
    import torch  # Unsloth has to come before it

    return {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def described_model(recipe: Recipe, model_folder: Path) -> dict[str, Any]:
    """A model's name and licence, the hashes of its small files and the sizes of its weights."""
    return {
        "name": recipe.model.name,
        "revision": recipe.model.revision,
        "commit": recipe.model.commit,
        "license": models.license_of(recipe.model.name),
        "config_sha256": sha256_of(model_folder / "config.json"),
        "tokenizer_and_template_key": tokenizer_key(model_folder),
        "weights": dict(weights_of(model_folder)),
    }


BEGAN, WENT_ON = "began_with", "went_on"
_OF_THE_FIRST_UPDATES = ("engine", "hardware", "process", "ranks", "micro_batch")


def began_with(resumed: Resumed | None) -> dict[str, Any]:
    """{"command": ..., "began_with": ..., "went_on": ...} for the environment.json of a run that goes on from a
    checkpoint; only the first of one that starts over, and nothing of a run that begins.

    The first is the command that made the run, which a --resume is not. The second is what its first updates were made
    with, which may be another machine's, or {} where that is lost. The third has {"update": the last one before,
    "processes": that train from there on} for each time that it went on.
    """
    if resumed is None:
        return {}
    before = resumed.environment
    made = {"command": before["command"]} if "command" in before else {}
    if resumed.checkpoint is None:
        return made
    update = resumed.checkpoint.update
    return made | {
        BEGAN: before.get(BEGAN) or {name: before[name] for name in _OF_THE_FIRST_UPDATES if name in before},
        WENT_ON: [
            *(one for one in before.get(WENT_ON, ()) if one["update"] < update),
            {"update": update, "processes": here().size},
        ],
    }


def described_table(table: TokenTable) -> dict[str, Any]:
    """A table's meta, and its rows counted by tokens."""
    edges, counts = table.length_histogram()
    return {**table.meta, "lengths": {"edges": edges, "counts": counts}}


def write_samples(folder: RunFolder, table: TokenTable, tokenizer: Any) -> None:
    """Write samples.json: a few rows of the token table, token by token, with what is trained of them."""
    samples = sample_rows(table)
    for sample in samples:
        sample["texts"] = token_texts(tokenizer, sample["ids"])
    write_json(folder.samples, samples)


def sample_rows(table: TokenTable) -> list[dict[str, Any]]:
    """The rows of samples.json, without their tokens' texts."""
    found: dict[str, int] = {}
    for chat, kind in enumerate(table.kinds[:SEARCHED]):
        found.setdefault(kind, chat)
    samples = []
    for kind, chat in list(found.items())[:SAMPLES]:
        input_ids, labels = table.row(table.chat_rows(chat)[0])
        kept = input_ids.tolist()[:SAMPLE_TOKENS]
        samples.append(
            {
                "where": table.where(chat),
                "kind": kind,
                "tokens": len(input_ids),
                "trained_tokens": int((labels >= 0).sum()),
                "ids": kept,
                "trained": (labels[:SAMPLE_TOKENS] >= 0).astype(int).tolist(),
            }
        )
    return samples


def write_tools(folder: RunFolder, table: TokenTable) -> None:
    """Write tools.json: what its chats had on offer, so that the trained model can be offered it again."""
    made = table.folder / seen.FILE
    if made.is_file():
        write_text(folder.tools, made.read_text(encoding="utf-8"))


def token_texts(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token; of tokens that share a character, the first has it and the others are empty."""
    texts: list[str] = []
    start = 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd") and end - start < 4 and end < len(ids):
            continue
        texts += [text] + [""] * (end - start - 1)
        start = end
    return texts
