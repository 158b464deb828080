# SPDX-License-Identifier: Apache-2.0
"""The page of a recorded program in a real browser: what is on the screen, and what it does."""

import re

import pytest

from page.conftest import leakscope

SIZES = ((390, 844), (1280, 900), (1920, 1080))


@pytest.fixture
def page(screen, program):
    screen.open(program / "run.html")
    yield screen
    # Whatever was done to it: nothing was fetched, and nothing complained.
    assert screen.requests == [(program / "run.html").as_uri()]
    assert screen.console == []


def option(page, where: str, value: str) -> None:
    page.run(
        f"(() => {{ const s = document.querySelector({where!r}); s.value = {value!r};"
        " s.dispatchEvent(new Event('change')); })()"
    )


def typed(page, text: str) -> None:
    page.run("document.querySelector('input[type=search]').focus()")
    page.run("document.querySelector('input[type=search]').select()")
    if text:
        page.type(text)
    else:
        page.run(
            "(() => { const s = document.querySelector('input[type=search]'); s.value = '';"
            " s.dispatchEvent(new Event('input')); })()"
        )


def test_the_verdict_is_the_terminals_and_accounts_add_up(page, program):
    said = (program / "run.txt").read_text()
    headline = page.text("h1")
    assert re.match(r"\d places? leaks? [\d.]+ KiB", headline)
    assert f"leakscope: {headline}" in said.replace("\n  ", " ")
    parts = page.run(
        "[...document.querySelectorAll('.account')].map(t => [...t.querySelectorAll('meter')]"
        ".reduce((sum, m) => sum + m.value, 0))"
    )
    assert len(parts) == 2
    assert parts == pytest.approx([100, 100], abs=0.1)
    assert "Coverage" in page.text("#coverage")


def test_resident_memory_lies_above_what_lives(page):
    assert page.count("#memory path.layer") >= 3
    assert page.count("#memory path.resident") == 1
    top = (
        "Math.min(...[...document.querySelectorAll('#memory path.layer')].map(p => p.getBBox().y))"
    )
    assert page.run(f"document.querySelector('#memory path.resident').getBBox().y <= {top} + 1")
    assert "lost: receipt" in page.text("#memory .legend")


def test_a_finding_opens_to_its_line_and_its_address_opens_it_again(page, program):
    assert "malloc(160)" in page.text(".source .marked")  # the first leak is open
    page.click("button.opener")
    assert page.count(".detail") == 0
    page.click("button.opener")
    assert "malloc(160)" in page.text(".source .marked")
    assert "blocks are lost" in page.text(".for")
    assert "were freed" in page.text(".against")
    assert page.count(".detail svg.plot") == 3
    assert "shop.c:25" in page.text(".stack .marked")
    assert "leakscope report --verbose shop.leakscope" in page.text(".detail .command")
    address = page.run("location.hash")
    assert re.fullmatch(r"#1/[0-9a-f]{16}", str(address))
    page.open(f"{program / 'run.html'}{address}")
    assert page.run("document.activeElement.className") == "link opener"
    page.requests.clear()
    page.requests.append((program / "run.html").as_uri())


def test_search_filters_the_table_and_marks_the_graph(page):
    option(page, "#findings select", "all")
    all_rows = page.text("#findings .said")
    typed(page, "keep_cart")
    assert 'match "keep_cart"' in page.text("#findings .said")
    assert page.text("#findings .said") != all_rows
    assert {"▸ keep_cart"} == set(
        page.run("[...document.querySelectorAll('.opener')].map(b => b.innerText)")
    )
    assert "the filter matches" in page.text("#graph .said")
    typed(page, "")
    assert page.text("#findings .said") == all_rows


def test_the_table_is_sorted_by_each_column(page):
    option(page, "#findings select", "all")
    amounts = (
        "[...document.querySelectorAll('.findings tbody tr:not(.inside) td:nth-child(4)')]"
        ".map(td => Number(td.innerText.replaceAll(',', '')))"
    )
    page.click(".findings thead th:nth-child(4) button")
    down = page.run(amounts)
    assert len(down) >= 3
    assert down == sorted(down, reverse=True)
    page.click(".findings thead th:nth-child(4) button")
    assert page.run(amounts) == sorted(down)
    assert page.run("document.querySelector('[aria-sort=ascending]').innerText") == "Blocks ▲"


def test_the_graph_zooms_turns_and_hides_by_mouse_and_keys(page):
    option(page, "#graph select", "live_bytes")
    assert "all" in page.text("#graph .crumbs")
    page.click("#graph canvas", 200, 19 * 4 + 8)  # main, below the run-time's frames
    assert page.text("#graph .crumbs").endswith("main")
    page.press("ArrowDown")
    assert re.match(r"\w+; .*shop\.c:\d+; [\d.]+ [KM]iB, \d+ % of all", page.text("#graph .said"))
    page.press("Enter")
    assert not page.text("#graph .crumbs").endswith("main")
    page.press("Escape")
    assert page.text("#graph .crumbs") == "all"
    page.click("#graph input[type=checkbox]")  # hide run-time frames
    page.press("Tab")
    page.click("#graph canvas", 200, 19 + 8)
    assert page.text("#graph .crumbs").endswith("main")
    option(page, "#graph label:nth-of-type(2) select", "callers")
    page.click("#graph canvas", 60, 19 + 8)
    assert not page.text("#graph .crumbs").endswith("main")


def test_a_brushed_span_is_what_everything_below_shows(page):
    assert "In the span" not in page.text(".findings thead")
    page.drag("#memory .brush .overlay", 0.4, 0.8)
    assert "Graph and table show this span" in page.text("#memory .said")
    assert "In the span" in page.text(".findings thead")
    assert "grown in the span" in page.text("#graph .controls")
    change = page.text(".findings tbody tr td:last-child")
    assert re.fullmatch(r"\+[\d.]+ [KM]?i?B", change)
    assert page.count(".detail svg rect.span") == 1
    page.click("#memory .controls button")
    assert "In the span" not in page.text(".findings thead")


def test_the_sliders_stand_where_the_brush_left_them(page):
    page.drag("#memory .brush .overlay", 0.4, 0.8)
    ends = "[...document.querySelectorAll('#memory input[type=range]')].map(r => Number(r.value))"
    first, last = page.run(ends)
    rows = int(str(page.run("document.querySelector('#memory input[type=range]').max")))
    assert 0 < first < last < rows
    begins = page.text("#memory .said").partition(" to ")[0]
    page.run(
        "(() => { const r = document.querySelectorAll('#memory input[type=range]')[1];"
        " r.value = Number(r.value) + 1; r.dispatchEvent(new Event('input')); })()"
    )
    assert page.text("#memory .said").partition(" to ")[0] == begins
    page.click("#memory .controls button")
    assert page.run(ends) == [0, rows]


def test_keys_alone_reach_everything(page):
    page.press("/")
    assert page.run("document.activeElement.type") == "search"
    reached = set()
    for _ in range(60):
        page.press("Tab")
        reached.add(
            page.run("document.activeElement.tagName + '.' + document.activeElement.className")
        )
    assert {"CANVAS.", "BUTTON.link opener", "BUTTON.copy", "SELECT."} <= reached


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_each_screen_in_light_and_dark(screen, program, width, height, scheme):
    screen.size(width, height)
    screen.scheme(scheme)
    screen.open(program / "run.html")
    assert screen.run("document.documentElement.scrollWidth") <= width
    rows = (
        "[...document.querySelectorAll('.account tr')].map(r => r.getBoundingClientRect().height)"
    )
    assert max(screen.run(rows)) < 90  # no column of single letters
    colour = screen.run("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")


def test_it_prints_without_what_only_a_screen_has(page):
    assert page.pdf().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        hidden = (
            "[...document.querySelectorAll('.bar, .controls, .copy')]"
            ".every(e => getComputedStyle(e).display === 'none')"
        )
        assert page.run(hidden)
        assert "malloc(160)" in page.text(".source .marked")
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_two_recordings_are_compared(screen, program):
    done = leakscope(
        "report", "later.leakscope", "shop.leakscope", "--html", "two.html", cwd=program
    )
    assert done.returncode == 1, done.stderr
    screen.open(program / "two.html")
    assert screen.count(".processes button") == 2
    assert screen.text("#verdict summary") == "2 of 2 processes leak"
    option(screen, "#graph select", "lost_bytes")
    option(screen, "#graph label:nth-of-type(5) select", "1")
    screen.run("document.querySelector('#graph canvas').focus()")
    screen.press("ArrowDown")
    said = screen.text("#graph .said")
    assert re.search(r"[\d.]+ KiB before, [\d.]+ KiB now: \+[\d.]+ KiB", said), said
    screen.click(".processes li:nth-child(2) button")
    assert screen.run("document.querySelectorAll('.processes button')[1].ariaCurrent") == "true"
    assert screen.console == []


def test_text_without_scripts(screen, program):
    screen.scripts(allowed=False)
    screen.open(program / "run.html", shown=False)
    text = screen.text()
    said = (program / "run.txt").read_text()
    assert f"leakscope: {screen.text('main h1')}" in said.replace("\n  ", " ")
    assert "LOST receipt" in text
    assert "malloc(160)" in text
    assert "need scripts" in text
    assert screen.count("#app[hidden]") == 1
