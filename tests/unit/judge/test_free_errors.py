# SPDX-License-Identifier: Apache-2.0
"""Which recorded wrong frees are believed."""

import dataclasses

import numpy as np
import pytest

from leakscope.judge.free_errors import judge_free_errors
from leakscope.model.frames import Address, Frame
from leakscope.model.free_errors import RecordedFreeError
from leakscope.model.recordings import KIND_NAMES, Coverage, Kind
from unit.recording.recordings import built

DOUBLE = RecordedFreeError(2, 1, 1, 1, 0, 4096, 100, 0, 1, 1, 1, 0, 7)
BY_RECORD = dataclasses.replace(DOUBLE, proof=2)
MISMATCHED = dataclasses.replace(DOUBLE, kind=1, via=1, proof=2, first_node=0)


def frame(function):
    return Frame(Address(0, 16), "/bin/app", None, function)


def judged(
    *errors,
    kind=Kind.NEW,
    kinds=KIND_NAMES,
    by="operator new(unsigned long)",
    free="main",
    own=False,
    **how,
):
    recording = built()
    sites = np.zeros(2, recording.sites.dtype)
    sites["kind"][1] = kind
    coverage = Coverage(**{"dropped": {"unknown_free": 1}} | how)
    process = dataclasses.replace(
        recording.process, ended="killed by SIGABRT", allocator="/lib/libc.so.6"
    )
    recording = dataclasses.replace(
        recording,
        sites=sites,
        coverage=coverage,
        process=process,
        free_errors=errors,
        kinds=kinds,
    )
    return judge_free_errors(
        recording, lambda _: (frame(by), frame("main")), lambda _: (frame(free),), lambda: own
    )


def test_what_the_allocator_shows_needs_no_whole_recording():
    (error,), notes = judged(DOUBLE, dropped={"early": 3, "duplicate": 1, "unknown_free": 90})
    assert (error.kind, error.fatal, notes) == ("double free", True, ())


@pytest.mark.parametrize(
    "how",
    [
        {"dropped": {"unknown_free": 2}},
        {"dropped": {"duplicate": 1}},
        {"min_size": 8},
        {"mode": "sampled"},
        {"troubles": ("left",)},
    ],
)
def test_what_was_recorded_counts_when_all_was(how):
    assert len(judged(BY_RECORD)[0]) == 1
    found, notes = judged(BY_RECORD, **how)
    assert found == ()
    assert "1 free may have been wrong" in notes[0]


def test_a_kind_that_another_source_named_is_no_family():
    kinds = (*KIND_NAMES, "kmalloc")
    for kind in (Kind.MMAP, len(KIND_NAMES)):
        (error,), _ = judged(DOUBLE, kind=kind, kinds=kinds, by="make")
        assert error.allocated_by is None
        found, notes = judged(MISMATCHED, kind=kind, kinds=kinds, by="make")
        assert (found, len(notes)) == ((), 1)


def test_names_overrule_what_the_agent_saw():
    assert len(judged(MISMATCHED)[0]) == 1
    # The program's own operators, and memory that another than the operator took.
    assert judged(MISMATCHED, free="operator delete(void*)") == ((), ())
    for how in ({"own": True}, {"by": "handler"}, {"free": None}, {"dropped": {"duplicate": 1}}):
        found, notes = judged(MISMATCHED, **how)
        assert (found, len(notes)) == ((), 1), how
    by_delete = dataclasses.replace(MISMATCHED, via=2)
    assert judged(by_delete, kind=Kind.MALLOC) == ((), ())
    assert len(judged(by_delete, kind=Kind.MALLOC, by="make")[0]) == 1
    assert judged(by_delete, kind=Kind.MALLOC, by="make", own=True)[0] == ()
