# SPDX-License-Identifier: Apache-2.0
"""The live screen: what it shows, how it is sorted, and that it never hides an error."""

import asyncio
import os
import pty
import re
import select
import subprocess
import sys
import time

import numpy as np
import pytest
from textual.widgets import DataTable, Static

from leakscope.errors import RecordingError
from leakscope.model.series import Series, Subject, Trend, TrendVerdict
from leakscope.observe.measures import Measure, Pass
from leakscope.tui.watch import LiveScreen
from leakscope.workflow.watching import Judgement, Watch

MIB = 1 << 20
SMALL = Subject("process", "5@1", "small", 5)
BIG = Subject("process", "6@1", "big", 6)
MACHINE = Subject("system", "machine", "this machine")


class Gatherer:
    """Two processes and the machine: the small one grows, the big one rests."""

    only = None
    system = True

    def __init__(self, fail_at=None):
        self.looks, self.fail_at = 0, fail_at

    def gather(self):
        self.looks += 1
        if self.looks == self.fail_at:
            raise RecordingError("the disk is full")
        n = self.looks
        measures = (
            Measure(SMALL, "anon", "bytes", (10 + n) * MIB),
            Measure(BIG, "anon", "bytes", 900 * MIB),
            Measure(MACHINE, "used", "bytes", (2000 + n) * MIB),
            Measure(SMALL, "fds", "count", 7),
        )
        return Pass(n * 1_000_000_000, measures, 2, 0.001, 0.001)


def trend(subject, verdict):
    series = Series(subject, "anon", "bytes", np.array([0]), np.array([1.0]))
    return Trend(series, verdict, 0.9, 3.0 * MIB, None, None, "it grows", "leakscope scan 5")


def names(app):
    table = app.query_one(DataTable)
    return [str(table.get_row_at(n)[3]).partition(",")[0] for n in range(table.row_count)]


async def until(pilot, condition):
    for _ in range(200):
        if condition():
            return
        await pilot.pause(0.02)
    pytest.fail("the screen never came to show it")


def drive(steps, *, over=lambda: False, size=(80, 24), gatherer=None):
    watch = Watch(gatherer or Gatherer(), 0.05)

    async def run():
        app = LiveScreen(watch, over)
        async with app.run_test(size=size) as pilot:
            await steps(app, pilot)
        return app

    app = asyncio.run(run())
    app.finish()
    return app


def test_what_grows_comes_first_sums_after_it_and_sorting_changes_that():
    async def steps(app, pilot):
        await until(pilot, lambda: app.watching.looks > 3 and len(names(app)) == 4)
        assert names(app)[:3] == ["small (pid 5)", "big (pid 6)", "this machine"]
        await pilot.press("s", "s")  # by rate, by growth, by what is held now
        assert names(app)[:2] == ["big (pid 6)", "small (pid 5)"]
        await pilot.press("r")
        assert names(app)[-1] == "big (pid 6)"
        head = str(app.query_one("#head", Static).render())
        assert "2 processes" in head
        assert "in use" in head

    drive(steps)


def test_leaks_alone_with_the_sentence_and_the_next_step():
    async def steps(app, pilot):
        trends = (trend(SMALL, TrendVerdict.LEAK), trend(BIG, TrendVerdict.PLATEAU))
        app.watching.judgement = Judgement(trends, ())
        await until(pilot, lambda: len(names(app)) == 4)
        await pilot.press("l")
        await until(pilot, lambda: names(app) == ["small (pid 5)"])
        row = [str(cell) for cell in app.query_one(DataTable).get_row_at(0)]
        assert row[0] == "leak"
        assert row[2] == "+1.0 MiB/s"
        await pilot.press("up")
        detail = str(app.query_one("#detail", Static).render())
        assert "it grows" in detail
        assert "leakscope scan 5" in detail
        await pilot.press("l")
        await until(pilot, lambda: len(names(app)) == 4)

    drive(steps)


def shown(app):
    """Return what the terminal shows, line by line."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def test_80_by_24_shows_subject_rate_and_next_command_from_the_second_look_on():
    async def steps(app, pilot):
        await until(pilot, lambda: app.watching.looks > 3 and len(names(app)) == 4)
        await pilot.press("home")
        await until(pilot, lambda: any("+1.0 MiB/s" in line for line in shown(app)))
        text = "\n".join(shown(app))
        assert "small (pid 5), private memory" in text
        await until(pilot, lambda: "Next: leakscope scan 5" in "\n".join(shown(app)))

    drive(steps)


def test_enter_opens_a_row_and_closes_it_again():
    own = Subject("process", f"{os.getpid()}@1", "mine", os.getpid())

    class Own(Gatherer):
        def gather(self):
            one = super().gather()
            grown = Measure(own, "anon", "bytes", (50 + 9 * self.looks) * MIB)
            return Pass(one.time_ns, (grown, *one.measures), 3, 0.001, 0.001)

    async def steps(app, pilot):
        await until(pilot, lambda: app.watching.looks > 3 and len(names(app)) == 5)
        await pilot.press("home", "enter")
        await until(pilot, lambda: "threads; descriptors: " in "\n".join(shown(app)))
        text = "\n".join(shown(app))
        assert f"mine (pid {os.getpid()}), private memory" in text
        assert "rose in" in text
        assert f"Next: leakscope scan {os.getpid()}" in text
        await pilot.press("enter")
        await until(pilot, lambda: "threads; descriptors: " not in "\n".join(shown(app)))

    drive(steps, gatherer=Own())


def test_an_empty_table_says_why():
    class Nothing(Gatherer):
        def gather(self):
            self.looks += 1
            return Pass(self.looks * 1_000_000_000, (), 0, 0.001, 0.001)

    async def ended(app, pilot):
        await until(pilot, lambda: app.watching.looks > 2)
        await until(pilot, lambda: "Nothing to show" in "\n".join(shown(app)))

    drive(ended, gatherer=Nothing())

    async def no_leak(app, pilot):
        await until(pilot, lambda: len(names(app)) == 4)
        await pilot.press("l")
        await until(pilot, lambda: "No gauge is called a leak" in "\n".join(shown(app)))

    drive(no_leak)


def test_the_cursor_stays_on_its_gauge():
    async def steps(app, pilot):
        await until(pilot, lambda: len(names(app)) == 4)
        await pilot.press("down")
        table = app.query_one(DataTable)
        assert names(app)[table.cursor_row] == "big (pid 6)"
        await pilot.press("s")
        assert names(app)[table.cursor_row] == "big (pid 6)"

    drive(steps)


def test_it_ends_by_itself_when_the_watch_is_over():
    watch_over = {"now": False}

    async def steps(app, pilot):
        await until(pilot, lambda: app.watching.looks > 2)
        watch_over["now"] = True
        await until(pilot, lambda: not app.is_running or app._exit)

    drive(steps, over=lambda: watch_over["now"])


def test_an_error_of_a_look_is_raised_after_the_screen_is_gone():
    async def steps(app, pilot):
        await until(pilot, lambda: app.failure is not None)

    with pytest.raises(RecordingError, match="the disk is full"):
        drive(steps, gatherer=Gatherer(fail_at=3))


@pytest.mark.parametrize("size", [(20, 4), (80, 24), (300, 100)])
def test_any_size_of_terminal(size):
    async def steps(app, pilot):
        await until(pilot, lambda: len(names(app)) == 4)

    drive(steps, size=size)


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_on_a_real_terminal_it_ends_with_the_report(key):
    """The whole command in a pseudo-terminal: alternate screen, key, report, exit status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "leakscope", "watch", str(os.getpid()), "--every", "0.2s"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm-256color", "LINES": "24"},
    )
    os.close(theirs)
    seen, pressed, deadline = b"", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
        if not pressed and b"private memory" in seen:
            pressed = os.write(ours, key) > 0
    os.close(ours)
    assert process.wait(timeout=30) == 3
    assert b"\x1b[?1049h" in seen
    during, _, after = seen.rpartition(b"\x1b[?1049l")
    colours = (
        rb"\x1b\[(?:[0-9;]*;)?[34]8;(?:2|5);"  # of a theme, that the terminal's own might hide
    )
    assert not re.search(colours, during)
    assert b"leakscope: not enough data" in after
    assert b"Traceback" not in seen
