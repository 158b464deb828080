# SPDX-License-Identifier: Apache-2.0
"""Every real file of every tool is taken for what it is, or for nothing that is known here."""

import pytest

from foreign import SAMPLES, reached, written
from leakscope.formats import foreign_format, nearest_format, read_foreign

NAMES = {
    "valgrind-xml": "valgrind's XML",
    "lsan": "a report of LeakSanitizer",
    "valgrind-text": "a log of valgrind",
    "mtrace": "a log of mtrace",
    "bcc-memleak": "output of memleak (bcc)",
    "kmemleak": "a list of kmemleak",
    "dmalloc": "a log of dmalloc",
    "leaktracer": "a report of LeakTracer",
    "memleax": "output of memleax or libleak",
    "libleak": "output of memleax or libleak",
    "drmemory": "a report of Dr. Memory",
    "efence": "output of Electric Fence or DUMA",
    "memwatch": "a log of memwatch",
    "jmap-histo": "a class histogram of a JVM",
    "nmt": "native memory tracking of a JVM",
    "python": "statistics of tracemalloc",
    "massif": "massif's snapshots",
    "heaptrack": "what heaptrack recorded",
    "jemalloc": "jemalloc's heap profile",
    "dhat": "DHAT's program points",
    "callgrind": "a profile by callgrind or cachegrind",
}


def test_each_file_is_taken_for_what_it_is():
    read_here = set(NAMES)
    wrong = {}
    for path in sorted(SAMPLES.glob("*/*")):
        if path.is_dir():
            continue
        name, folder = foreign_format(path), path.parent.name
        expected = NAMES.get(folder)
        stolen = folder not in read_here and name in NAMES.values()
        if stolen or (folder in read_here and name != expected):
            wrong[f"{folder}/{path.name}"] = name
    assert wrong == {}


def test_what_two_tools_wrote_into_one_log_is_all_read(tmp_path):
    parts = ("valgrind-text/vg319-summary-only.txt", "lsan/gcc12-lsan-suppressed.txt")
    path = written(tmp_path, b"".join((SAMPLES / part).read_bytes() for part in parts))
    assert foreign_format(path) == "a report of LeakSanitizer and a log of valgrind"
    assert sorted(reached(recording)[0] for recording in read_foreign(path)) == [(700, 7), (716, 8)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "goroutine profile: total 3\n1 @ 0x43 0x44\n",
            "goroutines, which tells nothing of memory",
        ),
        ("goroutine 1 [running]:\nmain.main()\n", "goroutines, which tell nothing of memory"),
        ("threadcreate profile: total 8\n", "threads"),
        ("--- mutex:\ncycles/second=1\n", "locks"),
        ("<jemalloc>: Leak approximation summary: ~7 bytes, ~1 objects\n", "with .heap at its end"),
    ],
)
def test_what_tells_nothing_of_memory_is_named(text, said, tmp_path):
    path = written(tmp_path, text)
    assert read_foreign(path) is None
    assert said in nearest_format(path).text
