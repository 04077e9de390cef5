"""What other commands left in a run folder: exports and benches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from toolkit.bench_results import FILE, Results
from toolkit.errors import InputError
from toolkit.evaluation.results import FRACTIONS, LABELS, LOWER_IS_BETTER, shown
from toolkit.export_report import QUESTIONS, VerifyReport
from toolkit.exports import ExportFolder
from toolkit.pages.page import table
from toolkit.records import read_object
from toolkit.reports import bench
from toolkit.reports.sections import size


@dataclass(frozen=True, slots=True)
class Extra:
    """A section of a report: its title, sentences, tables, and (title, plot) of what is drawn."""

    title: str
    sentences: list[str]
    tables: list[Markup]
    plots: list[tuple[str, Markup]] = field(default_factory=list)


def exports(run: Path) -> list[Extra]:
    """Every export folder in a run folder: its files, how the weights came about, and its verification."""
    found = []
    for record_path in sorted(run.glob("*/export.json")):
        folder = ExportFolder(record_path.parent)
        try:
            record = folder.record()
        except InputError as error:
            found.append(Extra(f"Export {record_path.parent.name}", [f"Can't be read: {error}"], []))
            continue
        body = [[f.name, f.type, size(f.bytes), f.backend, f"{f.seconds:.1f} s"] for f in record.files]
        sentences = [
            f"Verification: {record.status}." + (_failed(folder.failed) if record.status == "failed" else ""),
            f"Merged into the {record.merge_base.base} base: {record.merge_base.reason}.",
            *record.notes,
        ]
        tables = [table(["file", "type", "size", "made by", "time"], body)] if body else []
        tables += _verified(folder.path, sentences)
        found.append(Extra(f"Export {record.name}", sentences, tables))
    return found


def _verified(folder: Path, sentences: list[str]) -> list[Markup]:
    """The verification's checks as a table; its verdict is added to the sentences."""
    if not (folder / "export_report.json").is_file():
        return []
    try:
        report = VerifyReport.load(folder)
    except InputError as error:
        sentences.append(f"The verification can't be read: {error}")
        return []
    sentences.append(f"Checked against the model that was trained: {report.verdict}.")
    body = [[check.outcome, check.file or "all", check.name, check.summary] for check in report.checks]
    sentences += [f"{name}: {QUESTIONS[name]}" for name in dict.fromkeys(check.name for check in report.checks)]
    return [table(["outcome", "file", "check", "what was found"], body, words=True)] if body else []


def evaluations(run: Path) -> list[Extra]:
    """Tables that `toolkit eval` saved in a run folder: right answers by kind, other measures, and how many flipped."""
    found = []
    for path in sorted(run.glob("*/table.json")):
        try:
            saved = read_object(path)
            columns = saved["columns"]
            kinds = list(dict.fromkeys(kind for column in columns for kind in column["by_kind"]))
            body = [[kind, *(_share(column["by_kind"].get(kind)) for column in columns)] for kind in kinds]
            body.append(["all", *(_share(column["overall"]) for column in columns)])
            names = [str(column["name"]) for column in columns]
            tables = [table(["kind", *names], body)]
            measures = [
                [
                    LABELS[name] + (" (less is better)" if name in LOWER_IS_BETTER else ""),
                    *(_share(column["overall"], name) for column in columns),
                ]
                for name in shown([column["overall"] for column in columns])
            ]
            tables += [table(["measure", *names], measures)] if measures else []
            sentences = [str(saved["chats"]), *(_flipped(one) for one in saved.get("differences", ()))]
            found.append(Extra(f"Evaluation {path.parent.name}", sentences, tables))
        except InputError as error:
            found.append(Extra(f"Evaluation {path.parent.name}", [f"Can't be read: {error}"], []))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            found.append(Extra(f"Evaluation {path.parent.name}", [f"Can't be read: {error!r}"], []))
    return found


def _share(rates: dict[str, Any] | None, measure: str = "correct") -> str:
    if not rates or measure not in rates:
        return ""

    rate = rates[measure]
    if measure in FRACTIONS:
        return f"{rate['share']:.0%} over {rate['n']}"
    return f"{rate['hits']:.0f}/{rate['n']}  {rate['share']:.0%} ({100 * rate['low']:.0f}–{100 * rate['high']:.0f})"


def _flipped(difference: dict[str, Any]) -> str:
    paired = difference["correct"]
    return (
        f"{difference['name']} against {difference['from']}: {paired['gained']} of {paired['n']} became right, "
        f"{paired['lost']} became wrong (exact McNemar test: p = {paired['p_value']:.2g})."
    )


def _failed(path: Path) -> str:
    return " " + " ".join(path.read_text(encoding="utf-8", errors="replace").split("\n")) if path.is_file() else ""


def benches(run: Path, named: list[Path]) -> list[Extra]:
    """Bench results in a run folder, and those named on the command line."""
    found = []
    for path in [*sorted(run.glob(f"**/{FILE}")), *named]:
        results = Results.load(path)
        found.append(
            Extra(
                f"Bench: {bench.heading(results)}",
                [f"{results.run['date']} UTC: {results.run['command']}", *bench.notes(results)],
                [table(bench.columns(results), bench.rows(results))],
                [
                    ("Peak memory by part, GiB", bench.memory_plot(results)),
                    ("Real tokens a second", bench.speed_plot(results)),
                ],
            )
        )
    return found
