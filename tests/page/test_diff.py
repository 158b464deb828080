# SPDX-License-Identifier: Apache-2.0
"""The page of `leakscope diff`: the same changes and numbers as in text and JSON, red and blue."""

import json
import re

import pytest

from leakscope.words import bytes_text
from page.conftest import leakscope

ROWS = "[...document.querySelectorAll('.findings tbody tr:not(.inside)')]"
# --grew-1 to -3 and --shrank-1 to -3 of frontend/src/page.css, as they are in the light.
RED = {(248, 201, 196), (242, 157, 149), (231, 111, 102)}
BLUE = {(197, 220, 245), (147, 191, 238), (97, 159, 227)}
CELLS = f"{ROWS}.map(r => [...r.querySelectorAll('td')].map(c => c.innerText))"


@pytest.fixture(scope="module")
def page(program, tmp_path_factory):
    """The page and the JSON on a short run and a longer one."""
    folder = tmp_path_factory.mktemp("diff")
    sides = program / "shop.leakscope", program / "later.leakscope"
    done = leakscope("diff", *sides, "--html", "d.html", "--json", cwd=folder)
    assert done.returncode == 1, done.stderr
    text = leakscope("diff", *sides, cwd=folder).stdout
    return folder / "d.html", json.loads(done.stdout), text


def colours(screen) -> set[tuple[int, ...]]:
    """The colours of boxes in the graph."""
    seen = screen.run(
        "(() => { const c = document.querySelector('#graph canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; const n = {}; for (let i = 0; i < d.length;"
        " i += 4) { const k = `${d[i]},${d[i+1]},${d[i+2]}`; n[k] = (n[k] || 0) + 1; }"
        " return Object.keys(n).filter(k => n[k] > 1000); })()"
    )
    return {tuple(int(part) for part in each.split(",")) for each in seen}


def test_changes_are_those_of_text_and_json(screen, page):
    path, told, text = page
    screen.open(path)
    assert f"leakscope: {screen.text('h1')}" in text.replace("\n  ", " ")
    for side in ("before", "after"):
        assert f"{side}: " in screen.text("#verdict > p")
    rows = screen.run(CELLS)
    assert len(rows) == len(told["changes"]) >= 2  # what came and went counts as well
    for row, change in zip(rows, told["changes"], strict=True):
        name = change["source"]["function"]
        assert [row[0].lower(), row[1].splitlines()[0][2:]] == [change["change"], name]
        assert int(row[3].replace(",", "")) == change["count_after"]
        assert row[4] == signed(change["bytes_after"] - change["bytes_before"])
        assert row[2] == bytes_text(change["bytes_after"])
    assert screen.requests == [path.as_uri()]
    assert screen.console == []


def signed(size: int) -> str:
    return ("-" if size < 0 else "+") + bytes_text(abs(size))


def test_what_grew_is_red_and_the_way_round_what_shrank_is_blue(screen, tmp_path):
    baseline(tmp_path / "a.json", 7, 0)
    baseline(tmp_path / "b.json", 7, 700)
    for sides, status, words, told in (
        (["a.json", "b.json"], 1, "1 grown stack (+700 B)", "now: +700 B"),
        (["b.json", "a.json"], 0, "nothing new or grown, 1 shrunk stack (-700 B)", "now: -700 B"),
    ):
        done = leakscope("diff", *sides, "--html", "p.html", cwd=tmp_path)
        assert done.returncode == status, done.stderr
        screen.open(tmp_path / "p.html")
        assert screen.text("h1") == words
        assert screen.run("document.querySelector('header select').value") == "1"
        seen = colours(screen)
        red, blue = seen & RED, seen & BLUE
        assert [bool(red), bool(blue)] == [status == 1, status == 0], seen
        screen.run("document.querySelector('#graph canvas').focus()")
        screen.press("ArrowDown")
        assert told in screen.text("#graph .said")


def test_without_scripts_the_changes_are_text(screen, page):
    screen.scripts(allowed=False)
    screen.open(page[0], shown=False)
    body = screen.text()
    assert "GROWN" in body
    assert "Compared" in body
    assert "processes leak" not in body


def test_a_json_report_and_a_baseline_have_the_same_page(screen, program, tmp_path):
    for name in ("shop", "later"):
        leakscope(
            "report", program / f"{name}.leakscope", "--json", "--report-file", name, cwd=tmp_path
        )
    kept = leakscope("baseline", program / "shop.leakscope", "-o", "kept.json", cwd=tmp_path)
    assert kept.returncode == 0, kept.stderr
    for before in ("shop", "kept.json"):
        done = leakscope("diff", before, "later", "--html", "p.html", cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        screen.open(tmp_path / "p.html")
        assert screen.text("h1").partition("2 grown stacks (+")[1], before
        assert screen.count("#graph canvas") == 1


def test_nothing_to_compare_is_a_page_too(screen, program, tmp_path):
    (tmp_path / "empty.json").write_text(
        json.dumps({"schema": "leakscope-findings/1", "processes": []})
    )
    done = leakscope("diff", "empty.json", "empty.json", "--html", "p.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    screen.open(tmp_path / "p.html")
    assert screen.text("h1") == "nothing new, nothing grown, nothing gone"
    assert screen.count("#graph") == 0
    assert screen.console == []


def baseline(path, stacks: int, more: int) -> None:
    """Write a baseline of hostile names; every seventh stack holds `more` bytes more."""
    evil = "</script><img src=x onerror=window.got=1>\u2028\u202e\x1b[2J"
    told = [
        {
            "stable_fingerprint": f"{n:016x}",
            "kind": f"malloc{evil}",
            "functions": [[f"f{n % 977}", "a.c"], [f"g{n}{evil}", f"{evil}.c"], ["main", "m.c"]],
            "held_bytes": 1000 + more * (n % 7 == 0),
            "held_count": 5,
            "lost_bytes": 0,
            "lost_count": 0,
            "verdict": evil,
        }
        for n in range(stacks)
    ]
    head = {"schema": "leakscope-baseline/1", "knows_held": True, "knows_lost": True}
    path.write_text(json.dumps(head | {"stacks": told}))


def test_hostile_names_of_ten_thousand_stacks_are_text(screen, tmp_path):
    baseline(tmp_path / "a.json", 10_000, 0)
    baseline(tmp_path / "b.json", 10_000, 500)
    done = leakscope("diff", "a.json", "b.json", "--html", "p.html", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    screen.open(tmp_path / "p.html")
    assert screen.text("h1") == "1,429 grown stacks (+698 KiB)"
    assert "1,000 rows" in screen.text("#findings .said")
    assert "10,000" in screen.text("#findings select")
    screen.run("document.querySelectorAll('.opener').forEach(each => each.click())")
    assert "</script><img src=x onerror=window.got=1>\\u2028\\u202e\\x1b[2J" in screen.text("#app")
    assert not re.search("[\u2028\u202e\x1b]", screen.text("#app"))
    assert screen.run("window.got === undefined")
    assert screen.count("#app img, #app script") == 0
    assert screen.console == []


def test_a_page_is_not_written_over_a_side(program, tmp_path):
    before = (program / "shop.leakscope").read_bytes()
    done = leakscope(
        "diff",
        "shop.leakscope",
        "later.leakscope",
        "--html",
        "shop.leakscope",
        cwd=program,
    )
    assert done.returncode == 2
    assert "is read, so it cannot be written as well" in done.stderr
    assert (program / "shop.leakscope").read_bytes() == before
