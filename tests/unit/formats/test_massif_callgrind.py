# SPDX-License-Identifier: Apache-2.0
"""Files of massif, callgrind and cachegrind: none of them tells of leaks, and that is said."""

import pytest

import foreign
from foreign import one, written
from leakscope._analysis import analyse
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import read_foreign
from leakscope.model.columns import Column

SAMPLES = foreign.SAMPLES
HEAD = "desc: (none)\ncmd: ./a -x\ntime_unit: ms\n"
SNAPSHOT = """#-----------
snapshot={number}
#-----------
time={time}
mem_heap_B={heap}
mem_heap_extra_B=8
mem_stacks_B=0
heap_tree={tree}
"""
TREE = "n1: 100 (heap allocation functions) malloc/new/new[], --alloc-fns, etc.\n n0: 100 0x10: f(int (*)(int)) (a b.c:7)\n"


@pytest.mark.parametrize(
    ("name", "snapshots", "notes", "held"),
    [
        (
            "vg319-heap",
            54,
            [
                "peak, snapshot 15: 10,664 bytes",
                "biggest snapshot, 38: 10,712",
                "8,309 bytes of heap, 419 more",
            ],
            8_309,
        ),
        ("vg319-stacks-B", 72, ["peak, snapshot 20: 12,560 bytes"], 6_260),
        (
            "vg319-pages-ms",
            31,
            ["peak, snapshot 28: 4,161,536", "biggest snapshot, 30: 4,243,456", "is no leak"],
            4_243_456,
        ),
        ("linuxtools-stacks", 62, ["peak, snapshot 10: 3,360 bytes"], 0),
        (
            "linuxtools-TiB",
            90,
            [
                "peak, snapshot 1: 62,914,608",
                "131,939,881,188,144 B",
                "31,457,280 0x40069A: foo (alloctest.c:48)",
            ],
            20_971_520,
        ),
        ("vg-stacks-heap-netbeans", 63, ["peak, snapshot 62: 78,672 bytes"], 76_800),
    ],
)
def test_massif(name, snapshots, notes, held, capsys):
    path = SAMPLES / "massif" / f"{name}.massif"
    recording = one(path)
    text = "\n".join(recording.coverage.notes)
    for note in (f"last of {snapshots} snapshots", *notes):
        assert note in text
    assert "not whole" not in text
    assert "not understood" not in text
    assert recording.total(Column.LIVE_BYTES) == held
    assert Column.LIVE_COUNT in recording.absent
    assert main(["report", str(path)]) == 3
    assert "memcheck looks for leaks" in " ".join(capsys.readouterr().out.split())


def test_massifs_places():
    found = analyse(one(SAMPLES / "massif/vg319-heap.massif"), debuginfod=False).findings
    assert found[0].live_bytes == 5_000
    assert [(f.function, f.file, f.line) for f in found[0].stack] == [
        ("keep_interior", "leaky.c", 13),
        ("main", "leaky.c", 19),
    ]
    other = analyse(one(SAMPLES / "massif/vg-stacks-heap-netbeans.massif"), debuginfod=False)
    assert other.findings[0].live_bytes == 72_704
    assert other.findings[0].stack[0].function is None
    assert "libstdc++" in other.findings[0].stack[0].module_path


@pytest.mark.parametrize(
    ("last", "held", "note"),
    [
        (SNAPSHOT.format(number=1, time=20, heap=100, tree="peak") + TREE, 100, None),
        (SNAPSHOT.format(number=1, time=20, heap=100, tree="peak") + TREE[:-5], 100, "not whole"),
        (SNAPSHOT.format(number=1, time=20, heap=102, tree="empty"), 102, "snapshot 0"),
        (SNAPSHOT.format(number=1, time=20, heap=9, tree="empty"), 9, "100 0x10: f(int"),
        (SNAPSHOT.format(number=1, time=20, heap=9, tree="empty")[:-6], 9, "not whole"),
    ],
)
def test_what_is_held_is_that_of_the_last_snapshot(last, held, note, tmp_path):
    first = SNAPSHOT.format(number=0, time=5, heap=100, tree="detailed") + TREE
    recording = one(written(tmp_path, HEAD + first + last))
    assert recording.total(Column.LIVE_BYTES) == held
    assert recording.duration_ns == 20_000_000
    assert recording.process.exe == "./a"
    text = "\n".join(recording.coverage.notes)
    assert note in text if note else "not whole" not in text
    if held > 90:
        name = recording.names[0]
        assert (name.function, name.file, name.line) == ("f(int (*)(int))", "a b.c", 7)


def test_massif_without_a_snapshot(tmp_path):
    with pytest.raises(RecordingError, match="without any snapshot"):
        read_foreign(written(tmp_path, HEAD))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vg319.callgrind.out", ["by callgrind of ./leaky", "156,364 Ir"]),
        ("vg319.cachegrind.out", ["by cachegrind of ./leaky", "157,587 Ir"]),
        ("vg318-mdriver.callgrind.out", ["./mdriver -f traces/xterm.rep", "1,953,428 Ir"]),
        ("name-compression.callgrind.out", ["by callgrind", "run -- PROGRAM"]),
    ],
)
def test_profiles_of_what_was_executed_are_named_and_answered(name, words, capsys):
    assert main(["report", str(SAMPLES / "callgrind" / name)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    for word in (*words, "nothing of memory", "valgrind --leak-check=full"):
        assert word in error
