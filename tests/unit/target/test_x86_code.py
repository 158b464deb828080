# SPDX-License-Identifier: Apache-2.0
"""The beginnings of functions: their lengths against objdump, and what is moved does the same."""

import re
import subprocess

import pytest

from leakscope.target.x86_code import CodeError, decode, displace, jumps_into, near_jump

LIBRARIES = ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"]
_LINE = re.compile(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)")


@pytest.mark.parametrize("library", LIBRARIES)
def test_lengths_are_those_of_objdump(library):
    text = subprocess.run(
        ["objdump", "-d", "-w", library], capture_output=True, text=True, check=True
    ).stdout
    known = refused = 0
    for block in text.split("\n\n"):
        rows = [
            (int(m[1], 16), bytes.fromhex(m[2])) for m in map(_LINE.match, block.split("\n")) if m
        ]
        code = b"".join(raw for _, raw in rows)
        at = 0
        for _, raw in rows[:4]:
            try:
                assert decode(code[at:]).length == len(raw), code[at : at + 16].hex(" ")
                known += 1
            except CodeError:
                refused += 1
            at += len(raw)
            if at >= 5:
                break
    assert known > 1000
    assert refused < known / 20


def moved(code: bytes, at: int = 0x100000, to: int = 0x200000) -> tuple[int, bytes]:
    return displace(code + b"\x90" * 16, at, to)


def test_plain_instructions_are_followed_by_a_jump_back():
    length, code = moved(b"\xf3\x0f\x1e\xfa\x55\x48\x89\xe5")  # endbr64; push; mov
    assert length == 5
    assert code == b"\xf3\x0f\x1e\xfa\x55" + b"\xff\x25\0\0\0\0" + (0x100005).to_bytes(8, "little")


def test_what_lies_at_a_distance_is_the_same_place():
    length, code = moved(b"\x48\x8b\x05\x10\x00\x00\x00")  # mov 0x10(%rip), %rax
    assert length == 7
    assert int.from_bytes(code[3:7], "little", signed=True) == 0x100017 - 0x200007


def test_a_condition_leads_to_where_it_led():
    length, code = moved(b"\x48\x85\xff\x74\x20")  # test %rdi, %rdi; je +0x20
    assert length == 5
    assert code[3:5] == b"\x75\x0e"  # jne over a far jump
    assert int.from_bytes(code[11:19], "little") == 0x100025


def test_a_function_that_is_one_jump_is_its_target():
    length, code = moved(b"\xe9\x00\x10\x00\x00")
    assert (length, len(code)) == (5, 14)
    assert int.from_bytes(code[6:14], "little") == 0x101005


@pytest.mark.parametrize(
    "code",
    [
        b"\xe8\0\0\0\0",  # call: would return elsewhere
        b"\xff\x15\0\0\0\0",  # the same through memory
        b"\xc3",  # shorter than a jump
        b"\xeb\x10",  # the same
        b"\x75\xfe\x90\x90\x90",  # jumps to itself
        b"\xcc",  # a breakpoint
        b"\xc5\xf8\x77",  # vzeroupper: not known
    ],
)
def test_what_cannot_be_moved_is_refused(code):
    with pytest.raises(CodeError):
        moved(code)


def test_code_that_ends_is_refused():
    with pytest.raises(CodeError):
        displace(b"\x48\x8b", 0, 0x1000)


def test_a_jump_too_far_is_refused():
    with pytest.raises(CodeError):
        near_jump(0, 1 << 32)


def test_jumps_into_the_beginning_are_seen():
    assert jumps_into(b"\x90" * 8 + b"\xeb\xf8", 1, 5)  # back to offset 2
    assert not jumps_into(b"\x90" * 8 + b"\xeb\xf6", 1, 5)  # to the very beginning
