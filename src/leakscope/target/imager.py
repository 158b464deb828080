# SPDX-License-Identifier: Apache-2.0
"""Take an image of a running process: the one that harms it least.

Runs as a process of its own, started by `leakscope.scan.image`: whoever kills the scanner does not
kill this in the middle, and when this is held up by the kernel it can be killed, upon which the
target goes on. Its argument is JSON; it writes one line of JSON, keeps what it made until standard
input ends, and removes it.

First choice is to stop the process, to copy the pages that are its own, and to let it go: nothing
of it stays behind. Where that takes longer than the pause allowed, a copy-on-write copy is made,
if it can be made without harm (`leakscope.target.fork`). Where there is no memory for either, the
process may be scanned while it stands still, if the pause allowed is long enough. Otherwise there
is no image, and the answer says why.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.maps import Mapping, parse_maps, read_raw_maps
from leakscope.proc.text import read_text
from leakscope.target import fork
from leakscope.target.areas import Area, is_copied, read_areas
from leakscope.target.borrowed import RefusedError
from leakscope.target.frozen import Frozen
from leakscope.target.headroom import lack_of_memory
from leakscope.target.lease import HELD_UP_S
from leakscope.target.library import library
from leakscope.target.pages import NEVER, list_pages
from leakscope.target.ptrace import ALL
from leakscope.target.threads import living_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Spans = npt.NDArray[np.uint64]

_TRIES = 6
_LITTLE = 16 << 20  # bytes that are copied in milliseconds where the processor is ours
_SHARE = 0.8  # of the pause allowed may be planned for
_CALM_S = 0.003  # stopping, listing, letting go
_PER_THREAD_S = 0.0002
_PER_MAPPING_S = 0.00001
_FORK_SHARE = 0.125  # of the time that copying the pages takes: page tables alone are copied
_SAMPLE = 16 << 20  # bytes that are copied to see how fast it goes
_USUAL = 5e9  # bytes a second, when there is nothing to try it on
_ROOM = 1 << 18  # runs of pages
_MORE = 1.25  # room for what is added meanwhile
_WATCH_MS = 25
_STANDING_S, _READ_PER_S = 0.1, 3e8  # walking and marking


@dataclass
class _Plan:
    """What is known of the process before it is stopped."""

    pid: int
    seen: int  # the thread through which it is looked at
    max_pause_s: float
    own: list[tuple[int, int]]
    areas: tuple[Area, ...]
    raw: bytes  # its mappings at that time
    threads: int
    refused: dict[str, str] = field(default_factory=dict)  # by image: why not
    paused_ns: int = 0
    program: str | None = None  # that was forked
    speed: float = _USUAL  # bytes copied a second
    copying_s: float = 0.0  # what it would take
    lacks_memory: bool = False  # to copy it to

    @property
    def standing_s(self) -> float:
        """What a scan of the process itself takes, while it stands still."""
        return _STANDING_S + self.to_copy / _READ_PER_S

    @property
    def to_copy(self) -> int:
        """Bytes to copy."""
        return sum(a.to_copy for a in self.areas if not self.is_own(a.mapping))

    @property
    def overhead_s(self) -> float:
        """What the stop takes beside the copying."""
        return _CALM_S + self.threads * _PER_THREAD_S + len(self.areas) * _PER_MAPPING_S

    def is_own(self, mapping: Mapping) -> bool:
        """Whether it is the tracer's memory."""
        return any(start <= mapping.start and mapping.end <= end for start, end in self.own)

    def spans(self, mappings: Sequence[Mapping]) -> tuple[Spans, Spans]:
        """Return the private and the shared ranges of memory that an image needs."""
        devices = {a.mapping.start for a in self.areas if a.is_device}
        wanted = [
            m for m in mappings if is_copied(m) and m.start not in devices and not self.is_own(m)
        ]
        return (
            _spans([(m.start, m.end) for m in wanted if m.permissions[3] == "p"]),
            _spans([(m.start, m.end) for m in wanted if m.permissions[3] == "s"]),
        )


def main() -> None:
    """Serve one scan."""
    # Ctrl-C in the terminal is for the scanner; we end when its end of the pipe closes.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    asked = json.loads(sys.argv[1])
    pid, image = int(asked["pid"]), 0
    answer: dict[str, Any]
    try:
        plan = _plan(pid, asked)
        answer = {} if asked["only"] == "forked" else _copied(plan, int(asked["memory"]))
        if not answer and asked["only"] != "copied":
            image, answer = _forked(plan)
        if not answer and asked["only"] is None and plan.standing_s <= plan.max_pause_s:
            answer = {"method": "frozen"}
        answer |= {
            "refused": plan.refused,
            "seen": plan.seen,
            "paused_ns": plan.paused_ns,
            "needed_s": plan.standing_s if plan.lacks_memory else plan.copying_s,
            "bytes": plan.to_copy,
            "devices": sum(a.resident for a in plan.areas if a.is_device),
        }
    except TargetError as error:
        answer = {"error": str(error), "hint": error.hint}
    except OSError as error:
        answer = {"error": f"process {pid} could not be looked at: {error.strerror}", "hint": None}
    try:
        os.write(1, json.dumps(answer).encode() + b"\n")
        os.close(1)
        if image:
            _keep(plan, image)
        else:
            os.read(0, 1)
    except OSError:
        pass
    if image:
        fork.kill(image)


def _plan(pid: int, asked: dict[str, Any]) -> _Plan:
    with contextlib.suppress(OSError):
        # What we hold counts for the scan's cgroup, which may be the target's: we go first.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    seen = living_thread(pid)
    try:
        areas = read_areas(seen)
    except TargetError:
        with Frozen(pid, one=True):  # says why it may not be looked at
            raise
    return _Plan(
        pid,
        seen,
        float(asked["max_pause"]),
        [(start, end) for start, end in asked["own"]],
        areas,
        read_raw_maps(seen),
        len(list(Path(f"/proc/{pid}/task").iterdir())),
    )


def _copied(plan: _Plan, memory: int) -> dict[str, Any]:
    """Stop the process and copy its pages to the file `memory`; {} when that may not be."""
    room = int(plan.to_copy * _MORE) + _SAMPLE
    runs = np.empty((_ROOM, 2), np.uint64)
    plan.copying_s = plan.to_copy / _USUAL + plan.overhead_s
    lack = lack_of_memory(os.getpid(), room)
    if lack is not None:
        plan.lacks_memory = True
        plan.refused["copied"] = f"there is no memory to copy it to: {lack}"
        return {}
    with _opened(plan.seen, "mem") as source, _opened(plan.seen, "pagemap") as pages:
        os.ftruncate(memory, room)
        with _mapped(memory, min(room, 2 * _SAMPLE)) as buffer, _hurried():
            plan.speed = _speed(plan, source, pages, buffer, runs)
            plan.copying_s = plan.to_copy / plan.speed + plan.overhead_s
        tries = _TRIES
        if plan.copying_s > plan.max_pause_s * _SHARE and plan.to_copy <= _LITTLE:
            tries = 2  # the machine was busy just now; the deadline holds all the same
        elif plan.copying_s > plan.max_pause_s * _SHARE:
            plan.refused["copied"] = (
                f"to copy its {plan.to_copy:,} bytes would stop it for about {plan.copying_s:.2g} s"
            )
            os.ftruncate(memory, 0)
            return {}
        # All pages are there before the process is stopped.
        os.posix_fallocate(memory, 0, room)
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0x8000)
        with _mapped(memory, room, flags) as buffer, _hurried():
            for attempt in range(tries):
                time.sleep(0.05 * attempt)
                answer = _try_copy(plan, memory, source, pages, buffer, runs)
                if answer:
                    return answer
    plan.refused["copied"] = (
        f"its {plan.to_copy:,} bytes could not be copied within {plan.max_pause_s:g} s"
    )
    os.ftruncate(memory, 0)
    return {}


@contextlib.contextmanager
def _mapped(memory: int, size: int, flags: int = mmap.MAP_SHARED) -> Iterator[mmap.mmap]:
    buffer = mmap.mmap(memory, size, flags)
    try:
        yield buffer
    finally:
        # An error on its way still holds the arrays over it; this process ends soon.
        with contextlib.suppress(BufferError):
            buffer.close()


@contextlib.contextmanager
def _stopped(plan: _Plan) -> Iterator[Frozen]:
    """Stop the process; who started us is told before and after. We are killed if it takes long."""
    os.write(1, b"stopped\n")
    limit_s = plan.max_pause_s + HELD_UP_S
    frozen = Frozen(plan.pid, patience_s=plan.max_pause_s, limit_s=limit_s)
    try:
        with frozen:
            yield frozen
    finally:
        plan.paused_ns += frozen.paused_ns
        os.write(1, b"released\n")


def _try_copy(
    plan: _Plan, memory: int, source: int, pages: int, buffer: mmap.mmap, runs: Spans
) -> dict[str, Any]:
    to = np.frombuffer(buffer, np.uint8)
    unread = np.zeros(1, np.uint64)
    with _stopped(plan) as frozen:
        deadline = frozen.since_ns + int(plan.max_pause_s * 1e9)
        raw = frozen.raw_mappings
        count, done = _list(plan, pages, raw, deadline, runs), 0
        wanted = int((runs[:count, 1] - runs[:count, 0]).sum())
        if 0 < wanted <= len(to):
            done = library().lss_copy(
                source, runs.ctypes.data, count, to.ctypes.data, deadline, unread.ctypes.data
            )
    del to
    if not wanted or done < wanted:
        return {}
    table = np.ascontiguousarray(runs[:count]).tobytes()
    os.ftruncate(memory, wanted)
    os.pwrite(memory, table + raw, wanted)
    return {
        "method": "copied",
        "copied": wanted,
        "runs": count,
        "raw": len(raw),
        "unread": int(unread[0]),
        "threads": _threads(frozen),
    }


def _list(plan: _Plan, pages: int, raw: bytes, deadline: int, runs: Spans) -> int:
    """List the pages that are to be copied; returns how many runs, 0 when there was no time."""
    mappings = parse_maps(raw) if raw != plan.raw else [a.mapping for a in plan.areas]
    private, shared = plan.spans(mappings)
    count = 0
    for spans, without_files in ((private, True), (shared, False)):
        cursor = np.zeros(2, np.uint64)
        found = list_pages(
            pages,
            spans,
            runs[count:],
            cursor=cursor,
            without_files=without_files,
            deadline=deadline,
        )
        if found is None or int(cursor[0]) < len(spans):
            return 0
        count += found
    order = np.argsort(runs[:count, 0], kind="stable")
    runs[:count] = runs[:count][order]
    return count


def _speed(plan: _Plan, source: int, pages: int, buffer: mmap.mmap, runs: Spans) -> float:
    """Copy some of the running process, and return how many bytes a second that was."""
    count = _list(plan, pages, plan.raw, NEVER, runs)
    sizes = np.cumsum((runs[:count, 1] - runs[:count, 0]).astype(np.int64))
    some = int(np.searchsorted(sizes, _SAMPLE))
    size = int(sizes[some - 1]) if some else 0
    if not 0 < size <= _SAMPLE:
        return _USUAL
    unread = np.zeros(1, np.uint64)
    to = np.frombuffer(buffer, np.uint8)
    best = 0.0
    for _ in range(2):  # the first touches the memory
        began = time.monotonic()
        library().lss_copy(
            source, runs.ctypes.data, some, to.ctypes.data, NEVER, unread.ctypes.data
        )
        best = max(best, size / (time.monotonic() - began))
    del to
    return best


def _forked(plan: _Plan) -> tuple[int, dict[str, Any]]:
    """Let the process fork, if that does no harm; the pid of the copy, and what there is of it."""
    refused = fork.why_not(plan.seen, plan.areas, plan.own)
    own = sum(area.own for area in plan.areas)
    forking_s = plan.overhead_s + own / plan.speed * _FORK_SHARE
    if refused is None and forking_s > plan.max_pause_s:
        refused = f"to fork it would stop it for about {forking_s:.2g} s"
    if refused is not None:
        plan.refused["forked"] = refused
        return 0, {}
    for _ in range(_TRIES):
        image = 0
        with _hurried(), _stopped(plan) as frozen:
            is_known = frozen.raw_mappings == plan.raw
            plan.program = _program(plan.seen)
            if is_known:
                try:
                    image = fork.fork(frozen)
                except RefusedError as error:
                    plan.refused["forked"] = str(error)
                except OSError as error:
                    plan.refused["forked"] = error.strerror or str(error)
        if is_known:
            break
        # What its new mappings are is looked up before they are forked.
        plan.raw, plan.areas = read_raw_maps(plan.seen), read_areas(plan.seen)
        refused = fork.why_not(plan.seen, plan.areas, plan.own)
        if refused is not None:
            plan.refused["forked"] = refused
            return 0, {}
    else:
        plan.refused["forked"] = "its mappings change all the time"
    if not image:
        return 0, {}
    return image, {"method": "forked", "image": image, "threads": _threads(frozen)}


def _keep(plan: _Plan, image: int) -> None:
    """Hold the copy until it is not needed, or had better not be there."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    target = -1
    with contextlib.suppress(OSError):
        target = os.pidfd_open(plan.pid)
        poll.register(target, select.POLLIN)
    most = fork.worst_case(plan.areas)
    while not poll.poll(_WATCH_MS):
        done, status = os.waitpid(image, ALL | os.WNOHANG)
        if done and not os.WIFSTOPPED(status):
            break
        # The room that the rest may need shrinks as the process writes; a tenth is kept.
        if _program(plan.seen) != plan.program or lack_of_memory(plan.seen, most // 10):
            break
    fork.kill(image)
    if target >= 0:
        os.close(target)
    while os.read(0, 4096):
        pass


def _program(pid: int) -> str | None:
    """Return what exec changes: where the new program's arguments are."""
    words = (read_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return words[25] if len(words) > 25 else None


def _threads(frozen: Frozen) -> list[list[Any]]:
    return [
        [t.tid, t.sp, t.pc, t.tls, base64.b64encode(t.words.tobytes()).decode()]
        for t in frozen.threads
    ]


def _spans(ranges: Sequence[tuple[int, int]]) -> Spans:
    return np.array(sorted(ranges), np.uint64).reshape(-1, 2)


@contextlib.contextmanager
def _opened(pid: int, name: str) -> Iterator[int]:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _hurried() -> Iterator[None]:
    """While the process stands still nothing else should come first, where we may say so."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, usual)


if __name__ == "__main__":
    main()
