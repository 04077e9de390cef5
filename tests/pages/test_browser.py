"""The pages in a real browser: nothing fetched, no errors, no sideways scrolling on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages.browser import Browser, find_browser
from tests.pages.samples import KINDS, write_pages

LONG = "an_unbroken_word_" * 30 + "<script>document.title = 'broken'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed")
    with Browser(program) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_pages(tmp_path_factory.mktemp("pages"), LONG)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1200, False), (1200, True)])
def test_the_page_shows_well(browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool) -> None:
    page = pages[name]
    browser.open(page, width, dark)
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.problems == []
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.value("document.documentElement.scrollWidth") <= width
    # what is wider scrolls in its own box, and nothing sticks out of the page
    outside = """[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, .mask, svg, .skip') &&
        one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"""
    assert browser.value(outside) == []
    # no column so narrow that words stand letter under letter
    if name in ("run", "compared"):
        assert (
            browser.value("Math.max(...[...document.querySelectorAll('td, th')].map((one) => one.offsetHeight))") < 120
        )
    unnamed = "[...document.querySelectorAll('svg[role=img]')].filter((one) => !one.getAttribute('aria-label')).length"
    assert browser.value(unnamed) == 0
    assert browser.value("document.title") != "broken"
    assert (
        browser.value(
            "new Set([...document.querySelectorAll('.what')].map((one) => getComputedStyle(one).fontSize)).size"
        )
        <= 1
    )
    bright = browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert bright is not dark


def test_text_has_contrast_in_light_and_dark(browser: Browser, pages: dict[str, Path]) -> None:
    """At least 4.5 for everything that is read, by the WCAG's formula."""
    measure = """(() => {
      const lum = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
      const behind = (one) => { for (; one; one = one.parentElement) {
        const found = rgb(getComputedStyle(one).backgroundColor); if (found.length < 4) return found; }
        return [255, 255, 255]; };
      const names = [".what", ".why", ".level", ".lead", "summary", ".detail", ".ys span", "td", ".t.on", "nav a"];
      return names.map((name) => {
        const one = document.querySelector(name);
        const [a, b] = [lum(rgb(getComputedStyle(one).color)), lum(behind(one))].sort((x, y) => y - x);
        return [name, (a + 0.05) / (b + 0.05)]; }).filter(([name, ratio]) => ratio < 4.5);
    })()"""
    for dark in (False, True):
        browser.open(pages["run"], 1200, dark)
        assert browser.value(measure) == []


def test_the_pointer_reads_the_lines(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], 1200)
    box = browser.value(
        "(() => { const plot = document.querySelector('.plot[data-chart]');"
        " plot.scrollIntoView({behavior: 'instant', block: 'center'});"
        " const b = plot.getBoundingClientRect(); return [b.left + b.width / 4, b.top + b.height / 2]; })()"
    )
    browser.move(*box)
    tip = browser.value("document.querySelector('.tip')?.textContent")
    assert tip.startswith("update 18") and "training loss" in tip and "held-out loss" in tip
    assert browser.problems == []
