# SPDX-License-Identifier: Apache-2.0
"""Sources that know what is held, and not how long blocks live: nothing else is claimed."""

import json

import pytest

from leakscope._analysis import analyse
from leakscope.cli import scan
from leakscope.judge.identities import stable_identity
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.columns import Column
from leakscope.model.findings import Verdict
from leakscope.model.frames import Address, Frame, FrameName
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage
from leakscope.report.json_ import to_json
from leakscope.report.processes import render_processes


def named(*names, **kw):
    return [BuiltFrame(name=FrameName(name, "/src/Cache.java", 7, **kw)) for name in names]


def held(*sizes, count=None, reach=None):
    """A recording of a source that tells bytes, and blocks where `count` is given."""
    build = RecordingBuilder(coverage=Coverage(mode="a heap dump"))
    for number, size in enumerate(sizes):
        counters = {"live_bytes": size} | ({} if count is None else {"live_count": count})
        node = build.stack(named(f"f{number}", "run", class_name="shop.Cache", interpreter="java"))
        site = build.site(node, "class", **counters)
        if reach is not None:
            build.reach(site, reach, count, size)
    return build.build()


def test_bytes_alone_are_no_verdict():
    recording = held(5_000_000, 300)
    found = analyse(recording)
    assert [f.verdict for f in found.findings] == [Verdict.UNKNOWN] * 2
    assert found.undecided
    assert not found.leaks
    first = found.findings[0]
    assert (first.kind, first.live_bytes, first.live_count) == ("class", 5_000_000, None)
    assert (first.allocs, first.frees, first.rate, first.peak_bytes) == (None,) * 4
    assert first.evidence == ()
    assert first.stack[0].class_name == "shop.Cache"
    assert first.stack[0].address is None
    assert found.live_bytes == 5_000_300
    assert (found.live_count, found.total_allocs, found.duration_ns) == (None, None, None)


def test_what_is_absent_is_said_and_never_zero():
    found = analyse(held(5_000_000, 300))
    text = render_processes([("dump", found)], show_all=True, verbose=True)
    assert "an unknown number of blocks" in text
    assert "4.8 MiB live at the end" in text
    for column in (Column.ALLOCS, Column.DEATHS, Column.TIMELINE, Column.DURATION):
        assert column.meaning in text.replace("\n    ", " ")
    assert "shop.Cache.f0" in text
    for wrong in (" 0 ", "ran ", "None", "nan"):
        assert wrong not in text
    document = json.loads(to_json(found))
    assert document["processes"][0]["findings"][0]["live_count"] is None
    assert document["processes"][0]["findings"][0]["stack"][0]["address"] is None
    assert document["processes"][0]["totals"]["duration_ns"] is None


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (Reachability.DEFINITELY_LOST, Verdict.LOST),
        (Reachability.INDIRECTLY_LOST, Verdict.LOST),
        (Reachability.POSSIBLY_LOST, Verdict.RETAINED),
        (Reachability.REACHABLE, Verdict.RETAINED),
    ],
)
def test_what_points_to_blocks_is_evidence_of_its_own(kind, verdict):
    found = analyse(held(700, count=7, reach=kind))
    (finding,) = found.findings
    assert finding.verdict is verdict
    assert finding.is_leak == (verdict is Verdict.LOST)
    assert finding.pattern is None  # how it grows was not told
    assert not found.undecided
    assert "7" in finding.sentence
    assert any("may be lost" in note for note in found.notes) == (
        kind is Reachability.POSSIBLY_LOST
    )


def test_a_source_that_counts_but_does_not_weigh():
    build = RecordingBuilder(coverage=Coverage(mode="counters"))
    build.site(build.stack(named("f")), "kmalloc", allocs=5)
    found = analyse(build.build())
    assert found.live_bytes is None
    assert found.total_allocs == 5
    assert "not known" in found.headline


# ---- identities


def frames(*names, module="/opt/app", file="/src/a.c", at=0):
    return tuple(
        Frame(Address(0, at + i), module, "ab", name, file=file, line=i + at)
        for i, name in enumerate(names)
    )


def test_lines_addresses_and_folders_are_no_part_of_the_stable_identity():
    one = stable_identity(frames("leak", "main"), "malloc")
    assert one == stable_identity(
        frames("leak", "main", module="/else/app", file="/tmp/b/a.c", at=99), "malloc"
    )
    assert one == stable_identity(frames("leak", "main"), "calloc")  # malloc and memset, optimised
    assert one != stable_identity(frames("leak", "main"), "mmap")
    assert one != stable_identity(frames("leak", "other", "main"), "malloc")
    assert one != stable_identity(frames("leak", "main", file="/src/b.c"), "malloc")
    assert len(one) == 16


@pytest.mark.parametrize(
    "other",
    [
        ("leak.constprop.0", "main"),
        ("leak.part.0", "leak", "main"),
        ("leak(int) [clone .isra.3]", "main"),
        ("shop::leak<std::pair<int, char> >(int) const", "main"),
        ("leak", "leak", "leak", "main"),
        ("leak", "main", "leak", "main"),
    ],
)
def test_what_compilers_and_recursion_change_is_left_out(other):
    assert stable_identity(frames(*other), "new") == stable_identity(frames("leak", "main"), "new")


def test_run_times_are_left_out_and_nameless_code_is_kept_apart():
    inside = Frame(Address(1, 5), "/usr/lib/libc.so.6", None, "strdup")
    own = frames("leak", "main")
    assert stable_identity((inside, *own), "malloc") == stable_identity(own, "malloc")
    bare = [(Frame(Address(0, at), "/opt/app-1.2", "ab"),) for at in (1, 2)]
    assert stable_identity(bare[0], "malloc") != stable_identity(bare[1], "malloc")


def test_both_identities_name_a_place_on_the_command_line():
    found = analyse(held(700, 300)).findings
    for wanted in (found[0].fingerprint, found[0].stable_fingerprint):
        assert [scan._names(each, wanted) for each in found] == [True, False]
    assert not scan._names(found[0], "0" * 16)
