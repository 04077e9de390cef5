"""What is said of the calls that a file makes otherwise than the trained model."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from toolkit.export.verify import gate
from toolkit.export.verify.calls import compare_calls
from toolkit.export.verify.page import as_html, as_markdown
from toolkit.export_report import Check, VerifyReport, show


def call(number: int) -> str:
    return "<tool_call>" + json.dumps({"name": "add", "arguments": {"a": number}}) + "</tool_call>"


def judged(kind: str, same: int, of: int = 12) -> Check:
    """The check of a file that makes the first `same` of all calls as the trained model does."""
    trained = [call(number) for number in range(of)]
    agreement, flips = compare_calls(trained, [*trained[:same], *(call(-1) for _ in range(of - same))], "hermes")
    return gate.calls("mine-X.gguf", kind, agreement, flips, "llama.cpp")


def test_many_changed_calls_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    found = judged("Q4_K_M", 5)
    show(Console(soft_wrap=True), found)
    told = capsys.readouterr().out
    assert told.startswith("WARNING    calls: mine-X.gguf: Q4_K_M changes the calls of 7 of 12 chats")
    assert "the same calls in 5 of 12 chats" in told and "A finer type, as q8_0, changes fewer; `toolkit eval" in told
    report = VerifyReport("mine", "now", [], {}, [found])
    assert report.passed and report.verdict == "passed: 1 checks, 1 of them with a warning"
    for page in (as_html(report), as_markdown(report)):
        assert "7 of 12 chats" in page and "! warning" in page


@pytest.mark.parametrize(
    ("kind", "same", "outcome", "advice"),
    [
        ("Q4_K_M", 12, "pass", ""),
        ("Q4_K_M", 10, "pass", ""),
        ("Q4_K_M", 9, "warn", "as q8_0"),
        ("Q4_K_M", 0, "fail", "if F16 fails too"),
        ("Q8_0", 8, "warn", "as f16"),
        ("Q8_0", 4, "fail", "if F16 fails too"),
        ("BF16", 9, "warn", "--chats 100"),
        ("BF16", 4, "fail", "if F16 fails too"),
    ],
)
def test_how_many_are_many(kind: str, same: int, outcome: str, advice: str) -> None:
    found = judged(kind, same)
    assert found.outcome == outcome and advice in found.advice and bool(found.advice) == bool(advice)
