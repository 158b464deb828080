# SPDX-License-Identifier: Apache-2.0
"""Names on the page come from hostile binaries: none of them becomes more than text."""

import re
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from leakscope.model.answers import (
    AccountRow,
    AccountTable,
    Answer,
    FrameText,
    GaugeCourse,
    Lives,
    Profile,
    Result,
    Signal,
    Stack,
    Step,
    Tone,
)
from leakscope.model.findings import Verdict
from leakscope.model.holders import Holding, Reference
from leakscope.report.answers.findings import of_findings
from leakscope.report.html import to_html
from page.more_kinds import MADE
from unit.report.built_findings import STACK, finding, findings

EVIL = (
    "<img src=x onerror=window.got=2><svg/onload=window.got=3>\"'><b onclick=window.got=6>"
    "</script><script>window.got=1</script>{{7*7}}${window.got=4}`javascript:window.got=5//"
    "\u202e</title></style></textarea><!--<script>"
)
KEPT = {"tone", "unit"}  # ours alone, never a name


def poisoned(value, name=""):
    """The same with `EVIL` in every text; whatever field is added later is tried as well."""
    if isinstance(value, Tone) or name in KEPT:
        return value
    if isinstance(value, str):
        return EVIL + value
    if isinstance(value, tuple):
        return tuple(poisoned(each) for each in value)
    if isinstance(value, dict):
        return value
    if is_dataclass(value):
        return replace(
            value, **{f.name: poisoned(getattr(value, f.name), f.name) for f in fields(value)}
        )
    return value


def full_answer() -> Answer:
    """An answer in which nothing is empty."""
    places = (
        FrameText("(all)"),
        FrameText("main", "a.c", 1, "/bin/a"),
        FrameText("f", "a.c", 2, "/bin/a"),
    )
    stack = Stack("at", (places[2], places[1]), 0)
    profile = Profile(
        places=places,
        parents=np.array([0, 0, 1], np.int32),
        place_of=np.array([0, 1, 2], np.int32),
        numbers=np.array([1, 2], np.int32),
        node_of=np.array([2, 1], np.int32),
        kind_of=np.zeros(2, np.uint8),
        kinds=("malloc",),
        verdicts=np.array([1, 0], np.uint8),
        verdict_names=("", "lost"),
        measures={"live_bytes": np.array([9.0, 1.0]), "allocs": np.array([3.0, 1.0])},
        times_ns=np.array([0, 10**9, 2 * 10**9]),
        live_bytes=np.array([1.0, 5.0, 10.0]),
        courses=np.array([[1, 4, 9]], np.float32),
        course_of=np.array([0], np.int32),
        resident_bytes=np.array([10.0, 20.0, 30.0]),
    )
    result = Result(
        key="k",
        verdict="lost",
        tone=Tone.ALARM,
        title="f",
        where="a.c:2",
        sentence="s",
        amount=9,
        amount_text="9 B",
        count=1,
        rate=1.0,
        remark="r",
        step=Step("do: leakscope x", "leakscope x"),
        evidence=(Signal("for", supports=True), Signal("against", supports=False)),
        stacks=(stack,),
        source=((1, "int main"), (2, "f()")),
        source_line=2,
        site=0,
        lives=Lives((1, 2), (0, 3), (4, 0), 1e6, 2e6),
        holders=(Holding("root", 1, 1, (Reference("root", 0), Reference(None, 8, 2, 64))),),
        lines=("line",),
        identities=("id",),
    )
    course = GaugeCourse(
        name="gauge",
        subject="subject",
        verdict="leak",
        tone=Tone.ALARM,
        unit="bytes",
        times_ns=np.array([0, 10**9, 2 * 10**9]),
        values=np.array([1.0, 2.0, 3.0]),
        sentence="s",
        step=Step("do: leakscope x", "leakscope x"),
        cuts=((10**9, "restart"),),
        fit=((0, 1.0, 1.0, 1.0), (2 * 10**9, 3.0, 2.5, 3.5)),
        limit=4.0,
        limit_text="limit",
        facts=("fact",),
    )
    return Answer(
        command="report",
        subject="a (pid 1)",
        tone=Tone.ALARM,
        headline="headline",
        about=("about",),
        warnings=("warning",),
        steps=(Step("do: leakscope x", "leakscope x"),),
        accounts=(AccountTable("t", "bytes", (AccountRow("n", 9, "w", Tone.ALARM),), 9, "total"),),
        results=(result, replace(result, key="k2", quiet="why", site=None)),
        courses=(course,),
        coverage=(("name", "text"),),
        profile=profile,
    )


def nothing_ran(page) -> None:
    assert page.run("window.got === undefined")
    assert page.count("img, b, #app script, svg[onload]") == 0
    assert [each for each in page.requests if not each.endswith(".html")] == []
    assert page.console == []


@pytest.mark.parametrize("alone", [True, False])
def test_scripts_in_every_field_stay_text(screen, tmp_path, alone):
    answer = poisoned(full_answer())
    assert all("got=1" in str(getattr(answer, n)) for n in ("headline", "profile", "courses"))
    path = tmp_path / "evil.html"
    path.write_text(to_html([answer] if alone else [answer, answer]), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert "<script>window" not in text
    assert "<img" not in text
    screen.scripts(allowed=False)
    screen.open(path, shown=False)
    assert "onerror=window.got=2" in screen.text()
    assert screen.count("main img, main script, main svg") == 0
    screen.scripts(allowed=True)
    screen.open(path)
    for box in screen.run("[...document.querySelectorAll('#app select')].map((_, n) => n)"):
        screen.run(
            f"(() => {{ const s = document.querySelectorAll('#app select')[{box}]; if (!s) return;"
            " s.selectedIndex = s.options.length - 1; s.dispatchEvent(new Event('change')); })()"
        )
    screen.run("document.querySelectorAll('.opener').forEach(each => each.click())")
    screen.run("document.querySelectorAll('button').forEach(each => each.click())")
    screen.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    screen.click("#graph canvas", 60, 28)
    assert "onerror=window.got=2" in screen.text("#app")
    nothing_ran(screen)


@pytest.mark.parametrize("name", MADE)
def test_hostile_names_in_all_that_commands_find(screen, tmp_path, name):
    path = tmp_path / "evil.html"
    path.write_text(to_html([MADE[name](EVIL + "\x1b[31m")]), encoding="utf-8")
    assert "<script>window" not in path.read_text(encoding="utf-8")
    screen.scripts(allowed=False)
    screen.open(path, shown=False)
    assert "onerror=window.got=2" in screen.text()
    assert screen.count("main img, main script, main svg") == 0
    screen.scripts(allowed=True)
    screen.open(path)
    screen.run("document.querySelectorAll('.opener').forEach(each => each.click())")
    screen.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    text = screen.text("#app")
    assert "onerror=window.got=2" in text
    assert not re.search("[\x1b\u202e]", text)
    nothing_ran(screen)


def test_hostile_names_of_a_recording_arrive_as_text(screen, tmp_path):
    evil = "f<script>window.got=1</script>\x1b[31m\u202e\udc80"
    named = tuple(replace(f, function=evil, file=f"/src/{evil}.c", module_path=evil) for f in STACK)
    found = findings(
        finding(stack=named, source=named[0], sentence=evil, verdict=Verdict.LEAKING),
        headline=evil,
    )
    path = tmp_path / "evil.html"
    held = {3: [Holding(evil, 1, 1, (Reference(evil, 0),))]}
    answer = of_findings(found, label=evil, holders=held)
    path.write_bytes(to_html([answer]).encode(errors="backslashreplace"))
    screen.open(path)
    text = screen.text("#app")
    assert "f<script>window.got=1</script>\\x1b[31m\\u202e\\udc80" in text
    assert not re.search("[\x1b\u202e]", text)
    nothing_ran(screen)


def test_the_policy_lets_no_other_script_run_and_nothing_be_fetched(screen, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(to_html([full_answer()]), encoding="utf-8")
    screen.open(path)
    screen.run(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.got = 1';"
        " document.body.append(s); })()"
    )
    screen.run(
        "(() => { const s = document.createElement('button'); s.setAttribute('onclick',"
        " 'window.got = 2'); document.body.append(s); s.click(); })()"
    )
    assert screen.run("window.got === undefined")
    refused = screen.run("fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'refused')")
    assert refused == "refused"
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', path.read_text())[1]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_a_page_that_was_cut_short_shows_its_text(screen, tmp_path):
    path = tmp_path / "cut.html"
    whole = to_html([full_answer()])
    data = re.search(r'id="data">([^<]*)<', whole)[1]
    path.write_text(whole.replace(data, data[: len(data) // 2 // 4 * 4]), encoding="utf-8")
    screen.open(path, shown=False)
    screen.until("document.querySelector('p.warning')?.innerText.includes('cannot draw')")
    assert "headline" in screen.text("h1")
