"""The export report for people: Markdown, and one HTML file that needs nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.export_report import QUESTIONS, Check, CheckName, VerifyReport
from toolkit.files import write_text
from toolkit.pages.page import render

MARKS = {"pass": "✓ pass", "warn": "! warning", "fail": "✗ fail", "skip": "– not made"}
METHOD = (
    "The trained model is the base with PEFT's adapter beside it, unmerged. Agreement: a file's weights, dequantised "
    "by the gguf package into a transformers model whose rope and norm follow the file's keys, at every trained token "
    "and over the whole vocabulary. Runtime: llama.cpp itself at up to 8 places a chat, from the 200 most probable "
    "tokens, the rest taken as one (which can only lower KL). Calls: greedy decoding of each chat's first answer. "
    "Without the adapter: the first 6 chats. Intervals are Wilson's at 95%. Limits: "
    "toolkit/export/verify/thresholds.py, with the runs they come from."
)
_TABLE = (
    "file", "KL", "KL p99", "top-1 the same", "loss", "KL of calls", "KL in llama.cpp", "same calls", "95%",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its width and its limit's place, both in percent of the scale."""

    name: str
    width: float
    limit: float | None
    text: str
    control: bool = False


def save(report: VerifyReport, folder: Path) -> None:
    """Write export_report.json, export_report.md and export_report.html, each whole or not at all."""
    values = {"passed": report.passed, "verdict": report.verdict, **asdict(report)}
    write_text(folder / "export_report.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "export_report.md", as_markdown(report))
    write_text(folder / "export_report.html", as_html(report))


def as_html(report: VerifyReport) -> str:
    """One file, readable without colour."""
    control = report.of("control")
    return render(
        "export.html",
        "toolkit export",
        title=f"{report.name}: export {'passed' if report.passed else 'failed'}",
        width="wider",
        report=report,
        control=control.summary if control else "",
        names=_names(report),
        marks=MARKS,
        questions=QUESTIONS,
        matrix=_matrix(report),
        bars=_bars(report),
        table_head=_TABLE,
        table_rows=_table(report),
        how=_how(report),
        method=METHOD,
    )


def as_markdown(report: VerifyReport) -> str:
    """The same for a terminal or a repository."""
    lines = [f"# {report.name}: are these files the trained model?", "", f"**{report.verdict}**", ""]
    lines += [f"- {check}" for check in [*report.failures, *report.warned]]
    lines += ["", *_markdown_table(["file", *_names(report)], [[f, *map(_mark, row)] for f, row in _matrix(report)])]
    if rows := _table(report):
        lines += ["", *_markdown_table(list(_TABLE), rows)]
    for name in _names(report):
        lines += ["", f"## {name}", "", QUESTIONS[name], ""]
        for check in report.checks:
            if check.name == name:
                place = f"**{check.file}**: " if check.file else ""
                advice = f". {check.advice}" if check.advice else ""
                lines.append(f"- {MARKS[check.outcome]} {place}{_plain(check.summary)}{advice}")
                lines += [f"  - note: {_plain(note)}" for note in check.notes]
                lines += [f"  - {_plain(detail)}" for detail in check.details]
    lines += ["", "## How it was measured", "", *(f"- {key}: {value}" for key, value in _how(report)), "", METHOD]
    return "\n".join(lines) + "\n"


def _names(report: VerifyReport) -> list[CheckName]:
    made = {check.name for check in report.checks}
    return [name for name in QUESTIONS if name in made]


def _matrix(report: VerifyReport) -> list[tuple[str, list[Check | None]]]:
    names = _names(report)
    places: list[str | None] = list(dict.fromkeys(check.file for check in report.checks))
    by = {(check.file, check.name): check for check in report.checks}
    return [(place or "all files", [by.get((place, name)) for name in names]) for place in places]


def _mark(check: Check | None) -> str:
    return MARKS[check.outcome] if check else ""


def _table(report: VerifyReport) -> list[list[str]]:
    rows = []
    for check in report.checks:
        if check.name == "agreement" and check.numbers:
            runtime, calls = report.of("runtime", check.file), report.of("calls", check.file)
            there = runtime.numbers["all"]["kl_mean"] if runtime and runtime.numbers else None
            same = calls.numbers["same"] if calls and calls.numbers else None
            rows.append(_row(str(check.file), check.numbers, there, same))
    control = report.of("control")
    if control and "without_adapter" in control.numbers:
        rows.append(_row("without the adapter", control.numbers["without_adapter"], None, None))
    return rows


def _row(name: str, numbers: dict[str, Any], in_llama_cpp: float | None, same: dict[str, Any] | None) -> list[str]:
    whole, calls = numbers["all"], numbers.get("tool_calls")
    return [
        name,
        f"{whole['kl_mean']:.2g}",
        f"{whole['kl_p99']:.2g}",
        f"{whole['top1_same']} of {whole['positions']}",
        f"{whole['loss_difference']:+.2g}",
        f"{calls['kl_mean']:.2g}" if calls else "",
        f"{in_llama_cpp:.2g}" if in_llama_cpp is not None else "",
        f"{same['hits']} of {same['n']}" if same else "",
        f"{same['low']:.0%} to {same['high']:.0%}" if same else "",
    ]


def _bars(report: VerifyReport) -> list[Bar]:
    found = [
        (str(check.file), check.numbers["all"]["kl_mean"], check.numbers["kl_limit"], False)
        for check in report.checks
        if check.name == "agreement" and check.numbers
    ]
    control = report.of("control")
    if control and "without_adapter" in control.numbers:
        found.append(("without the adapter", control.numbers["without_adapter"]["all"]["kl_mean"], None, True))
    known = [value for _, value, _, _ in found if value > 0 and math.isfinite(value)]
    if not known:
        return []
    limits = [limit for _, _, limit, _ in found if limit]
    low = math.floor(math.log10(max(1e-9, min(known)))) - 0.2
    high = max(math.log10(max([*known, *limits])), low + 1)

    def place(value: float) -> float:
        if not math.isfinite(value):
            return 100.0
        return round(min(100.0, max(0.0, 100 * (math.log10(max(value, 1e-12)) - low) / (high - low))), 1)

    return [Bar(n, place(kl), place(limit) if limit else None, f"{kl:.2g}", far) for n, kl, limit, far in found]


def _how(report: VerifyReport) -> list[tuple[str, str]]:
    found = []
    for key, value in report.how.items():
        if isinstance(value, dict):
            counts = [
                f"{count} {name}" if isinstance(count, int) else f"{name}: {count}" for name, count in value.items()
            ]
            value = ", ".join(counts)
        elif isinstance(value, list):
            value = "; ".join(map(str, value))
        if value not in ("", None):
            found.append((key.replace("_", " "), str(value)))
    return [*found, ("time", report.times)] if report.steps else found


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is: model output may hold anything."""
    return text.replace("<", "&lt;").replace("|", "\\|").replace("\n", " ").replace("*", "\\*").replace("`", "'")
