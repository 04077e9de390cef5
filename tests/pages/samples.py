"""A page of every kind."""

from __future__ import annotations

from pathlib import Path

from bench.report import page as bench_page
from tests.bench.planted import plant, run
from tests.reports.folders import make_run
from toolkit.data.preview import Shown
from toolkit.data.preview import page as preview_page
from toolkit.export.verify.page import as_html
from toolkit.export_report import Check, VerifyReport
from toolkit.pages.page import Token
from toolkit.reports.report import write_report

KINDS = ("run", "long words", "compared", "bench", "export", "preview")


def write_pages(folder: Path, text: str) -> dict[str, Path]:
    """Pages by kind, with `text` wherever others may have written it."""
    one = make_run(folder / "one")
    two = make_run(folder / "two", text=text, learning_rate=1e-4, log="quickstart-short-cpu")
    three = make_run(folder / "three", share=0.4)  # the chats of the first one, so that some flipped
    found = {
        "run": write_report([one.path]).path,
        "long words": write_report([two.path]).path,
        "compared": write_report([one.path, two.path, three.path]).path,
    }
    results = run("4x2048")
    plant(results, "peft", parts={"frozen weights": 3_440_000_000})
    plant(results, "unsloth", title=text)
    results.run["command"] = text
    whole = {"kl_mean": 0.001, "kl_p99": 0.01, "top1_same": 99, "positions": 100, "loss_difference": 0.0}
    checks = [
        Check("structure", "run-F16.gguf", "pass", text, details=[text]),
        Check("agreement", "run-F16.gguf", "fail", text, {"all": whole, "kl_limit": 0.01}, advice=text, notes=[text]),
        Check("control", None, "skip", text, {"without_adapter": {"all": whole}}),
    ]
    tokens = [Token(word, number, number % 3 == 0, number > 20) for number, word in enumerate([text, "a\nb", ""] * 9)]
    for name, made in (
        ("bench", bench_page([results])),
        ("export", as_html(VerifyReport("run", "today", [], {"chats": text}, checks))),
        ("preview", preview_page([Shown(text, tokens)])),
    ):
        found[name] = folder / f"{name}.html"
        found[name].write_text(made)
    return found
