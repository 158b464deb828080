# SPDX-License-Identifier: Apache-2.0
"""leakscope.h's log: replayed, by process, cut and damaged."""

import numpy as np
from hypothesis import given, settings

from foreign import damaged, edits, findings_of, held, notes, one, written
from leakscope.formats import foreign_format, read_foreign

LOG = """\
leakscope-log 1 pid 77
+ 10 a000 100 malloc 7 lose src/my app.c
+ 20 a100 100 malloc 7 lose src/my app.c
> 30 b000 0 33 realloc 9 grow b.c
> 40 b100 b000 66 realloc 9 grow b.c
! 45 0 9999999 calloc 11 big b.c
- 50 a100
- 60 dead
+ 70 a000 8 new 0 ? ?
. 2000000 0
- 2000005 b100
"""


def test_what_it_holds_and_where(tmp_path):
    recording = one(written(tmp_path, LOG))
    assert held(recording) == (8, 1)  # of a000 only the second is there
    assert recording.process.pid == 77
    assert recording.process.ended == "exited"
    assert recording.coverage.alloc_events == 5
    assert int(recording.deaths.sum()) == 4
    text = notes(recording)
    for part in ("not allocated here: 1 block", "that failed", "addresses came again"):
        assert part in text
    assert foreign_format(written(tmp_path, LOG)) == "a log of leakscope.h"


def test_functions_lines_and_kinds(tmp_path):
    recording = one(written(tmp_path, "\n".join(LOG.splitlines()[:3]) + "\n"))
    (found,) = findings_of(recording).findings
    assert (found.live_bytes, found.live_count, found.kind) == (200, 2, "malloc")
    inner = found.stack[0]
    assert (inner.function, inner.file, inner.line) == ("lose", "src/my app.c", 7)


def test_processes_and_a_cut_end(tmp_path):
    text = LOG + "leakscope-log 1 pid 78 forked\n+ 5 c000 40 calloc 3 f b.c\n- 9 b100\n+ 9 d000 1"
    first, second = read_foreign(written(tmp_path, text))
    assert (first.process.pid, second.process.pid) == (77, 78)
    assert held(second) == (40, 1)
    assert "cut" in notes(second)
    assert "forked process" in notes(second)
    assert "has no end" in notes(second)


def test_a_loop_that_never_frees_is_told_from_one_that_does(tmp_path):
    lines = ["leakscope-log 1 pid 5"]
    for number in range(2000):
        time = number * 5000
        lines.append(f"+ {time} {0x10000 + number * 64:x} 64 malloc 10 leak server.c")
        lines.append(f"+ {time + 1} f{number:07x} 500 malloc 20 work server.c")
        lines.append(f"- {time + 900} f{number:07x}")
    recording = one(written(tmp_path, "\n".join(lines) + "\n. 10000000 0\n"))
    found = {each.stack[0].function: each for each in findings_of(recording).findings}
    assert found["leak"].verdict in {"leaking", "growing"}
    assert found["leak"].rate > 0
    assert "work" not in found or found["work"].verdict == "churn"
    assert len(recording.timeline.times_ns) <= 64
    assert np.all(np.diff(recording.timeline.times_ns) > 0)


def test_lines_behind_the_prefixes_of_services(tmp_path):
    text = "".join(f"2026-01-02T03:04:05.6Z {line}\n" for line in LOG.splitlines())
    assert held(one(written(tmp_path, text))) == (8, 1)


@settings(max_examples=30, deadline=None)
@given(edits(b"+ ", b"> ", b"\n", b"- ", b"99999999999999999999", b"ffffffffffffffff", b"pid "))
def test_damage_is_survived(tmp_path_factory, edited):
    damaged(tmp_path_factory, LOG.encode(), edited)
