# SPDX-License-Identifier: Apache-2.0
"""memleak of bcc and libbpf-tools: real output with its right values, and damaged output."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import edits, findings_of, held, notes, one, read_damaged, written
from leakscope.cli import main


def named(finding):
    return [frame.function for frame in finding.stack]


@pytest.mark.parametrize(
    ("name", "expected", "intervals"),
    [
        ("py-two-intervals", (160, 10), 2),
        ("py-a-addresses", (160, 10), 2),
        ("py-sampled", (32, 2), 3),
        ("libbpf-4958", (8, 2), 2),
        ("py-kernel-nooffset", (9232, 7), 1),
        ("py-kernel-2108", (2 * 125_829_120, 60), 1),
        ("py-bytes-repr-2316", (8, 1), 1),
    ],
)
def test_the_last_interval_counts_and_none_are_added(name, expected, intervals):
    recording = one(f"bcc-memleak/{name}.txt")
    assert held(recording) == expected
    assert (f"{intervals} intervals" in notes(recording)) == (intervals > 1)
    assert findings_of(recording).undecided


def test_frames_have_their_names_and_modules():
    (finding,) = findings_of(one("bcc-memleak/py-two-intervals.txt")).findings
    assert [(f.function, f.module_path) for f in finding.stack] == [
        ("main", "allocs"), ("__libc_start_main", "libc-2.21.so"),
    ]  # fmt: skip
    (kernel,) = findings_of(one("bcc-memleak/py-bytes-repr-2316.txt")).findings
    assert named(kernel)[0] == "pcpu_alloc"
    assert len(kernel.stack) == 10
    biggest = findings_of(one("bcc-memleak/py-kernel-nooffset.txt")).findings[0]
    assert biggest.live_bytes == 8192
    assert named(biggest)[0] == "alloc_and_copy_ftrace_hash.constprop.59"


def test_pages_of_slabs_are_said_to_be_counted_twice():
    assert "counted again" in notes(one("bcc-memleak/py-kernel-2108.txt"))


def test_c_output_that_is_cut():
    recording = one("bcc-memleak/libbpf-4958.txt")
    assert "cut" in notes(recording)
    whole, cut = (recording.stack(site) for site in (1, 2))
    assert [address.offset for address in whole[-2:]] == [0x7F0594212D90, 0xB515DD6BD2425100]
    assert cut == whole[:3]


TOP = "[10:00:0{}] Top 10 stacks with outstanding allocations:\n"
STACK = "\t{} bytes in 1 allocations from stack\n\t\t0x00005 f(int)+0x1 [a b]\n\t\t[unknown] [c]\n"


def test_newer_python_output_through_a_service(tmp_path):
    text = "".join(
        f"2026-11-30T17:06:11.41Z {x}\n" for x in (TOP + STACK).format(1, 7).splitlines()
    )
    recording = one(written(tmp_path, "Attaching to pid 9, Ctrl+C to quit.\n" + text))
    (finding,) = findings_of(recording).findings
    assert recording.process.pid == 9
    assert [(f.function, f.module_path) for f in finding.stack] == [("f(int)", "a b"), (None, "c")]


def test_an_interval_that_is_cut_before_its_stacks_does_not_count(tmp_path):
    recording = one(written(tmp_path, (TOP + STACK).format(1, 7) + TOP.format(2)[:-1]))
    assert held(recording) == (7, 1)
    assert "the last of 2 intervals is cut" in notes(recording)


@pytest.mark.parametrize("text", [TOP.format(1), (TOP + STACK).format(1, 7) + TOP.format(2)])
def test_nothing_listed_proves_nothing(text, tmp_path, capsys):
    assert main(["report", str(written(tmp_path, text))]) == 3
    assert "no leak found" not in capsys.readouterr().out


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["py-a-addresses", "libbpf-4958", "py-bytes-repr-2316"]),
    edited=edits(TOP.format(3).encode(), b"1 bytes in 9 allocations from stack\n", b"9" * 40,
                 b"\t\tb'", b"[<", b"[", b"]", b"+0x", b"\n\n", b"\0"),
)  # fmt: skip
def test_damaged_output_is_read_or_refused(tmp_path_factory, name, edited):
    read_damaged(tmp_path_factory, f"bcc-memleak/{name}.txt", edited)


@pytest.mark.parametrize("times", [("[9:5:2] ", "[9:5:12] "), ("[17:35:42]", "[17:35:47]")])
def test_intervals_are_not_added_however_their_times_are_written(times, tmp_path):
    """libbpf-tools prints hours, minutes and seconds without a zero before them."""
    text = "Tracing outstanding memory allocs...  Hit Ctrl-C to end\n"
    for count, when in enumerate(times, 1):
        text += f"{when}Top 1 stacks with outstanding allocations:\n"
        text += f"{4 * count} bytes in {count} allocations from stack\n"
        text += "\t0 [<0000560d3a8cb1a2>] main+0x19 [/root/a.out]\n"
    recording = one(written(tmp_path, text))
    assert held(recording) == (8, 2)
    assert "2 intervals" in notes(recording)
