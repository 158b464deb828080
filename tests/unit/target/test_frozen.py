# SPDX-License-Identifier: Apache-2.0
"""A process is stopped, looked at, borrowed for a system call, and goes on as if nothing had been."""

import platform
import time
from pathlib import Path

import pytest

from leakscope.errors import TargetError
from leakscope.target.borrowed import Borrowed, RefusedError, find_gadgets
from leakscope.target.frozen import Frozen
from leakscope.target.ptrace import general_registers

TEXT = b"what is in its memory\0"
GETPID, GETTID, READ = 39, 186, 0
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 alone")


def state(pid: int, tid: int) -> str:
    stat = Path(f"/proc/{pid}/task/{tid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def goes_on(program) -> bool:
    before, end = program.count(), time.monotonic() + 30
    while program.count() == before:
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def test_all_threads_stand_still_until_they_are_let_go(program):
    with Frozen(program.pid) as frozen:
        assert len(frozen.threads) == len(set(frozen.tids)) == 3
        assert {state(program.pid, tid) for tid in frozen.tids} == {"t"}
        before = program.count()
        time.sleep(0.05)
        assert program.count() == before == frozen.read(program.counters, 16)
    assert frozen.paused_ns >= 50_000_000
    assert goes_on(program)
    assert program.ends_well()


def test_memory_is_read_as_far_as_there_is_some(program):
    with Frozen(program.pid) as frozen:
        assert frozen.read(program.text, len(TEXT)) == TEXT
        last = max(m.end for m in frozen.mappings if m.start <= program.text < m.end)
        following = [m.start for m in frozen.mappings if m.start == last]
        if not following:
            assert len(frozen.read(last - 8, 4096)) == 8
        assert frozen.read(0, 8) == b""
        assert frozen.read(1 << 70, 8) == b""
        for thread in frozen.threads:
            stack = next(m for m in frozen.mappings if m.start <= thread.sp < m.end)
            assert "w" in stack.permissions
            assert thread.sp in thread.words.tolist()
            assert frozen.read(thread.tls, 8)
    assert frozen.read(program.text, 4) == b""  # closed


def test_one_thread_can_be_left_alone_and_one_alone_be_stopped(program):
    with Frozen(program.pid, leave=program.pid) as frozen:
        assert program.pid not in frozen.tids
        assert state(program.pid, program.pid) == "S"
    with Frozen(program.pid, one=True) as frozen:
        assert len(frozen.tids) == 1
    assert goes_on(program)


def test_an_error_inside_lets_it_go_on(program):
    with pytest.raises(ZeroDivisionError), Frozen(program.pid):
        _ = 1 // 0
    assert goes_on(program)


def test_who_is_gone_cannot_be_stopped(program):
    program.process.kill()
    program.process.wait()
    with pytest.raises(TargetError, match=f"no process {program.pid}|ended"), Frozen(program.pid):
        pass


@x86_64
def test_a_borrowed_thread_calls_the_kernel_and_is_then_as_it_was(program):
    with Frozen(program.pid) as frozen:
        gadgets = find_gadgets(frozen)
        for tid in frozen.calm_threads():
            registers = general_registers(tid)
            below = frozen.read(registers[19] - 20000, 20000)
            with Borrowed(frozen, tid, gadgets) as thread:
                assert thread.call(GETPID) == (program.pid, 0)
                assert thread.call(GETTID) == (tid, 0)
                assert thread.call(READ, 1 << 20, thread.letter, 1) == (-9, 0)  # EBADF
                thread.write(b"for the kernel")
                assert thread.read_letter(14) == b"for the kernel"
            assert general_registers(tid) == registers
            assert frozen.read(registers[19] - 20000, 20000) == below
    assert goes_on(program)
    assert program.ends_well()


@x86_64
def test_a_thread_whose_stack_is_not_known_is_not_borrowed(program):
    with Frozen(program.pid) as frozen:
        gadgets = find_gadgets(frozen)
        tid = next(tid for tid in frozen.calm_threads() if tid != program.pid)
        stack = next(t.sp for t in frozen.threads if t.tid == tid)
        # As if it were on the small stack of a coroutine.
        known = frozen.mappings
        frozen.__dict__["mappings"] = [m for m in known if not m.start <= stack < m.end]
        before = general_registers(tid)
        with pytest.raises(RefusedError, match="stack"), Borrowed(frozen, tid, gadgets):
            pass
        assert general_registers(tid) == before
    assert goes_on(program)
