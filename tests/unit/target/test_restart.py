# SPDX-License-Identifier: Apache-2.0
"""A call that a stop interrupts waits for the rest of its time-out, not for all of it again."""

import struct

import pytest

from leakscope.target.restart import is_interrupted, shorten

POLL, EPOLL_WAIT, NANOSLEEP, FUTEX, CLOCK_NANOSLEEP = 7, 232, 35, 202, 230
RDX, RSI, RDI, R10, RAX, ORIG_RAX, SP = 12, 13, 14, 7, 10, 15, 19
SECOND = 1_000_000_000
STACK, PLACE = 0x7000_0000, 0x1000
EINTR, RESTART = (1 << 64) - 4, (1 << 64) - 514


def registers(number: int, **values: int) -> list[int]:
    words = [0] * 27
    words[ORIG_RAX], words[SP] = number, STACK
    for name, value in values.items():
        words[{"rdx": RDX, "rsi": RSI, "rdi": RDI, "r10": R10, "rax": RAX}[name]] = value
    return words


@pytest.mark.parametrize(
    ("number", "register", "before", "after"),
    [
        (POLL, RDX, 5000, 3500),
        (EPOLL_WAIT, R10, 1000, 0),  # it should be over
        (EPOLL_WAIT, R10, 0xFFFFFFFF, 0xFFFFFFFF),  # without end
    ],
)
def test_milliseconds_are_in_a_register(number, register, before, after):
    words = registers(number)
    words[register] = before
    assert shorten(words, 3 * SECOND // 2, lambda *_: b"") is None
    assert words[register] == after


@pytest.mark.parametrize(
    ("number", "values", "register"),
    [
        (NANOSLEEP, {"rdi": PLACE}, RDI),
        (FUTEX, {"rsi": 128, "r10": PLACE}, R10),
        (CLOCK_NANOSLEEP, {"rdx": PLACE}, RDX),
    ],
)
def test_a_timespec_is_not_touched_but_replaced_below_the_red_zone(number, values, register):
    words = registers(number, **values)
    asked = struct.pack("<qq", 10, 5)
    place, data = shorten(words, 4 * SECOND, lambda at, _: asked if at == PLACE else b"")
    assert struct.unpack("<qq", data) == (6, 5)
    assert words[register] == place
    assert place + len(data) <= STACK - 128


def test_what_ends_at_a_time_of_its_own_stays(tmp_path):
    words = registers(CLOCK_NANOSLEEP, rsi=1, rdx=PLACE)  # TIMER_ABSTIME
    before = list(words)
    assert shorten(words, SECOND, lambda *_: struct.pack("<qq", 10, 0)) is None
    assert words == before


def test_only_an_interrupted_call_is_restarted():
    assert is_interrupted(registers(POLL, rax=EINTR))
    assert is_interrupted(registers(POLL, rax=RESTART))
    assert not is_interrupted(registers(POLL, rax=1))
    assert not is_interrupted(registers((1 << 64) - 1, rax=EINTR))  # in no call
    assert not is_interrupted(registers(3, rax=EINTR))  # close: never twice
