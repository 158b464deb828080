# SPDX-License-Identifier: Apache-2.0
"""What is new, grown, shrunk or gone; what a compiler or a tool renamed; what is only chance."""

from dataclasses import replace

import numpy as np
import pytest

from leakscope.judge.diff import Tolerance, compare, highest, looked_at
from leakscope.judge.identities import stable_identity
from leakscope.model.changes import Change
from leakscope.model.columns import Column
from leakscope.model.findings import Verdict
from leakscope.model.recordings import Coverage
from unit.report.built_findings import finding, findings, frame

PERIOD = 65_536


def stack(*names, file="a.c", start=True):
    found = tuple(
        frame(name, None if file is None else f"/src/{file}", 10 + at)
        for at, name in enumerate(names)
    )
    return (*found, frame("_start")) if start else found


def lost(names, count, size=64, **kw):
    whole = kw.pop("whole", stack(*names, "main"))
    kind = kw.get("kind", "malloc")
    verdict = kw.pop("verdict", Verdict.LOST)
    is_lost = verdict is Verdict.LOST
    told = {
        "verdict": verdict, "stack": whole, "source": whole[0],
        "live_bytes": count * size, "live_count": count,
        "lost_bytes": count * size * is_lost, "lost_count": count * is_lost,
        "stable_fingerprint": stable_identity(whole, kind),
    }  # fmt: skip
    return finding(**told | kw)


def held(names, count, size=64, **kw):
    return lost(names, count, size, **{"verdict": Verdict.RETAINED, **kw})


def side(*members, **kw):
    return looked_at([("it", findings(*members, **{"coverage": Coverage(), **kw}))])


def changed(before, after, **kw):
    found = compare(before, after, **kw)
    return {(str(row.change), row.stack[0].function) for row in found.changes}


def test_each_change_has_its_name():
    before = side(
        lost(["a"], 10), lost(["b"], 10), lost(["c"], 10), lost(["d"], 10), held(["e"], 100)
    )
    after = side(
        lost(["a"], 10), lost(["b"], 11), lost(["c"], 9), lost(["f"], 10, 4096), held(["e"], 200)
    )

    assert changed(before, after) == {
        ("new", "f"), ("grown", "b"), ("shrunk", "c"), ("gone", "d"), ("grown", "e")
    }  # fmt: skip
    found = compare(before, after)
    assert (found.same_count, found.measure) == (1, "lost and held")
    (grown,) = (row for row in found.of(Change.GROWN) if row.stack[0].function == "e")
    assert (grown.bytes_before, grown.bytes_after, grown.count_after) == (6400, 12_800, 200)
    assert changed(after, before) == {
        ("gone", "f"), ("shrunk", "b"), ("grown", "c"), ("new", "d"), ("shrunk", "e")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (held(["a"], 100), held(["a"], 109)),  # a level moves by less than a tenth
        (lost(["a"], 1, 30), lost(["a"], 1, 80)),  # a path that is longer
        (held(["a"], 3, verdict=Verdict.CHURN), held(["a"], 30, verdict=Verdict.CHURN)),
        (held(["a"], 100, verdict=Verdict.BOUNDED), held(["a"], 130, verdict=Verdict.BOUNDED)),
        (lost(["a"], 10, kind="malloc"), lost(["a"], 10, kind="calloc")),
    ],
    ids=["level", "path", "churn", "cache", "calloc"],
)
def test_what_is_no_change(before, after):
    assert changed(side(before), side(after)) == set()


def test_the_tolerance_is_the_users():
    before, after = side(lost(["a"], 100)), side(lost(["a"], 104))

    assert changed(before, after) == {("grown", "a")}
    assert changed(before, after, tolerance=Tolerance(0.05, 0.05)) == set()


def test_memory_that_lost_its_last_pointer_is_a_change_though_as_much_is_held():
    (row,) = compare(side(held(["a"], 10)), side(lost(["a"], 10))).changes

    assert (row.change, row.measure, row.bytes_before, row.bytes_after) == ("new", "lost", 0, 640)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lost(["a", "b"], 9), lost([], 9, whole=stack("a", "b", "main", file=None))),
        (lost(["a"], 9, kind="new"), lost(["a"], 9, kind="malloc")),
        (lost(["a", "b"], 9), lost(["b"], 9)),  # a ends in a call of malloc
        (lost(["a", "b", "c"], 9), lost(["a", "c"], 12)),  # b ends in a call of a; blocks as large
        (lost(["a", "b", "c"], 9), lost([], 9, whole=stack("a", "b", start=False))),
    ],
    ids=["no files", "new", "tail call", "tail call in the middle", "cut"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_frames_that_a_compiler_or_a_tool_leaves_out(before, after, turned):
    sides = [side(before), side(after)]
    found = compare(*reversed(sides)) if turned else compare(*sides)

    assert not found.of(Change.NEW)
    assert not found.of(Change.GONE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lost(["init"], 9), lost([], 9, whole=stack("init", "main", file="b.c"))),
        (lost([], 100, 10), lost(["leak"], 5, 4000)),  # main's own, and what it calls
        (lost(["a", "b"], 9, kind="mmap"), lost(["b"], 9)),
    ],
    ids=["another file", "another size", "another kind of memory"],
)
def test_what_is_not_the_same_though_it_looks_alike(before, after):
    found = compare(side(before), side(after))

    assert [len(found.of(change)) for change in (Change.NEW, Change.GONE)] == [1, 1]


def test_several_stacks_of_one_that_another_tool_cuts_are_added_up():
    before = side(lost(["a", "b", "x"], 5), lost(["a", "b", "y"], 7))
    after = side(lost([], 12, whole=stack("a", "b", start=False)))

    assert changed(before, after) == set()
    assert changed(after, before) == set()


@pytest.mark.parametrize(
    "before",
    [
        [lost(["a"], 5), lost(["a", "b"], 7)],  # b's stack became that of a
        [lost(["a", "b"], 5, 30), lost(["a", "c"], 7, 90)],  # two that became a third
    ],
    ids=["one of them", "another"],
)
def test_stacks_that_are_one_where_a_frame_is_left_out(before):
    size = sum(each.live_bytes for each in before)
    after = lost(["a"], 12, live_bytes=size, lost_bytes=size)

    assert changed(side(*before), side(after)) == set()
    assert changed(side(after), side(*before)) == set()
    twice = replace(after, live_bytes=2 * size, live_count=24, lost_bytes=2 * size, lost_count=24)
    assert {how for how, _ in changed(side(*before), side(twice))} & {"new", "grown"}


def test_an_arena_that_another_call_needed_is_the_same():
    def arenas(*callers, count=1):
        return side(*(held(["map", *each], count, 1 << 20, kind="mmap") for each in callers))

    before = arenas(["parse"], ["load"])
    assert changed(before, arenas(["parse"], ["run", "x"])) == set()
    assert changed(before, arenas(["parse"], ["run"], ["x"])) == {("grown", "map")}
    assert changed(before, arenas(["parse"], ["load"], ["run"])) == {("new", "map")}
    other = side(held(["map", "run"], 1, 1 << 24, kind="mmap"))
    assert len(changed(arenas(["load"]), other)) == 2


def test_what_only_one_side_knows_is_not_compared():
    checker = side(lost(["a"], 5), coverage=Coverage(mode="a report of LeakSanitizer"))
    whole = side(lost(["a"], 5), held(["b"], 500))
    profile = side(
        held(["b"], 500, lost_bytes=None, lost_count=None), coverage=Coverage(mode="a profile")
    )

    assert changed(checker, whole) == set()
    assert compare(checker, whole).measure == "lost"
    assert compare(whole, profile).measure == "held"
    assert any("what is lost, and not" in text for text in checker.side.limits)
    nothing = compare(checker, profile)
    assert (nothing.measure, nothing.undecided, nothing.changes) == ("nothing", True, ())


def test_a_side_that_says_nothing_leaves_it_undecided():
    blind = side(total_allocs=0, coverage=Coverage(dropped={"paused": 4}))

    found = compare(blind, side(lost(["a"], 5)))
    assert found.undecided
    assert any("4 events" in text for text in found.before.limits)


def test_what_is_quiet_now_is_no_change_and_what_was_quiet_is_no_news():
    quiet, loud = side(held(["a"], 5, known="libc one-off")), side(held(["a"], 5))

    assert changed(loud, quiet) == set()
    assert changed(quiet, loud) == set()
    assert changed(side(), quiet) == set()


def test_the_processes_of_a_side_are_added_up_and_in_a_baseline_the_highest_counts():
    members = [("1", findings(lost(["a"], 5))), ("2", findings(lost(["a"], 7)))]

    (summed,) = looked_at(members).stands.values()
    (most,) = highest(members).stands.values()
    assert (summed.lost_count, most.lost_count) == (12, 7)


def estimate(generator, names, size, count):
    """What sampling one byte in PERIOD tells of so many blocks; None where it saw none."""
    chance = -np.expm1(-size / PERIOD)
    seen = int(generator.binomial(count, chance))
    guess = round(seen / chance)
    return held(names, guess, size, lost_bytes=None, lost_count=None) if seen else None


def sampled(generator, blocks):
    members = (estimate(generator, [name], *each) for name, each in blocks.items())
    return side(
        *(each for each in members if each is not None),
        coverage=Coverage(mode="sampled", sample_bytes=PERIOD),
    )


def test_estimates_that_differ_by_chance_are_no_change_and_a_leak_is_one():
    generator = np.random.default_rng(7)
    sizes = generator.integers(16, 200_000, 300)
    blocks = {f"f{at}": (int(size), 1 + 2_000_000 // int(size)) for at, size in enumerate(sizes)}
    noise = found = 0
    for _ in range(10):
        before = sampled(generator, blocks)
        noise += len(compare(before, sampled(generator, blocks)).changes)
        leak = blocks | {"leak": (512, 20_000), "f7": (blocks["f7"][0], blocks["f7"][1] * 3)}
        changes = changed(before, sampled(generator, leak))
        found += {("new", "leak"), ("grown", "f7")} <= changes
    assert noise <= 2  # of 3,000 comparisons
    assert found == 10


def test_an_estimate_is_compared_with_what_is_exact():
    generator = np.random.default_rng(3)
    blocks = {f"f{at}": (1000, 3000) for at in range(50)}
    exact = side(
        *(held([n], c, s, lost_bytes=None, lost_count=None) for n, (s, c) in blocks.items())
    )

    assert changed(exact, sampled(generator, blocks)) == set()
    more = blocks | {"f3": (1000, 12_000), "x": (1000, 3000)}
    assert changed(exact, sampled(generator, more)) == {("grown", "f3"), ("new", "x")}
    assert changed(sampled(generator, more), exact) == {("shrunk", "f3"), ("gone", "x")}


def test_many_stacks_are_compared_in_little_time():
    """Ten thousand stacks on a side, all of them renamed: no comparison of each with each."""
    before = side(*(lost([f"f{at % 500}", f"g{at}", "h"], at % 7 + 1) for at in range(4000)))
    members = (replace(s, names=tuple((n, "") for n, _ in s.names)) for s in before.stands.values())
    after = replace(before, stands={s.stable[::-1] + "x": s for s in members})

    assert changed(before, after) == set()


def test_absent_bytes_are_not_zero():
    told = side(lost(["a"], 5), absent=(Column.LIVE_BYTES,))

    assert not told.knows.held


def test_what_compilers_call_the_initialisers_of_globals_is_one():
    gcc = ["__static_initialization_and_destruction_0(int, int)", "_GLOBAL__sub_I_main"]
    clang = ["__cxx_global_var_init", "_GLOBAL__sub_I_program.cc"]
    sides = [side(held(names, 1)) for names in (gcc, clang, clang[1:])]

    assert changed(sides[0], sides[1]) == changed(sides[1], sides[2]) == set()


def test_a_side_without_stacks_leaves_it_undecided():
    total = finding(stack=(), source=None, stable_fingerprint=None, verdict=Verdict.UNKNOWN)

    found = compare(side(lost(["a"], 5)), side(total))
    assert found.undecided
    assert found.after.blind == "most of what it holds has no call stack"
    some = compare(side(lost(["a"], 5)), side(lost(["a"], 5), replace(total, live_bytes=10)))
    assert (some.undecided, some.changes) == (False, ())
    assert any("10 B have no call stack" in text for text in some.after.limits)


def test_inlined_code_of_the_standard_library_is_known_by_its_files_names():
    bare = [
        frame("allocate", "new_allocator.h", 3),
        frame("_M_create_storage", "stl_vector.h", 3),
        frame("make", "a.c", 3),
        frame("main", "a.c", 3),
    ]
    whole = lost([], 9, whole=tuple(bare), kind="new")

    assert changed(side(lost(["make"], 9, kind="new")), side(whole)) == set()
