"""What comes out of a bench: table, Markdown, web page, comparison, the README's table."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import compare, report
from bench.gates import judge
from bench.report import page
from tests.bench.planted import plant, run
from toolkit.bench_results import Results
from toolkit.errors import InputError
from toolkit.reports.bench_prediction import predicted
from toolkit.terminal import new_console

PARTS = {
    "frozen weights": 3_440_000_000,
    "trained weights": 70_000_000,
    "gradients": 70_000_000,
    "optimizer states": 140_000_000,
}


@pytest.fixture
def results() -> Results:
    made = run("4x2048")
    plant(made, "peft", peak=8.0, parts=PARTS, driver=9 * 10**9, predicted_memory=8.2e9, flops=1e14)
    plant(made, "unsloth", peak=5.0, seconds=(0.5, 0.6, 0.7), parts=PARTS, trainable=1)
    plant(made, "full", status="out of memory", stage="warm-up", message="CUDA out of memory")
    made.gates = judge(made)
    return made


def shown(results: Results, width: int = 200) -> str:
    console = new_console(file=io.StringIO(), width=width)
    report.show(results, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_figures(results: Results) -> None:
    assert results.peak("peft") == 8 * 10**9
    seconds = results.seconds("unsloth")
    assert seconds is not None
    assert (seconds.median, seconds.low, seconds.high, seconds.count) == (0.6, 0.5, 0.7, 3)
    assert results.throughput("unsloth") == pytest.approx(3000 / 1.8)
    assert results.utilisation("peft") == pytest.approx(1e14 / 1.1 / 700e12)
    assert results.seconds("full") is None


def test_the_warm_up_and_settling_are_not_timed() -> None:
    made = run()
    plant(made, "peft")
    made.updates[1].settle = True
    seconds = made.seconds("peft")
    assert seconds is not None
    assert (seconds.count, seconds.high) == (2, 1.2)


def test_table_names_failures_and_what_ran_out(results: Results) -> None:
    text = shown(results)
    assert re.search(r"^full +out of memory \(warm-up\)", text, re.MULTILINE)
    assert "gate failed  unsloth: trainable count: 1, wanted 17,432,576" in text
    assert "7.45" in text  # 8 GB in GiB
    assert all(len(line) <= 80 for line in shown(results, 80).splitlines() if line.startswith(("peft", "unsloth")))


def test_predictions_are_called_predictions() -> None:
    made = run("real", "t4")
    plant(made, "unsloth")
    told = predicted(made, "unsloth")
    assert told is not None
    text = report.markdown(made)
    assert "s on t4 (predicted)" in text
    assert f"{told.seconds:.1f} ({told.least:.1f}-{told.most:.1f})" in text
    assert "PREDICTED, not measured" in text
    assert "22 TFLOP/s in products, 240 GB/s" in text
    assert f"off by {told.error:+.0%}" in text
    assert "predicted" not in report.markdown(run("real", "t4", "t4"))


def test_markdown_has_command_versions_and_every_variant(results: Results) -> None:
    text = report.markdown(results)
    for part in ("`toolkit bench`", "torch 2.11", "`full`", "CUDA out of memory", "FAILED `unsloth` trainable count"):
        assert part in text


def test_page_is_one_file_with_plots_in_both_lights(results: Results) -> None:
    text = page([results])
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(src|href)=|https?://|@import|url\(", text)
    plots = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert [plot.get("aria-label") for plot in plots] == [
        "peak memory by part",
        "real tokens a second",
        "seconds an update",
    ]
    bars = [rect for rect in plots[0].iter("rect") if rect.find("title") is not None]
    widths: dict[str, float] = {}
    for bar in bars:
        title = bar.findtext("title") or ""
        name = title.partition(":")[0]
        widths[name] = widths.get(name, 0.0) + float(bar.get("width", 0))
    assert widths["unsloth"] / widths["peft"] == pytest.approx(5 / 8, abs=0.01)  # stacked to the peak
    assert "full" not in widths
    assert "<td>full</td>" in text


def test_text_in_the_page_is_escaped(results: Results) -> None:
    results.run["command"] = "toolkit bench --set 'a=<b>&c'"
    assert "a=&lt;b&gt;&amp;c" in page([results])


def test_comparison_marks_what_changed_beyond_chance(results: Results) -> None:
    other = run("4x2048", versions={"torch": "2.12", "trl": "1.15"})
    plant(other, "peft", peak=8.1, seconds=(1.05, 1.15, 1.25))
    plant(other, "unsloth", peak=6.0, seconds=(0.5, 0.6, 0.7))
    plant(other, "full", peak=20.0)
    found = {d.variant: d for d in compare.differences(results, other)}
    assert not found["peft"].notable
    assert found["peft"].overlap
    assert found["unsloth"].memory == pytest.approx(0.2)
    assert found["unsloth"].notable
    assert found["full"].status == "out of memory -> measured"
    assert compare.unlike(results, other) == ["torch: 2.11 -> 2.12"]
    console = new_console(file=io.StringIO(), width=160)
    compare.show(results, other, console)
    assert "+20.0%" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_slower_run_beyond_the_spread_is_notable(results: Results) -> None:
    other = run("4x2048")
    plant(other, "unsloth", peak=5.0, seconds=(0.9, 0.9, 0.9))
    (found,) = compare.differences(results, other)
    assert found.notable
    assert found.seconds == pytest.approx(0.5)


def test_readme_table_goes_between_its_markers(results: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_between_markers(readme, report.readme_table([results], ["a.jsonl"]))
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "made by `toolkit bench table a.jsonl`" in text
    assert "| peft | 7.45 | 909 |" in text
    assert "| full | out of memory |  |" in text
    readme.write_text("no markers")
    with pytest.raises(InputError, match="wanted a line"):
        report.put_between_markers(readme, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("{}\n", ":1: not a row"), ('{"row": "arm"}\n', "first row is not the run's"), ("x\n", ":1:")],
)
def test_a_broken_results_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Results.load(path)


def test_recordings_that_were_given_up_are_said() -> None:
    results = run()
    plant(results, "peft")
    plant(results, "compiled", engine="compiled", not_recorded="CUDA out of memory")
    text = report.markdown(results)
    assert "(CUDA graphs given up: CUDA out of memory)" in text and text.count("given up") == 1
