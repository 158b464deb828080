# SPDX-License-Identifier: Apache-2.0
"""The course of resident memory that goes into a recording."""

import os
import time
from pathlib import Path

import numpy as np

from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Timeline
from leakscope.trace import _resident
from leakscope.trace._resident import ResidentCourses

PATH = Path("/nowhere/1.0.live")


def recording(*times):
    build = RecordingBuilder(duration_ns=10**10)
    rows = len(times)
    build.timeline(
        Timeline(
            times_ns=np.array(times, np.int64),
            live_bytes=np.zeros(rows, np.int64),
            live_counts=np.zeros(rows, np.int64),
            site_bytes=np.zeros((rows, 1), np.float32),
            site_counts=np.zeros((rows, 1), np.uint32),
        )
    )
    return build.build()


def looked(sizes, monkeypatch):
    courses = ResidentCourses()
    for now, size in enumerate(sizes, 1000):
        monkeypatch.setattr(time, "clock_gettime_ns", lambda _, now=now: now)
        monkeypatch.setattr(_resident, "read_private_resident", lambda _, size=size: size)
        courses.look(PATH, 1)
    return courses


def test_each_row_of_the_timeline_has_what_was_seen_around_it(monkeypatch):
    courses = looked([100, 200, 400], monkeypatch)

    found = courses.take(PATH, recording(0, 1, 2), 1000)

    assert found.timeline.rss_bytes.tolist() == [100, 200, 400]


def test_what_is_kept_is_bounded_and_spans_the_whole_run(monkeypatch):
    courses = looked(list(range(5000)), monkeypatch)

    found = courses.take(PATH, recording(0, 2500, 4999), 1000)

    first, middle, last = found.timeline.rss_bytes.tolist()
    assert first < 64
    assert abs(middle - 2500) < 64
    assert last > 4900
    assert len(courses._courses) == 0


def test_a_name_that_is_used_again_begins_anew(monkeypatch):
    courses = looked([100], monkeypatch)
    courses.forget(PATH)

    assert courses.take(PATH, recording(0), 1000).timeline.rss_bytes is None


def test_a_process_that_is_gone_leaves_no_value():
    courses = ResidentCourses()
    courses.look(PATH, 1 << 22)
    assert courses.take(PATH, recording(0), 0).timeline.rss_bytes is None
    courses.look(PATH, os.getpid())
    assert courses.take(PATH, recording(0), 0).timeline.rss_bytes[0] > 1 << 20
