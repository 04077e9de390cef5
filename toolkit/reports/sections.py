"""What a report shows, made from a `RunView`: charts, tables and sentences, ready for the template."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from toolkit.evaluation.results import FRACTIONS, LABELS, LOGGED, LOWER_IS_BETTER, Evaluation, Row, shown
from toolkit.evaluation.statistics import Rate
from toolkit.pages.axes import number
from toolkit.pages.bars import Interval, histogram, intervals, shares
from toolkit.pages.lines import Chart, Mark, Series, line_chart
from toolkit.pages.page import Token, table
from toolkit.reports.flips import flipped, still_wrong
from toolkit.reports.runview import RunView
from toolkit.words import counted, duration, typed

GIB = 2**30
FLIPS_SHOWN = 6
# lines of the chart of calls, by their names in metrics.jsonl
CALLS = {
    "eval_calls": "right answers",
    "eval_exact": "exact calls",
    "eval_abstained": "no call where none fits",
    "eval_clarified": "asks for what is missing",
}


def size(count: float) -> str:
    """Bytes for people: `18.2 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def sentence(view: RunView) -> str:
    """What was trained on what, in one sentence."""
    recipe = view.recipe
    train = (view.environment.get("data") or {}).get("train") or {}
    chats = train.get("chats") or view.summary.get("chats")
    sources = ", ".join(dict.fromkeys(source.source for source in recipe.data.sources))
    weights = "held as NF4" if recipe.model.load_in_4bit else "frozen"
    engine = ((view.environment.get("engine") or {}).get("engine") or {}).get("value") or recipe.train.engine
    trained_on = (view.summary.get("updates") or 0) * recipe.chats_per_update
    part = f"{trained_on:,} of " if chats and 0 < trained_on < chats else ""  # less than one epoch
    parts = [
        f"{recipe.model.name}, {weights}, with LoRA of rank {recipe.lora.r}",
        f"on {part}{counted(chats, 'chat')} of {sources}" if chats else f"on {sources}",
        f"in updates of {counted(recipe.chats_per_update, 'chat')}",
        f"with the {engine} engine" + (f" on {view.device}" if view.device else ""),
    ]
    lost = len(view.bad_lines)
    left_out = f" Lines of metrics.jsonl that can't be read and are left out: {lost}." if lost else ""
    return " ".join(parts) + "." + left_out


def tiles(view: RunView) -> list[tuple[str, str, str]]:
    """(label, value, detail) of the few figures that say most."""
    found: list[tuple[str, str, str]] = []
    planned = view.facts.total or view.summary.get("updates_planned") or 0
    ends = view.log.epoch_of(view.updates)
    train = view.recipe.train
    details = [f"{ends:.2f} epochs"] if math.isfinite(ends) else []
    details += [f"as many as fit into {train.max_minutes:g} min"] if train.fitted_steps is not None else []
    found.append(
        (
            "updates",
            f"{view.updates:,}" + (f" of {planned:,}" if planned and planned != view.updates else ""),
            ", ".join(details),
        )
    )
    if (loss := view.last_loss) is not None:
        found.append(("training loss", number(loss), f"{number(view.log.losses[0])} at first"))
    if (lowest := view.lowest_loss) is not None:
        last = view.log.evaluations[-1]
        found.append(("held-out loss", number(last.loss), f"lowest {number(lowest[1])} at update {lowest[0]:,}"))
    if view.after is not None:
        share = view.after.rates()["correct"]
        was = view.before.rates()["correct"].share if view.before is not None else None
        low, high = share.interval
        detail = f"{was:.0%} before; " if was is not None else ""
        found.append(("right answers", f"{share.share or 0:.0%}", f"{detail}95%: {100 * low:.0f}–{100 * high:.0f}%"))
    if (speed := view.tokens_per_second) is not None:
        found.append(("real tokens/s", f"{speed:,.0f}", ""))
    if (peak := view.peak_memory) is not None:
        found.append(("peak memory", size(peak), view.device))
    if (host := view.summary.get("peak_host_memory")) is not None:
        found.append(("machine's memory", size(host), "of the process at most"))
    if seconds := view.summary.get("seconds"):
        found.append(("training time", duration(seconds), ""))
    return found


def curves(view: RunView) -> list[Markup]:
    """Loss and evaluations, rate, gradient norm, speed and memory, over updates."""
    log = view.log
    warmup = view.facts.warmup
    shaded = (0.0, float(warmup), "warmup") if warmup else None
    best, kept = view.best, view.summary.get("adapter_of_update")
    marks = [Mark(float(epoch * view.facts.per_epoch)) for epoch in _epochs(view)]
    if best is not None and 0 < best.update < log.evaluations[-1].update:
        marks.append(Mark(best.update, "most right answers" if best.by_calls else "best held-out loss"))
    if kept is not None and kept != view.updates:
        marks.append(Mark(kept, "adapter kept"))
    evaluated = log.evaluations
    loss = [
        Series("training loss", log.updates, log.losses),
        Series("held-out loss", [e.update for e in evaluated], [e.loss for e in evaluated], style=1, points=True),
    ]
    epochs = "Thin vertical lines are the ends of epochs." if _epochs(view) else ""
    drawn = [
        Chart("Loss", loss, unit="nats a trained token", log=True, marks=marks, shaded=shaded, note=epochs, height=300),
        Chart(
            "Tool calls during training",
            _calls(view),
            unit="% of the held-out chats where it applies",
            zero=True,
            marks=marks,
            shaded=shaded,
            height=200,
        ),
        Chart("Learning rate", [Series("rate", log.updates, log.rates)], zero=True, shaded=shaded, height=130),
        Chart("Gradient norm", [Series("gradient norm", log.updates, log.grad_norms)], log=True, height=160),
        Chart(
            "Speed",
            [Series("real tokens/s", log.updates, log.speeds)],
            unit="real tokens/s",
            zero=True,
            height=160,
        ),
        Chart(
            "Memory",
            [Series("memory", log.updates, [value / GIB for value in log.memory])],
            unit="GiB; the peak so far on a GPU, resident on a CPU",
            zero=True,
            height=160,
        ),
    ]
    # one axis of updates for all, wherever their values end
    return [markup for chart in drawn if (markup := line_chart(replace(chart, until=view.updates)))]


def _calls(view: RunView) -> list[Series]:
    """What was measured of calls beside the loss, in percent, and after training of the adapter that was kept."""
    kept = view.summary.get("adapter_of_update")
    after = view.after.rates() if view.after is not None and kept else {}
    found: list[Series] = []
    for key, name in CALLS.items():
        shares = {row["update"]: row[key] for row in view.evaluated if row.get(key) is not None}
        if not shares:
            continue
        rate = after.get(LOGGED[key])
        if rate is not None and rate.share is not None:
            shares.setdefault(kept, rate.share)
        points = sorted(shares.items())
        xs, ys = [update for update, _ in points], [100 * share for _, share in points]
        found.append(Series(name, xs, ys, style=len(found), points=True))
    return found


def _epochs(view: RunView) -> range:
    return range(1, math.ceil(view.updates / view.facts.per_epoch)) if view.facts.per_epoch else range(0)


def data_charts(view: RunView) -> list[Markup]:
    """Lengths, kinds and roles of the training rows, where the run recorded them."""
    train = (view.environment.get("data") or {}).get("train") or {}
    found = []
    lengths = train.get("lengths") or {}
    if edges := lengths.get("edges"):
        labels = [f"{low:,}–{high:,}" for low, high in itertools.pairwise(edges)]
        found.append(histogram("Lengths of the training rows", labels, lengths["counts"], "rows", "tokens"))
    if kinds := train.get("kinds"):
        found.append(shares("Chats by kind", kinds, "chats"))
    if roles := train.get("tokens_by_role"):
        found.append(shares("Tokens by role", roles, "tokens"))
    return [markup for markup in found if markup]


def data_facts(view: RunView) -> list[str]:
    """Sentences on the data: what is trained, cut and dropped."""
    data = view.environment.get("data") or {}
    found = []
    for part, name in (("train", "to train on"), ("eval", "held out")):
        meta = data.get(part)
        if not meta:
            continue
        found.append(
            f"{counted(meta['chats'], 'chat')} {name}: {counted(meta['tokens'], 'token')}, "
            f"{meta['share_trained']:.1%} of them trained; "
            f"the longest row has {meta['longest_row']:,} tokens ({meta['longest_where']}). "
            f"train.max_length = {meta['max_length']} cut {counted(meta['truncated_rows'], 'row')}, "
            f"{meta['cut_answers']:,} of them within an answer, and dropped {meta['dropped_rows']:,}."
        )
    return found


def mask_samples(view: RunView) -> list[dict[str, Any]]:
    """Rows token by token, trained tokens marked: {"title", "tokens"}."""
    found = []
    for sample in view.samples:
        tokens = [
            Token(str(text), int(identity), bool(trained))
            for text, identity, trained in zip(sample["texts"], sample["ids"], sample["trained"], strict=True)
        ]
        tokens_of = f"{counted(sample['tokens'], 'token')}, {sample['trained_tokens']:,} trained"
        title = f"{sample['kind']}: {sample['where']}, {tokens_of}"
        if sample["tokens"] > len(tokens):
            title += f"; the first {len(tokens):,} are shown"
        found.append({"title": title, "tokens": tokens})
    return found


def accuracy(view: RunView) -> dict[str, Any] | None:
    """Right answers by kind before and after, other measures, flips and wrong answers. None without an evaluation."""
    if view.after is None:
        return None
    before = view.before
    groups: dict[str, list[Interval]] = {}
    earlier = grouped(before) if before is not None else {}
    for name, rows in grouped(view.after).items():
        found = [interval_of("before", earlier.get(name, []), 1)] if before is not None else []
        groups[name] = [*found, interval_of("after", rows, 0)]
    cut = view.after.cut()
    title = f"Right answers by kind, {view.after.of}"
    return {
        "chart": intervals(title, groups, "Lines are Wilson's 95% intervals."),
        "flipped": flipped(before, view.after, ("before", "after"), FLIPS_SHOWN) if before is not None else None,
        "wrong": still_wrong(before, view.after, FLIPS_SHOWN),
        "unfinished": f"{cut}." if cut else "",
        "measures": _measures(view),
    }


def grouped(evaluation: Evaluation) -> dict[str, list[Row]]:
    """Rows by kind, by split and by source where there are several, and all."""
    found = dict(evaluation.by(lambda row: row.kind))
    for prefix, several in (
        ("unseen ", evaluation.by(lambda row: row.split)),
        ("", evaluation.by(lambda row: row.source)),
    ):
        if len(several) > 1:
            found |= {f"{prefix}{name}": rows for name, rows in several.items() if name}
    return {**found, "all": evaluation.rows}


def interval_of(name: str, rows: Sequence[Row], style: int) -> Interval:
    """Right answers among `rows`."""
    rate = Rate.of(row.correct for row in rows)
    return Interval(name, rate.share or 0.0, *rate.interval, rate_text(rate), style)


def rate_text(rate: Rate | None) -> str:
    """`52/73  71% (60–80)`, with the 95% interval."""
    if rate is None or rate.share is None:
        return "none"
    low, high = rate.interval
    return f"{rate.hits:.0f}/{rate.n}  {rate.share:.0%} ({100 * low:.0f}–{100 * high:.0f})"


def _measures(view: RunView) -> Markup:
    assert view.after is not None
    after = view.after.rates()
    before = view.before.rates() if view.before is not None else {}

    def cell(name: str, rate: Rate | None) -> str:
        if rate is None or rate.share is None:
            return "none"
        if name in FRACTIONS:
            return f"{rate.share:.0%} over {rate.n}"
        return rate_text(rate)

    body = []
    for name in shown([before, after]):
        cells = [LABELS[name] + (" (less is better)" if name in LOWER_IS_BETTER else "")]
        cells += [cell(name, before.get(name))] if view.before is not None else []
        body.append([*cells, cell(name, after.get(name))])
    head = ["measure", "before", "after"] if view.before is not None else ["measure", "share"]
    return table(head, body)


def again(view: RunView) -> list[tuple[str, str]]:
    """(what, command) that make the run, or the page, again. The run's own recipe has what --set changed in it."""
    path, recipe = view.folder.path, view.folder.recipe
    ranks = view.environment.get("ranks") or {}
    several = ranks.get("processes", 1) > 1 and ranks.get("machines", 1) == 1
    gpus = ["--gpus", str(ranks["processes"])] if several else []
    found = [("Run it again", typed("run", recipe, *gpus, "--out", f"{path}-again"))]
    if view.state == "stopped" and view.folder.last_checkpoint() is not None:
        found.append(("Go on", typed("run", recipe, *gpus, "--resume", path)))
    if command := view.environment.get("command"):
        found.append(("It was started as", str(command)))
    found.append(("Make this page again", typed("report", path)))
    return found


def environment_rows(view: RunView) -> list[tuple[str, str]]:
    """(name, value) of hardware, engine and what it chose, hashes and versions."""
    environment = view.environment
    engine, hardware = environment.get("engine") or {}, environment.get("hardware") or {}
    model, data = environment.get("model") or {}, environment.get("data") or {}
    gpu = hardware.get("gpu")
    found: list[tuple[str, Any]] = []
    if hardware:
        if gpu:
            found.append(("GPU", f"{gpu['name']}, {gpu['memory'] / GIB:.0f} GiB"))
        memory = f", {hardware['memory'] / GIB:.0f} GiB" if hardware.get("memory") else ""
        found.append(("CPU", f"{hardware.get('cpu')}, {hardware.get('cores')} cores{memory}"))
    ranks = environment.get("ranks") or {}
    if (processes := ranks.get("processes") or 1) > 1:
        machines = f", on {ranks['machines']} machines" if (ranks.get("machines") or 1) > 1 else ""
        found.append(("ranks", f"{processes} processes, {'a GPU each' if gpu else 'on the CPU'}{machines}"))
    for name in ("engine", "precision"):
        if chosen := engine.get(name):
            found.append((name, f"{chosen['value']}: {chosen['reason']}"))
    for name, key in (("attention", "attention"), ("frozen weights", "weights")):
        found.append((name, engine.get(key)))
    if engine.get("trainable"):
        found.append(("parameters", f"{engine['trainable']:,} trained, {engine['total']:,} frozen"))
    found += [
        ("model", model.get("name")),
        ("model licence", model.get("license")),
        ("model config, SHA-256", model.get("config_sha256")),
        ("tokenizer and template", model.get("tokenizer_and_template_key")),
        ("training tokens", data.get("train_table_key")),
        ("held-out tokens", data.get("eval_table_key")),
        ("versions", ", ".join(f"{name} {version}" for name, version in (engine.get("versions") or {}).items())),
    ]
    return [(name, str(value)) for name, value in found if value]
