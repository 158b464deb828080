# SPDX-License-Identifier: Apache-2.0
"""What gperftools' heap checker printed here: leaks, none, all that is held, and damaged text."""

from hypothesis import HealthCheck, given, settings

from foreign import damaged, edits, findings_of, held, notes, one, reached, written
from leakscope.formats import foreign_format, read_foreign

LEAKS = """\
WARNING: Perftools heap leak checker is active -- Performance may suffer
the program's own output
Have memory regions w/o callers: might report false leaks
Leak check _main_ detected leaks of 940 bytes in 17 objects
The 3 largest leaks:
Using local file ./leaky.
Leak of 700 bytes in 7 objects allocated from:
\t@ 5632fbe9c231 my_alloc
\t@ 5632fbe9c26e lose
\t@ 5632fbe9c396 main
Leak of 160 bytes in 5 objects allocated from:
\t@ 5632fbe9c231 my_alloc
\t@ 5632fbe9c2c5 lose_list
\t@ 5632fbe9c3a0 main
Leak of 80 bytes in 5 objects allocated from:
\t@ 5632fbe9c231\x20
\t@ 5632fbe9c2ac\x20


If the preceding stack traces are not enough to find the leaks, try running THIS shell command:

pprof ./leaky "/tmp/leaky.18559._main_-end.heap" --inuse_objects --lines --heapcheck  --gv

"""
NONE = """\
WARNING: Perftools heap leak checker is active -- Performance may suffer
No leaks found for check "_main_" (but no 100% guarantee that there aren't any): found 12 \
reachable heap objects of 73243 bytes
"""


def test_leaks_with_their_stacks(tmp_path):
    recording = one(written(tmp_path, LEAKS))
    assert reached(recording)[0] == (940, 17)
    assert (recording.process.pid, recording.process.exe) == (18559, "leaky")
    first = findings_of(recording).findings[0]
    assert [frame.function for frame in first.stack] == ["my_alloc", "lose", "main"]
    assert "may be false" in notes(recording)


def test_what_is_listed_less_than_counted_has_no_place(tmp_path):
    text = LEAKS.replace("940 bytes in 17", "1,000".replace(",", "") + " bytes in 18")
    recording = one(written(tmp_path, text))
    assert reached(recording)[0] == (1000, 18)
    assert "60 bytes in 1 block are in its sum alone" in notes(recording)


def test_nothing_leaks_and_how_much_is_in_use(tmp_path):
    recording = one(written(tmp_path, NONE))
    assert reached(recording) == ((0, 0), (0, 0), (0, 0), (73243, 12))
    assert not recording.coverage.troubles


def test_without_stacks_nothing_is_known_to_leak(tmp_path):
    text = "Not looking for thread stacks; objects reachable only from there will be reported\n"
    recording = one(written(tmp_path, text + LEAKS))
    assert held(recording) == (940, 17)
    assert recording.site_reach is None
    assert "no_leak_check" in recording.coverage.troubles


def test_a_killed_program_proves_nothing(tmp_path):
    recording = one(written(tmp_path, LEAKS.splitlines(True)[0] + "some output\n"))
    assert "no_leak_check" in recording.coverage.troubles


def test_it_is_found_behind_a_long_log(tmp_path):
    path = written(tmp_path, "compiling\n" * 20_000 + NONE)
    assert foreign_format(path) == "a report of gperftools' heap checker"


def test_each_check_is_told(tmp_path):
    other = LEAKS.replace("_main_", "cache of X")
    recordings = read_foreign(written(tmp_path, other + NONE))
    assert [reached(r)[0][0] for r in recordings] == [940, 0]
    assert "cache of X" in notes(recordings[0])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(edited=edits(b"Leak of 9", b"\t@ ", b"Leak check ", b"99999999999999999999"))
def test_damaged_text_is_read_or_refused(tmp_path_factory, edited):
    damaged(tmp_path_factory, LEAKS.encode(), edited)


def test_addresses_without_names_say_how_to_get_them(tmp_path):
    assert "PPROF_PATH" not in notes(one(written(tmp_path, LEAKS)))
    bare = "".join(
        line.rsplit(" ", 1)[0] + " \n" if line.startswith("\t@ ") else line
        for line in LEAKS.splitlines(True)
    )
    assert "PPROF_PATH" in notes(one(written(tmp_path, bare)))
