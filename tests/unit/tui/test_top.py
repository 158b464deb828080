# SPDX-License-Identifier: Apache-2.0
"""The live screen of a traced process: what it shows, its keys at both sizes, hostile names."""

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leakscope._analysis import Analyser
from leakscope.errors import RecordingError, TargetError
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import FrameName
from leakscope.model.holders import Holding, Reference
from leakscope.model.recordings import Process
from leakscope.recording import packed
from leakscope.tui import _top_text as texts
from leakscope.tui import top
from leakscope.tui.top import TopScreen
from leakscope.words import bytes_text
from leakscope.workflow import top_looks
from leakscope.workflow.opening import InputKind, Named
from leakscope.workflow.top_looks import FEW, MANY, Looks, TopLook, open_top

KIB = 1 << 10
PID = 1 << 22  # which no process and no thread ever has
EVIL = "[bold red]evil[/] \x1b[2J\nnew"


def recording(sites=3, *, names=("keep", EVIL, "other")):
    made = RecordingBuilder(Process(pid=PID, exe="/srv/app", ended="running"), duration_ns=10**10)
    for number in range(sites):
        name = names[number] if number < len(names) else f"f{number}"
        node = made.stack([BuiltFrame(name=FrameName(name, "/src/app.c", number + 1))])
        size = (sites - number) * KIB
        made.site(
            node, allocs=2, alloc_bytes=size, frees=1, freed_bytes=0, live_count=1, live_bytes=size
        )
    return made.build()


class Judging:
    def judge(self, recording, most):
        return Analyser(most_findings=most).analyse(recording)

    def forget(self):
        pass


class Fake(Looks):
    """A process whose first site grows by a KiB a look; it ends, or fails, when it is told to."""

    def __init__(self, sites=3, **how):
        named = Named(f"process {PID}", InputKind.TRACED, Path("/nowhere"), PID)
        super().__init__(named.label, named.path, PID, Judging(), named, **how)
        self.base, self.end, self.error = recording(sites), None, None

    alive = True
    pause_s = 0.05

    def look(self, *, judge=False):
        if self.error is not None:
            raise self.error
        self.made += 1
        held = self.base.sites["live_bytes"].astype(float)
        held[1] += self.made * KIB
        rates = np.zeros(len(held))
        rates[1] = 4 * KIB
        ended = None if self.end is None else self.end
        self.still = ended is not None
        self.last = TopLook(
            self.base,
            self.judging.judge(self.base, self.most),
            held,
            np.ones(len(held)),
            self.made * 10**9,
            rates,
            4.0 * KIB,
            ended=ended,
        )
        self._judged_most = self.most
        return self.last


def shown(app):
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def until(app, pilot, *texts, absent=()):
    for _ in range(300):
        seen = shown(app)
        if all(text in seen for text in texts) and not any(text in seen for text in absent):
            return seen
        await pilot.pause(0.02)
    pytest.fail(f"never came: {texts}, without {absent}; last:\n{shown(app)}")


def drive(steps, *, size=(80, 24), looks=None, unicode=True):
    looks = looks or Fake()

    async def run():
        app = TopScreen(looks, lambda each: Analyser().analyse(each), unicode=unicode)
        async with app.run_test(size=size) as pilot:
            await steps(app, pilot)
        return app

    app = asyncio.run(run())
    app.finish()
    return app


SIZES = pytest.mark.parametrize("size", [(80, 24), (200, 60)])


@SIZES
def test_sites_with_bytes_rate_verdict_stack_and_the_cost(size):
    async def steps(app, pilot):
        wanted = [f"app (pid {PID})", "keep at app.c:1", "+4.0 KiB/s", "% of a core", "so far: "]
        seen = await until(app, pilot, *wanted, "#0  keep at /src/app.c:1")
        (titles,) = (line for line in seen.splitlines() if line.startswith(" verdict "))
        assert ("blocks" in titles) == (size[0] == 200)
        await pilot.press("down", "down")
        await until(app, pilot, "#0  other at /src/app.c:3")

    drive(steps, size=size)


@pytest.mark.parametrize(("unicode", "mark"), [(True, "░"), (False, "-")])
def test_resident_memory_lies_behind_what_is_held(unicode, mark):
    look = Fake().look()
    held = float(look.held.sum())
    seconds = np.arange(10, dtype=np.int64) * 10**9

    def chart(resident):
        line = replace(
            look.recording.timeline,
            times_ns=seconds,
            live_bytes=np.full(10, held),
            rss_bytes=None if resident is None else np.full(10, resident, np.int64),
        )
        seen = replace(look, recording=replace(look.recording, timeline=line), at_ns=10**10)
        return texts.chart(seen, 40, 4, unicode=unicode).plain.splitlines()

    lines = chart(2 * held)
    assert lines[0].split()[0] == bytes_text(2 * held).split()[0]
    assert f"{mark} resident" in lines[1]
    assert [line[13:].count(mark) for line in lines] == [27, 27, 0, 0]
    for none in (None, 0, 100 * held):  # not read, and so much that nothing else would be seen
        assert mark not in "".join(chart(none))


@pytest.mark.parametrize("changing", [False, True])
def test_another_look_is_no_reason_to_lay_out_the_screen(changing, monkeypatch):
    laid_out = []
    if changing:  # what is said of a site that grows, at each look
        looks = Fake()
        monkeypatch.setattr(
            texts, "detail", lambda *_: ["keep at app.c:1", f"after {looks.made} looks"]
        )
    else:
        looks = None

    async def steps(app, pilot):
        await until(app, pilot, "keep at app.c:1")
        before = shown(app)
        while shown(app) == before:  # the first text of a site was laid out
            await pilot.pause(0.05)
        lay_out = app.screen._refresh_layout

        def seen(*how, **more):
            laid_out.append(app.looks.made)
            return lay_out(*how, **more)

        app.screen._refresh_layout = seen
        for _ in range(5):
            before = shown(app)
            while shown(app) == before:
                await pilot.pause(0.05)

    drive(steps, looks=looks)
    assert laid_out == []


def test_the_end_does_not_wait_for_a_long_look():
    looks, go_on = Fake(), threading.Event()
    look = looks.look

    def slow(**how):
        found = look(**how)
        if looks.made > 1:
            go_on.wait(60)
        return found

    looks.look = slow

    async def steps(app, pilot):
        await until(app, pilot, "keep at app.c:1")
        await pilot.press("r", "q")

    begun = time.monotonic()
    try:
        drive(steps, looks=looks)
        assert time.monotonic() - begun < 50
    finally:
        go_on.set()


def test_names_of_a_hostile_binary_are_text():
    async def steps(app, pilot):
        await until(app, pilot, "keep at app.c:1")
        await pilot.press("down")
        seen = await until(app, pilot, "#0  [bold red]evil[/] \\x1b[2J\\nnew at /src/app.c:2")
        assert "\x1b" not in seen

    drive(steps)


@SIZES
def test_filter_order_and_back(size):
    async def steps(app, pilot):
        await until(app, pilot, "keep at app.c:1", "other at app.c:3")
        await pilot.press("slash", *"OTH")
        await until(app, pilot, "filter: OTH", "1 of 3 sites", absent=["keep at app.c:1"])
        assert app.looks.most == MANY
        await pilot.press("enter", "s")  # a key again, and no letter of the filter
        await until(app, pilot, "filter: OTH ", f"process {PID}", absent=["OTHs"])
        await pilot.press("escape")
        await until(app, pilot, "3 of 3 sites")
        assert app.looks.most == FEW
        await pilot.press("o")
        await until(app, pilot, "sorted by: held")
        await pilot.press("slash", *"src/app.c:1")
        await until(app, pilot, "filter: src/app.c:1", "1 of 3 sites")
        await pilot.press("escape", "escape")
        await pilot.press("slash", *"nothing such", "enter")
        await until(app, pilot, "No site matches")

    drive(steps, size=size)


@SIZES
def test_scan_holders_dump_and_pause(size, monkeypatch):
    asked = []
    held = (Holding("cache in app", 1, 0x1000, (Reference("cache in app", 0),)),)
    monkeypatch.setattr(top.top_actions, "scan", lambda pid, path: asked.append(pid) or recording())
    monkeypatch.setattr(
        top.top_actions, "held_by", lambda pid, path, site: (recording(), held, site * 10)
    )
    monkeypatch.setattr(top.top_actions, "dump", lambda pid: Path("/tmp/a\nb.leakscope"))
    monkeypatch.setattr(top.top_actions, "switch", lambda pid: True)

    async def steps(app, pilot):
        await until(app, pilot, "keep at app.c:1")
        await pilot.press("s")
        await until(app, pilot, "leakscope: ", "Esc goes back")
        assert asked == [PID]
        await pilot.press("escape")
        await until(app, pilot, "found no lost block here")
        await pilot.press("down", "down", "h")
        await until(app, pilot, "1 of 30 looked at are held by", "cache in app")
        await pilot.press("escape", "d")
        await until(app, pilot, "written: /tmp/a\\nb.leakscope")
        await pilot.press("p")
        await until(app, pilot, "recording is paused")

    drive(steps, size=size)


def test_one_thing_at_a_time_its_errors_are_told_and_leaving_ends_it(monkeypatch):
    go_on, cancelled = threading.Event(), []

    def scan(pid, path):
        go_on.wait(30)
        raise TargetError(f"process {PID} is\nanother user's", hint="Be root.")

    def cancel(wanted):
        cancelled.append(wanted)
        go_on.set()

    monkeypatch.setattr(top.top_actions, "scan", scan)
    monkeypatch.setattr(top.top_actions, "cancel", cancel)

    async def steps(app, pilot):
        await until(app, pilot, "keep at app.c:1")
        await pilot.press("s", "d")
        await until(app, pilot, "Wait: something is being done")
        go_on.set()
        await until(app, pilot, f"process {PID} is\\nanother user's Be root.")
        go_on.clear()
        await pilot.press("s")

    drive(steps)
    assert cancelled == [True, False]


def test_an_ended_process_keeps_its_last_state_and_cannot_be_scanned():
    looks = Fake()

    async def steps(app, pilot):
        await until(app, pilot, "keep at app.c:1")
        looks.end = f"process {PID} has ended (exited)"
        await until(app, pilot, f"ENDED: process {PID} has ended (exited)", "keep at app.c:1")
        await pilot.press("s")
        await until(app, pilot, "Nothing moves here")

    drive(steps, looks=looks)


def test_without_unicode_all_is_ascii():
    async def steps(app, pilot):
        seen = await until(app, pilot, "keep at app.c:1", "held ", "% of a core", " verdict ")
        lines = seen.splitlines()
        assert "\n".join([*lines[:9], lines[-2]]).isascii()

    drive(steps, unicode=False)


@pytest.mark.parametrize("size", [(12, 4), (300, 100)])
def test_any_size_and_thousands_of_sites(size):
    async def steps(app, pilot):
        await pilot.pause(0.3)
        await pilot.press("end", "pageup", "home", "enter", "escape", "q")

    drive(steps, size=size, looks=Fake(3000))


def test_an_error_of_the_first_look_is_raised_after_the_screen():
    looks = Fake()
    looks.error = RecordingError("it is damaged")

    async def steps(app, pilot):
        for _ in range(100):
            await pilot.pause(0.02)

    with pytest.raises(RecordingError, match="it is damaged"):
        drive(steps, looks=looks)


# -- looking --------------------------------------------------------------------


def test_a_packed_recording_is_a_still_picture(tmp_path):
    path = tmp_path / "a.leakscope"
    packed.write(replace(recording(), process=Process(pid=PID, ended="exited")), path)
    looks = open_top(str(path), Judging())

    look = looks.look()
    assert looks.still
    assert look.held.sum() == 6 * KIB
    assert look.ended is None  # nobody looked at a process
    path.unlink()
    looks.most = MANY
    assert len(looks.look().findings.findings) == 3


@pytest.mark.parametrize(
    ("full", "brief", "paint", "dear", "pause", "verdict"),
    [
        (0.005, 0.0, 0.005, False, 1.0, 1.0),
        (0.1, 0.0, 0.0, False, 5.0, 5.0),  # of a sampled recording, say
        (0.12, 0.004, 0.006, True, 1.0, 12.0),
        (0.5, 0.02, 0.008, True, 2.0, 500 / 6),
        (50.0, 0.0, 0.0, False, 300.0, 300.0),
    ],
)
def test_the_pace_keeps_the_cost_below_a_fiftieth(full, brief, paint, dear, pause, verdict):
    looks = Looks("it", None, 1, Judging(), Named("it", InputKind.TRACED))
    for each, value in ((looks._full, full), (looks._brief, brief), (looks._paint, paint)):
        for _ in range(5):
            each.add(value)
    looks._base = object() if dear else None
    assert looks.pause_s == pytest.approx(pause)
    assert looks.judge_s == pytest.approx(verdict)
    assert looks.core_share <= 0.02 or looks.pause_s == 300


def test_a_recording_that_cannot_be_read_for_a_while_keeps_the_last_state(monkeypatch, tmp_path):
    fresh = recording()
    looks = Fake()
    read = iter([fresh, RecordingError("it is torn"), fresh])

    def reading(_):
        one = next(read)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(top_looks.live, "read", reading)
    monkeypatch.setattr(top_looks, "find_live_file", lambda pid: object())
    monkeypatch.setattr(Looks, "_follow", lambda self: False)
    assert Looks.look(looks).trouble is None
    later = Looks.look(looks)
    assert later.trouble == "it is torn"
    assert later.held.sum() == fresh.sites["live_bytes"].sum()
    assert not looks.still
    assert Looks.look(looks).trouble is None
