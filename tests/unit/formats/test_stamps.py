# SPDX-License-Identifier: Apache-2.0
"""What services put before every line of a log changes nothing of what is read."""

import itertools

import pytest

from foreign import SAMPLES, written
from leakscope.formats import is_table, read_foreign, read_tables
from leakscope.formats._stamps import without_stamps

_STAMPS = {
    "GitHub": "2026-11-30T17:06:11.4180937Z ",
    "gh run view --log": "build\tRun tests\t2026-11-30T17:06:11.4180937Z ",
    "GitLab": "2026-11-30T17:06:11.418093Z 00O ",
    "Jenkins": "[2026-11-30T17:06:11.418Z] ",
    "Jenkins, clock": "17:06:11  ",
    "clock": "[17:06:11] ",
    "kubectl --timestamps": "2026-11-30T17:06:11.418093712Z ",
    "kubectl --prefix": "[pod/app-6f7c5b7d9-abcde/app] ",
    "container runtime": "2026-11-30T17:06:11.418093712Z stderr F ",
    "journal": "Nov 30 17:06:11 host app[1234]: ",
    "journal, iso": "2026-11-30T17:06:11+0000 host app[1234]: ",
    "Heroku": "2026-11-30T17:06:11.418093+00:00 app[web.1]: ",
    "ts": "Nov 30 17:06:11 ",
    "logging": "2026-11-30 17:06:11,123 ",
    "compose": "app-1  | ",
    "ctest": "12: ",
    "ctest on GitHub": "2026-11-30T17:06:11.4180937Z 12: ",
    "a file's name": "test-suite.log: ",
    "mail": "> > ",
    "indent": "    ",
    "colour": "\x1b[0;31m",
    "progress": "10 %\r",
}
_SAMPLES = (
    "mtrace/glibc236-pie.mtrace",
    "memwatch/memwatch271-five-runs.log",
    "libleak/readme.log",
    "drmemory/warnings-ng-results.txt",
    "android/native-heap-v1.1.txt",
    "android/dumpsys-unreachable.txt",
    "lsan/gcc12-asan.txt",
    "valgrind-text/vg319-abort.txt",
    "jmap-histo/jdk17-histo-after.txt",
    "nmt/jdk17-nmt-summary.txt",
    "process-memory/pmap-x.txt",
    "process-memory/smaps.txt",
    "process-memory/free-series.txt",
    "kernel-proc/rhcos4-buddyinfo.txt",
    "kernel-proc/rhcos4-vmallocinfo.txt",
    "kernel-proc/slabtop-o-6.18.txt",
)


def _told(path):
    if is_table(path):
        return [(look.rows, look.total, look.measures, look.facts) for look in read_tables(path)]
    return [
        (len(r.sites), int(r.sites["live_bytes"].sum()), int(r.sites["live_count"].sum()))
        for r in read_foreign(path) or ()
    ]


@pytest.mark.parametrize("sample", _SAMPLES)
@pytest.mark.parametrize("stamp", _STAMPS.values(), ids=_STAMPS)
def test_a_stamp_changes_nothing(tmp_path, sample, stamp):
    text = (SAMPLES / sample).read_text(errors="replace")
    stamped = "".join(stamp + line for line in text.splitlines(keepends=True))
    plain = _told(SAMPLES / sample)
    assert plain
    assert _told(written(tmp_path, stamped)) == plain


@pytest.mark.parametrize(
    "sample", ["drmemory/warnings-ng-results.txt", "process-memory/pmap-x.txt"]
)
def test_grep_numbers_lines(tmp_path, sample):
    lines = (SAMPLES / sample).read_text(errors="replace").splitlines(keepends=True)
    numbered = "".join(f"{number}:{line}" for number, line in enumerate(lines, 1))
    assert _told(written(tmp_path, numbered)) == _told(SAMPLES / sample)


def _cleaned(data, size):
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(without_stamps(pieces))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_pieces_may_end_anywhere(size):
    lines = [f"line {n} of\tmany\r\n".encode() for n in range(3000)]
    stamped = b"".join(b"2026-11-30T17:06:11Z " + line for line in lines)
    assert _cleaned(stamped + b"2026-11-30T17:06:11Z cut", size) == b"".join(lines) + b"cut"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"17:06:11 a\n17:06:12 b\n",  # too few to be a service's
        b"malloc: 0x1000, 32\nmalloc: 0x2000, 32\nmalloc: 0x3000, 8\nmalloc: 0x4000, 8\n",
        b"[main.c:51] malloc: 0x1000, 32\n" * 9,
        b"0x401234: malloc 0x1000 32\n" * 9,
        b"E/libc     ( 3500): a\n" * 9,
        b"17:06:11 \0binary\n" * 9,
    ],
)
def test_what_has_no_stamp_is_left_alone(data):
    assert _cleaned(data, 1 << 16) == data


def test_a_line_of_any_length_is_bounded():
    biggest = 0
    for piece in without_stamps(
        b"17:06:11 x\n" * 5000 if n == 0 else b"y" * 65536 for n in range(200)
    ):
        biggest = max(biggest, len(piece))
    assert biggest < 3 << 20


def _seconds(number):
    return 17 * 3600 + number * 60


_TIMED = {
    "GitHub": lambda s: f"2026-11-30T{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}.4180937Z ",
    "Jenkins": lambda s: f"[2026-11-30T{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}.418Z] ",
    "clock": lambda s: f"[{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}] ",
    "ts": lambda s: f"Nov 30 {s // 3600:02}:{s // 60 % 60:02}:{s % 60:02} ",
    "journal": lambda s: f"Nov 30 {s // 3600:02}:{s // 60 % 60:02}:{s % 60:02} host app[12]: ",
    "since the start": lambda s: f"[{s:7}.3s] ",
    "since 1970": lambda s: f"{1_796_140_000 + s}.25 ",
    "ctest on GitHub": lambda s: (
        f"2026-11-30T{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}.41Z 12: "
    ),
}


@pytest.mark.parametrize("service", _TIMED)
@pytest.mark.parametrize(
    ("sample", "place"),
    [("free-series.txt", 0), ("vmstat-w.txt", 2), ("meminfo-series.txt", 0)],
)
def test_the_times_of_a_log_are_those_of_its_looks(tmp_path, service, sample, place):
    lines = (SAMPLES / "process-memory" / sample).read_text().splitlines(keepends=True)
    stamped, number = "", 0
    for at, line in enumerate(lines):
        number += at > place and (sample.startswith("vmstat") or line.split()[:1] == ["total"])
        number += at > place and line.startswith("MemTotal")
        stamped += _TIMED[service](_seconds(number)) + line
    looks = read_tables(written(tmp_path, stamped))
    assert len(looks) >= 2
    times = [look.time_ns for look in looks]
    assert [b - a for a, b in itertools.pairwise(times)] == [60 * 10**9] * (len(times) - 1)


def test_lines_out_of_order_are_no_day_later(tmp_path):
    text = (SAMPLES / "process-memory" / "free-series.txt").read_text()
    stamps = itertools.cycle(["23:59:58 ", "23:59:57 ", "00:00:02 "])
    looks = read_tables(
        written(tmp_path, "".join(next(stamps) + line for line in text.splitlines(True)[:3]))
    )
    assert looks[0].time_ns is not None
    assert looks[0].time_ns < 2 * 86_400 * 10**9
