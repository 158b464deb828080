# SPDX-License-Identifier: Apache-2.0
"""Every command's page, from values that tell their right answer: text, plots, no serious fault."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest

from conftest import ROOT
from foreign import SAMPLES
from leakscope.judge.causes import find_causes
from leakscope.judge.trends import judge_series
from leakscope.model.found import Found, FoundVerdict
from leakscope.model.growth import Growth
from leakscope.model.heap import Account, HeapScan, LostSize
from leakscope.model.reachability import Reachability, ScanFacts
from leakscope.model.series import Cut, Series, Subject
from leakscope.model.triage import AccountLine, Holder, Oddity, Triage
from leakscope.model.watched import Watched
from leakscope.report.answers.heaps import of_found, of_heap
from leakscope.report.answers.machines import of_triage
from leakscope.report.answers.watches import of_watch
from leakscope.report.html import to_html
from page.conftest import leakscope
from page.more_kinds import MADE
from page.test_hostile import full_answer

SECOND = 10**9
AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"


def watched() -> Watched:
    """Two hours of 40 processes: one leaks into its limit, one was restarted in the middle."""
    times = np.arange(0, 7200, 10, dtype=np.int64) * SECOND
    noise = np.random.default_rng(1).normal(0, 20_000, len(times))
    series = []
    for pid in range(100, 140):
        grows = pid == 100
        limit = 2.0e9 if grows else None
        subject = Subject(
            "process",
            f"{pid}@1",
            f"worker{pid}",
            pid,
            "/bin/worker",
            0,
            limit,
            "the limit of its cgroup",
        )
        values = 5e8 + noise + (times / SECOND * 1e5 if grows else 0.0)
        cuts = ()
        if pid == 101:
            values = np.where(times < 3600 * SECOND, 9e8, 3e8) + noise
            cuts = (Cut(3600 * SECOND, "restart"),)
        series.append(Series(subject, "anon", "bytes", times, values, cuts))
    trends = judge_series(series)
    return Watched(trends, find_causes(trends), 7200.0, "Cost: nothing.", missing=("a thing",))


def heap() -> HeapScan:
    kinds = dict.fromkeys(Reachability, 0)
    counts = kinds | {Reachability.DEFINITELY_LOST: 3, Reachability.REACHABLE: 7}
    sizes = kinds | {Reachability.DEFINITELY_LOST: 3000, Reachability.REACHABLE: 7000}
    return HeapScan(
        pid=7,
        allocator="glibc 2.36",
        blocks=10,
        counts=counts,
        bytes=sizes,
        sizes=(LostSize(1000, 3, 0),),
        account=Account(50_000, 20_000, 10_000, 6000, 3000, 1000),
        share=1.0,
        facts=ScanFacts("copied", 3.0, 0.1, 50_000, 2),
    )


def triage() -> Triage:
    return Triage(
        total=1 << 30,
        available=1 << 29,
        lines=(
            AccountLine("free", 1 << 29, "used by nobody"),
            AccountLine("programs", 1 << 29, ""),
        ),
        processes=(Holder(9, "big", 1 << 28, 1 << 28, 4, 12, "/bin/big", 5e6),),
        oddities=(Oddity("big grows by 4.8 MiB/s", "leakscope find 9"),),
        notes=("a note",),
        next_step="leakscope find 9",
        seconds=2.0,
    )


def found() -> Found:
    growth = Growth(
        "anon", "bytes", 1e6, 9e6, 10, 30.0, 3e5, 2e5, 4e5, 6, 6, 30.0, 8e6, from_first_look=True
    )
    return Found(
        pid=7,
        name="app",
        program="./app",
        verdict=FoundVerdict.GROWING,
        kind="private memory",
        rate=3e5,
        seconds=30.0,
        stopped_ms=0.0,
        next_step="leakscope watch 7",
        growth=growth,
        unseen=("the heap",),
    )


ANSWERS = {
    "full": full_answer,
    "watch": lambda: of_watch(watched()),
    "heap": lambda: of_heap(heap(), "app"),
    "triage": lambda: of_triage(triage()),
    "find": lambda: of_found(found()),
    **MADE,
}


def show(screen, tmp_path, answer) -> None:
    path = tmp_path / "page.html"
    path.write_text(to_html([answer]), encoding="utf-8")
    screen.open(path)


@pytest.mark.parametrize("name", ANSWERS)
def test_accounts_of_every_kind_add_up(name):
    accounts = ANSWERS[name]().accounts
    assert all(account.adds_up for account in accounts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ANSWERS)
def test_nobody_is_shut_out(screen, tmp_path, name, scheme):
    screen.scheme(scheme)
    show(screen, tmp_path, ANSWERS[name]())
    screen.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    screen.run(AXE.read_text(encoding="utf-8") + "; 1")
    result = json.loads(
        str(
            screen.run(
                "axe.run().then(r => JSON.stringify([r.passes.length, r.violations.map("
                "v => [v.impact, v.id, v.nodes.slice(0, 4).map(n => n.html + n.failureSummary)])]))"
            )
        )
    )
    passed, violations = result
    assert passed > 15
    assert [each for each in violations if each[0] in {"serious", "critical"}] == []
    assert screen.console == []


def test_a_watch_is_a_grid_of_courses(screen, tmp_path):
    show(screen, tmp_path, ANSWERS["watch"]())
    assert screen.text("h1").startswith("1 leak after 2 h: worker100 (pid 100), private memory")
    assert screen.count(".card") == 40
    first = ".card:first-child"
    assert screen.text(f"{first} h3") == "leak worker100 (pid 100)"
    assert screen.count(f"{first} .fit") == 1
    assert screen.count(f"{first} .interval") == 1
    assert screen.count(f"{first} line.limit") == 1
    limit = screen.text(f"{first} .limit-text")
    assert re.search(r"1\.9 GiB, the limit of its cgroup, reached in \d+ ?[hm]", limit), limit
    cut = "[...document.querySelectorAll('.card')].find(c => c.querySelector('.cut'))"
    assert "worker101" in str(screen.run(f"{cut}.innerText"))
    assert screen.run(f"{cut}.querySelector('path.line').getAttribute('d').split('M').length") == 3
    screen.run("document.querySelector('input[type=search]').focus()")
    screen.type("worker13")
    assert screen.count(".card") == 10
    assert screen.count(".findings tbody .badge.alarm") == 0
    assert "could not see a thing" in screen.text("#coverage")


def test_many_gauges_come_in_parts(screen, tmp_path):
    few = of_watch(watched())
    many = replace(few, courses=tuple(few.courses[n % 40] for n in range(500)))
    show(screen, tmp_path, many)
    assert screen.count(".card") == 60
    screen.run("[...document.querySelectorAll('#courses button')].at(-1).click()")
    assert screen.count(".card") == 120


@pytest.mark.parametrize(
    ("name", "headline", "texts"),
    [
        ("heap", "app (pid 7): 3 blocks of 2.9 KiB are lost", ("definitely lost", "glibc 2.36")),
        ("triage", "512 MiB of 1.0 GiB in use (50 %); one thing is odd", ("4.8 MiB/s", "programs")),
        ("find", "GROWING: app (pid 7), private memory", ("293 KiB/s", "the heap")),
        (
            "java dump",
            "shop.hprof: Shop.SESSIONS keeps 800 B",
            ("buffers", "it is cut"),
        ),
        (
            "java dumps",
            "leaking: Shop.SESSIONS (a static",
            ("grew from 100 B", "7 classes did not"),
        ),
        ("java", "1 Java virtual machine here; shop.Main (7) leaks", ("heap after collection",)),
        ("java watch", "shop.Main (7): growing: the Java heap", ("Shop$Session", "3 histograms")),
        (
            "kernel",
            "the kernel holds 107 MiB",
            ("dentry grows", "it was built without; to have it: rebuild"),
        ),
        ("android watch", "com.example: ", ("Native Heap", "device gone")),
        ("tables", "1 leak in 2 looks: shop (pid 7)", ("[heap]", "/proc/7/smaps")),
    ],
)
def test_other_answers(screen, tmp_path, name, headline, texts):
    show(screen, tmp_path, ANSWERS[name]())
    assert screen.text("h1").startswith(headline)
    assert [text for text in texts if text not in screen.text("#app")] == []
    assert screen.count(".command code") >= 1 or name == "java dumps"


def test_who_holds_a_block_is_a_picture(screen, tmp_path):
    show(screen, tmp_path, full_answer())
    chain = screen.run("[...document.querySelectorAll('.holder > *')].map(e => e.innerText)")
    assert chain == ["root", "→", "block of 64 B from main + 8", "→", "this block"]


def test_files_of_other_tools_have_the_same_page(screen, tmp_path):
    sample = SAMPLES / "valgrind-xml" / "vg319-all.xml"
    done = leakscope("report", sample, "--html", "page.html", cwd=tmp_path)
    assert done.returncode in {0, 1, 3}, done.stderr
    screen.open(tmp_path / "page.html")
    assert screen.text("h1") in done.stdout.replace("\n  ", " ")
    assert screen.count("#graph canvas") == 1
    assert screen.console == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", SAMPLES / "hprof/jdk17-live.hprof.gz"),
        ("report", *(SAMPLES / f"jmap-histo/jdk17-histo-{at}.txt" for at in ("before", "after"))),
        ("report", SAMPLES / "nmt/jdk17-nmt-summary.txt"),
        ("kernel",),
        ("java", "--for", "0.2s"),
    ],
)
def test_whatever_is_an_answer_has_a_page(screen, tmp_path, arguments):
    done = leakscope(*arguments, "--html", "page.html", cwd=tmp_path)
    assert done.returncode in {0, 1, 3}, done.stderr
    path = tmp_path / "page.html"
    assert path.stat().st_mode & 0o777 == 0o600
    screen.open(path)
    assert screen.text("h1").split(" (")[0] in " ".join(done.stdout.split())
    assert screen.console == []
    done = leakscope(*arguments, "--html", "no/where.html", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert os.listdir(tmp_path) == ["page.html"]


def test_two_answers_can_arrive_compared(screen, tmp_path):
    """What a diff has to do for a picture of it."""
    before = full_answer()
    grown = {name: 2 * each for name, each in before.profile.measures.items()}
    after = replace(before, profile=replace(before.profile, measures=grown))
    path = tmp_path / "page.html"
    path.write_text(to_html([before, after], compare=(0, 1)), encoding="utf-8")
    screen.open(path)
    assert screen.run("document.querySelector('header select').value") == "1"
    screen.run("document.querySelector('#graph canvas').focus()")
    screen.press("ArrowDown")
    assert "10 B before, 20 B now: +10 B" in screen.text("#graph .said")


def test_what_one_side_does_not_know_is_not_called_grown(screen, tmp_path):
    answer = full_answer()
    known = answer.profile.measures | {"lost_bytes": np.array([9.0, 0.0])}
    now = replace(answer, profile=replace(answer.profile, measures=known))
    path = tmp_path / "page.html"
    path.write_text(to_html([now, answer]), encoding="utf-8")
    screen.open(path)
    assert screen.run("document.querySelector('#graph select').value") == "lost_bytes"
    choose = (
        "(() => { const s = document.querySelector('#graph label:nth-of-type(5) select');"
        " s.value = '1'; s.dispatchEvent(new Event('change')); })()"
    )
    screen.run(choose)
    said = screen.text("#graph .said")
    assert said == "lost bytes: not known of both, so live bytes is compared."
    assert screen.run("document.querySelector('#graph select').value") == "live_bytes"
    screen.run("document.querySelector('#graph canvas').focus()")
    screen.press("ArrowDown")
    assert "10 B before, 10 B now: no change" in screen.text("#graph .said")
    only = replace(answer, profile=replace(answer.profile, measures={"frees": np.ones(2)}))
    path.write_text(to_html([now, only]), encoding="utf-8")
    screen.open(path)
    screen.run(choose)
    assert "cannot be compared" in screen.text("#graph .said")


def test_a_span_is_the_same_time_of_what_it_is_compared_with(screen, tmp_path):
    """The older run was looked at twice as often, and held a byte for each second."""
    answer = full_answer()
    old = replace(
        answer.profile,
        times_ns=np.arange(5) * (10**9 // 2),
        live_bytes=np.arange(5.0),
        courses=np.array([[0, 1, 2, 3, 4]], np.float32),
        resident_bytes=None,
    )
    path = tmp_path / "page.html"
    path.write_text(to_html([replace(answer, profile=old), answer], (0, 1)), encoding="utf-8")
    screen.open(path)
    screen.run(
        "(() => { const r = document.querySelectorAll('#memory input[type=range]')[0];"
        " r.value = 1; r.dispatchEvent(new Event('input')); })()"
    )
    assert screen.text("#memory .said").startswith("1 s to 2 s")
    screen.run("document.querySelector('#graph canvas').focus()")
    screen.press("ArrowDown")
    assert "2 B before, 5 B now" in screen.text("#graph .said")  # 4 - 2, and 9 - 4


def test_nothing_recorded_is_a_page_too(screen, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(to_html([]), encoding="utf-8")
    screen.open(path, shown=False)
    assert screen.text("h1") == "no leak found"
    assert screen.console == []


def test_many_processes_are_a_grid(screen, tmp_path):
    """A build or a prefork server leaves hundreds of recordings."""
    many = [replace(full_answer(), subject=f"worker (pid {n})", profile=None) for n in range(300)]
    path = tmp_path / "page.html"
    path.write_text(to_html(many), encoding="utf-8")
    screen.open(path)
    assert screen.text("#verdict summary") == "300 of 300 processes leak"
    assert screen.count(".processes button") == 200
    assert screen.count("header select option") == 300
    screen.open(f"{path}#250/k")
    assert screen.text("#verdict > p").startswith("worker (pid 249)")
    assert screen.count(".detail") >= 1
