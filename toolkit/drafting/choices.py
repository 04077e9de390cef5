"""Settings for data that was looked at, and why each is so."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit.data.notes import Reading
from toolkit.data.parts import LEAST_CHATS, usual_holdout
from toolkit.drafting.look import Look
from toolkit.hardware import AMPERE
from toolkit.models.families import find_shape, why_not_packed
from toolkit.planning.cards import SeenGpu
from toolkit.recipe.schema import ModelSection
from toolkit.terminal import one_line
from toolkit.words import counted

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)  # tokens of a row
MOST_ON_CPU = 2048
FEW, FAR = 0.01, 4  # rows that are cut, as a share of all: those for which all others would need this many times less
MINUTES_ON_CPU = 15
USUAL_SAVES = 200  # updates between checkpoints where a recipe does not say
LARGE = 10**9  # parameters, from which the usual rate does and a CPU does not
MOST_BAD = 0.1  # share of rows that may be left out without another look at the data
_NAMED = 3  # bad rows
_SHARES = (0.01, 0.02, 0.05, MOST_BAD)

Pairs = list[tuple[str, object, str]]
"""Key, value and comment of a section's settings."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Sections by name; `held_out`: chats that are not trained on; `refused`: a run refuses the data as it is."""

    sections: dict[str, Pairs]
    held_out: int
    max_length: int
    refused: bool


def choose(found: Look, model: ModelSection, gpu: SeenGpu | None) -> Choices:
    """The settings of a recipe for what was found. A model that only a GPU trains gets those of one, with whatever this
    machine adds, as it will hardly be trained here."""
    held_out = usual_holdout(found.different)
    shape = find_shape(model)
    cpu = gpu is None and (shape is None or shape.parameters < LARGE)
    length = max_length(found, cpu=cpu)
    sections: dict[str, Pairs] = {
        "model": [("name", model.name, "")],
        "data": _data(found),
        "train": _train(found, model, gpu, found.chats - held_out, length, cpu=cpu),
        "eval": _eval(found, held_out, length, cpu=cpu),
    }
    most_bad = next((value for key, value, _ in sections["data"] if key == "max_bad"), 0.0)
    bad = found.reading.bad + len(found.unrendered)
    return Choices(sections, held_out, length, refused=bad > float(str(most_bad)) * found.reading.rows)


def max_length(found: Look, *, cpu: bool) -> int:
    """The least of `LENGTHS` that will cut no row, or none but a few that are far longer than all others, as far as a
    machine of this kind is up to it."""
    most = MOST_ON_CPU if cpu else LENGTHS[-1]
    whole = _uncut(found)
    enough = (
        length for length in LENGTHS if length >= whole or (FAR * length <= whole and found.far_over(length, FEW))
    )
    return min(next(enough, most), most)


def _uncut(found: Look) -> int:
    """The least of `LENGTHS` that will cut no row; beyond them what the longest may have."""
    return next((length for length in LENGTHS if length >= found.longest), found.longest)


def _data(found: Look) -> Pairs:
    how: Pairs = []
    if found.with_tools:
        own = "as the model's chat template writes calls"
        ours = "the model's own template can't write these tools and calls; this one llama.cpp and Ollama can read"
        how.append(("call_format", found.call_format, own if found.call_format == "native" else ours))
    reading = found.reading
    share = reading.bad / max(1, reading.rows)
    if reading.bad and share <= MOST_BAD:
        enough = next(step for step in _SHARES if step >= share)
        told = f"of rows may be left out: {reading.summary()}, {_places(reading)}; without this a run refuses"
        how.append(("max_bad", enough, f"up to {enough:.0%} {told}"))
    return how


def _places(reading: Reading) -> str:
    """The first bad rows, as `chats.jsonl:17, chats.jsonl:20 and 3 more`."""
    first = [problem.where for cause in reading.causes.values() for problem in cause.first][:_NAMED]
    more = f" and {reading.bad - len(first):,} more" if reading.bad > len(first) else ""
    return one_line(", ".join(where.rpartition("/")[2] for where in first)) + more


def _train(found: Look, model: ModelSection, gpu: SeenGpu | None, chats: int, length: int, *, cpu: bool) -> Pairs:
    small = found.mean * 16 < 2048 and chats < 1000
    batch, steps = (4, 1) if chats < 200 else (4, 2) if small else (4, 4)
    epochs = 3 if chats < 5000 else 2 if chats < 20_000 else 1
    room = "with room to spare" if length >= found.longest else f"it may have {found.longest:,} and be cut"
    how = "counted" if found.counted else f"estimated: {room}"
    longest = f"the longest chat has {max(found.tokens):,} tokens ({how})"
    pairs: Pairs = [
        ("num_train_epochs", epochs, f"over {counted(chats, 'chat')}"),
        ("per_device_train_batch_size", batch, ""),
        ("gradient_accumulation_steps", steps, f"{batch} x {steps} = {batch * steps} chats an update"),
        ("max_length", length, _cut(found, length) or longest),
    ]
    if chats <= USUAL_SAVES * batch * steps:  # else the usual comes sooner
        pairs.append(("save_steps", "epoch", "checkpoints, from which a run that was stopped goes on"))
    shape = find_shape(model)
    if shape is not None and why_not_packed(model, length) is None:
        pairs.append(("micro_batch", "auto", "packed: no padding between chats"))
        if not cpu:
            pairs.append(("gradient_checkpointing", "auto", "for as few layers as memory demands"))
    if shape is not None and shape.parameters < LARGE:
        pairs.append(("learning_rate", 1e-3, "a small model needs a higher rate than the usual 2e-4"))
    if cpu:
        pairs.append(("gradient_checkpointing", False, "nothing is computed twice"))
        pairs.append(
            ("max_minutes", MINUTES_ON_CPU, "fewer updates where all take longer; leave it out to make them all")
        )
    if gpu is not None and gpu.capability < AMPERE:
        pairs += [("bf16", False, f"{gpu.name} has no bfloat16"), ("fp16", True, "")]
    return pairs


def _cut(found: Look, length: int) -> str:
    over = sum(tokens > length for tokens in found.tokens)
    lose = "is longer and loses its end" if over == 1 else "are longer and lose their end"
    told = f"{over:,} of {counted(len(found.tokens), 'row')} measured {lose}; {_uncut(found)} would cut none"
    return told if over else ""


def _eval(found: Look, held_out: int, length: int, *, cpu: bool) -> Pairs:
    if not held_out:
        few = f"{counted(found.different, 'chat')} are too few to keep any out of training, so nothing will be judged"
        return [("holdout", 0, few), ("early_stopping_patience", 0, "which held-out chats would decide")]
    told = "kept out of training"
    if held_out < LEAST_CHATS:
        told += f"; too few for verdicts, which want {LEAST_CHATS}: more data would help most"
    pairs: Pairs = [("holdout", held_out, told), ("eval_steps", "epoch", "")]
    if found.with_calls:
        answer = max(32, 32 * math.ceil((found.usual_answer + 16) / 32))
        pairs.append(("generate", min(held_out, 24 if cpu else 64), "of them answered, and their calls judged"))
        if cpu:
            pairs.append(("generate_steps", 0, "before and after training, and not between"))
        pairs.append(("max_new_tokens", min(answer, 512, length // 2), "of an answer"))
    return pairs
