# SPDX-License-Identifier: Apache-2.0
"""Kill whoever attaches, or the process that is attached to, at random moments, and look what is left.

Used by the tests and, for longer, by benchmarks/attach/soak.py --kill.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harm.attaching import MAX_PAUSE_S, Shape, settled
from leakscope.errors import LeakscopeError
from leakscope.proc.maps import read_maps
from leakscope.trace.attach import hands
from leakscope.trace.attach.detach import remove
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from harm.servers import Server

PATIENCE_S = 60.0
HELD_S = 0.02  # attached in each cycle
REFUSED, BROKEN = 3, 9  # exit statuses of a process that attaches
CHECK_EVERY = 20  # cycles between two attaches that nobody kills


@dataclass
class Kills:
    """What was seen in some cycles."""

    name: str
    cycles: int = 0
    moments: dict[str, int] = field(default_factory=dict)  # what was there at the kill, how often
    refused: int = 0
    attaches: int = 0  # whole ones in between
    events: int = 0
    stray: int = 0  # mappings of code that nobody knows of afterwards
    before: Shape | None = None
    after: Shape | None = None

    def text(self) -> str:
        """Return one line."""
        found = ", ".join(f"{count} {what}" for what, count in sorted(self.moments.items()))
        parts = [f"{self.name}: {self.cycles} kills ({found})"]
        if self.attaches:
            parts.append(f"{self.attaches} whole attaches between, {self.events:,} events in them")
        parts.append(f"refused {self.refused}")
        if self.before and self.after:
            parts.append(
                f"mappings {self.before.mappings} → {self.after.mappings}, code of nobody {self.stray},"
                f" descriptors {self.before.descriptors} → {self.after.descriptors}, threads"
                f" {self.before.threads} → {self.after.threads}, private code"
                f" {self.before.code} → {self.after.code} KiB"
            )
        return "; ".join(parts)


def _attach(pid: int, ready: int) -> None:
    """Attach and detach once, as a process of its own does. Does not return."""
    status = BROKEN
    try:
        plan = make_plan(pid)
        os.close(ready)
        with Session(plan, max_pause_s=MAX_PAUSE_S) as session:
            time.sleep(HELD_S)
            session.detach()
            session.recording()
        status = 0
    except LeakscopeError:
        status = REFUSED
    except BaseException:  # noqa: BLE001 - told by the status, whatever it was
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _begin(pid: int) -> int:
    """Start a process that attaches; return its number when it has planned that."""
    theirs, ready = os.pipe()
    child = os.fork()
    if not child:
        _attach(pid, ready)
    os.close(ready)
    os.read(theirs, 1)  # until it is closed
    os.close(theirs)
    return child


def _ended(child: int) -> int:
    """Wait for it, and return its status. Raises `TimeoutError`: it hangs."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"attaching took longer than {PATIENCE_S:g} s")


def _span_s(pid: int) -> float:
    """Return how long a cycle takes that nobody kills: the longest of three."""
    spans: list[float] = []
    for _ in range(20):  # a busy machine refuses some
        child = _begin(pid)
        began = time.monotonic()
        status = os.waitstatus_to_exitcode(_ended(child))
        assert status in {0, REFUSED}, status
        if status == 0:
            spans.append(time.monotonic() - began)
        if len(spans) == 3:
            return max(spans)
    raise AssertionError(f"process {pid} is not attached to")


def stray(pid: int) -> int:
    """Count mappings of code without a file: none of a program that makes no code itself."""
    maps = read_maps(pid)
    return sum(m.permissions == "r-xp" and not m.inode and m.path[:1] != "[" for m in maps)


def _is_running(pid: int) -> bool:
    """Whether no thread of the process stands still for a tracer, now or soon."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        states = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                text = (task / "status").read_text()
                states.append("State:\tt" in text or "TracerPid:\t0" not in text)
        if not any(states):
            return True
        time.sleep(0.01)
    return False


def kill_tracers(
    name: str, pid: int, cycles: int, check: Callable[[], None], seed: int = 1
) -> Kills:
    """Kill whoever attaches to `pid`, again and again; what is left is taken out each time.

    `check` raises when the program is not as it should be. Raises `AssertionError` when something
    of an attach stays behind, or the process stands still.
    """
    chance = random.Random(seed)
    result = Kills(name, before=settled(pid))
    code = stray(pid)
    span_s = _span_s(pid)
    for number in range(cycles):
        child = _begin(pid)
        time.sleep(chance.uniform(0, span_s))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(_ended(child))
        assert status in {0, REFUSED, -signal.SIGKILL}, status
        result.cycles += 1
        result.refused += status == REFUSED
        check()
        assert _is_running(pid), f"{name} stands still"
        left = find_attached(pid)
        moment = "patched" if left and left.patches else "mapped" if left else "nothing there"
        moment = "done" if status == 0 else moment
        result.moments[moment] = result.moments.get(moment, 0) + 1
        if left is not None:
            removed = remove(left, max_pause_s=MAX_PAUSE_S)
            assert removed.unmapped, removed.reason
        assert find_attached(pid) is None
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            _attach_whole(pid, result)
            check()
    time.sleep(0.1)
    result.after, result.stray = settled(pid), stray(pid) - code
    return result


def _attach_whole(pid: int, result: Kills) -> None:
    """Attach and detach once, without a kill; a busy machine may refuse."""
    try:
        with Session(make_plan(pid), max_pause_s=MAX_PAUSE_S) as session:
            time.sleep(0.2)
            session.detach()
            recording = session.recording()
    except LeakscopeError:
        result.refused += 1
        return
    result.attaches += 1
    result.events += (recording.coverage.alloc_events or 0) if recording else 0


def kill_targets(name: str, command: list[str], folder: Path, cycles: int, seed: int = 1) -> Kills:
    """Kill a process while it is attached to, again and again: whoever attaches must end well."""
    chance = random.Random(seed)
    result = Kills(name)
    span_s = 0.0
    for _ in range(cycles):
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                time.sleep(0.1)
                if not span_s:
                    time.sleep(1.2)
                    span_s = _span_s(process.pid)
                child = _begin(process.pid)
                time.sleep(chance.uniform(0, span_s))
                left = find_attached(process.pid)
                moment = "patched" if left and left.patches else "mapped" if left else "not there"
            finally:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        status = os.waitstatus_to_exitcode(_ended(child))
        assert status in {0, REFUSED}, f"{name}: whoever attached ended with {status}"
        result.cycles += 1
        result.refused += status == REFUSED
        result.moments[moment] = result.moments.get(moment, 0) + 1
    return result


def kill_server(server: Server, cycles: int) -> Kills:
    """Kill whoever attaches to a server, whose clients check every answer meanwhile."""
    server.start()
    clients = os.fork()  # a process of their own: here nothing may run while another one is forked
    if not clients:
        _ask(server)
    try:
        time.sleep(1.0)

        def check() -> None:
            assert os.waitpid(clients, os.WNOHANG)[0] == 0, (
                f"a client of {server.name} was let down"
            )

        result = kill_tracers(server.name, server.pid, cycles, check)
    finally:
        os.kill(clients, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(clients, 0)
        status = server.stop()
    assert status == 0, server.output()[-400:]
    return result


def _ask(server: Server) -> None:
    """Ask until somebody kills us, or an answer is wrong. Does not return."""
    try:
        for seed in range(1, 1_000_000):
            server.load(1.0, seed)
    except BaseException as trouble:  # noqa: BLE001 - told by the status
        print(f"{server.name}: {trouble!r}", flush=True)
    finally:
        os._exit(BROKEN)


def kill_before_it_is_noted(pid: int) -> None:
    """Attach, and be killed after the first memory was mapped, before anything is written there."""
    child = os.fork()
    if not child:
        try:
            hands.Writer.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, misc, return-value]
            with Session(make_plan(pid), max_pause_s=MAX_PAUSE_S):
                pass
        finally:
            os._exit(BROKEN)
    assert os.waitstatus_to_exitcode(_ended(child)) == -signal.SIGKILL
