"""Verdicts while a tiny model trains, what a run records for its report, and the page at its end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.reports.planted import falling, rows
from tests.tiny import make_tokenizer, write_recipe
from toolkit.recipe import load
from toolkit.reports.live import LiveReader
from toolkit.reports.log import Facts, read_metrics
from toolkit.terminal import new_console
from toolkit.training.mixins.eval_loss import MOST_GROUPS, fold_groups
from toolkit.training.record import token_texts
from toolkit.training.run import run


def test_a_verdict_is_printed_once_until_it_changes() -> None:
    out = io.StringIO()
    reader = LiveReader(Facts(total=200), new_console(file=out, width=60))
    for row in rows(falling(200, speed=20), 0.02):
        reader.feed(row)
    lines = out.getvalue().splitlines()
    assert [line.split()[:4] for line in lines] == [["good", "The", "model", "is"], ["good", "Fast", "drop,", "then"]]
    assert {verdict.code for verdict in reader.finish()} == {"plateau"}
    assert len(out.getvalue().splitlines()) == 2


def test_what_a_resumed_run_wrote_before_is_not_said_again() -> None:
    out = io.StringIO()
    reader = LiveReader(Facts(total=100), new_console(file=out))
    found = rows(falling(100), 0.02)
    reader.replay(found[:60])
    assert out.getvalue() == "" and reader.reader.verdicts
    for row in found[60:70]:
        reader.feed(row)
    assert "is learning" not in out.getvalue()


def test_groups_of_held_out_chats_are_the_same_each_time() -> None:
    assert fold_groups([(1.0, 10), (3.0, 30)]) == [1.0, 3.0]
    many = fold_groups([(float(i % MOST_GROUPS), 5) for i in range(3 * MOST_GROUPS + 1)])
    assert many == pytest.approx([float(i) for i in range(MOST_GROUPS)])
    # weighted by tokens, and no group is lost
    assert sum(fold_groups([(2.0, 1)] * MOST_GROUPS + [(4.0, 3)])) == pytest.approx(2 * (MOST_GROUPS - 1) + 3.5)
    assert fold_groups([]) == []


def test_token_texts_join_to_the_text() -> None:
    tokenizer = make_tokenizer(["plain words only"])
    for text in ("plain words", "naïve €5 🙂 done", "🙂"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        texts = token_texts(tokenizer, ids)
        assert len(texts) == len(ids) and "".join(texts) == text


def test_skipped_updates_stand_in_the_rows(tmp_path: Path) -> None:
    from toolkit.training.callbacks import MetricsWriter

    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    optimizer = SimpleNamespace(optimizer_step_was_skipped=True)
    writer.trainer = SimpleNamespace(accelerator=optimizer, logged_tokens=0)
    heard: list[dict[str, Any]] = []
    writer.listeners.append(heard.append)
    state = SimpleNamespace(global_step=1, epoch=0.1)
    writer.on_step_end(SimpleNamespace(fp16=True), state, None)
    writer.on_step_end(SimpleNamespace(fp16=False), state, None)
    writer.on_log(SimpleNamespace(fp16=True), state, None, {"loss": 1.0})
    assert heard[0]["skipped_updates"] == 1 and read_metrics(writer.path) == heard


def test_a_run_records_what_its_report_shows(
    tmp_path: Path, tiny_model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        60,
        train={
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_steps": 24,
            "gradient_checkpointing": False,
        },
        eval={
            "holdout": 8,
            "eval_steps": 12,
            "per_device_eval_batch_size": 2,
            "early_stopping_patience": 0,
            "generate": 2,
            "max_new_tokens": 4,
        },
    )
    folder = run(load(recipe), tmp_path / "run")
    found = read_metrics(folder.metrics)
    evaluated = [row for row in found if "eval_loss" in row]
    assert len(evaluated) == 3 and all(len(row["eval_groups"]) == 4 for row in evaluated)
    data = json.loads(folder.environment.read_text())["data"]
    assert sum(data["train"]["lengths"]["counts"]) == 52 and sum(data["eval"]["lengths"]["counts"]) == 8
    (sample,) = json.loads(folder.samples.read_text())
    trained = "".join(text for text, on in zip(sample["texts"], sample["trained"], strict=True) if on)
    assert '{"tool": "add"' in trained and "what is" not in trained and "what is" in "".join(sample["texts"])
    printed = capsys.readouterr().out
    assert "The model is learning" in printed and f"report     {folder.report}" in printed
    page = folder.report.read_text()
    assert "The model is learning" in page and 'class="t on"' in page and "Tool calls during training" in page
