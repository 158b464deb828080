# SPDX-License-Identifier: Apache-2.0
"""Put the agent into a running process, in two short stops.

In the first one a single thread is stopped and maps memory: the page that says what is done
(`island`), the agent's, the recording's. Then the agent is written while the process runs on. In the
second one all threads stand still, and the first five bytes of each function become a jump.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.maps import read_maps
from leakscope.proc.process import living_task
from leakscope.proc.text import read_text
from leakscope.target.borrowed import RefusedError
from leakscope.target.frozen import Frozen, apart
from leakscope.target.lease import HELD_UP_S
from leakscope.target.x86_code import CodeError, displace, far_jump, near_jump
from leakscope.trace.attach import hands
from leakscope.trace.attach.beat import clock_of
from leakscope.trace.attach.detach import remove
from leakscope.trace.attach.handover import HANDOVER, NOTES, load_agent
from leakscope.trace.attach.hands import TooSlowError, Writer
from leakscope.trace.attach.island import (
    CODE,
    ISLAND_BYTES,
    MOST_STUBS,
    STUB_BYTES,
    Attached,
    Patch,
    pack,
    pack_secondary,
)

if TYPE_CHECKING:
    from collections.abc import Mapping as Dictionary
    from collections.abc import Sequence

    from leakscope.proc.maps import Mapping
    from leakscope.target.borrowed import Gadgets
    from leakscope.trace.attach.plan import Plan, Site

__all__ = ["Injected", "Wishes", "inject"]

_PAGE = 4096
_SLOTS_BYTES = 64 << 14
_FAR = 64 << 30  # from what the kernel maps by itself
_NEAR = (1 << 31) - (64 << 20)
_GONE = {errno.EIO, errno.ESRCH, errno.ENOENT}  # of /proc/PID/mem: its memory is no more
_KNOWN_BY = 64  # bytes of the island
_TRIES, _PAUSE_S = 20, 0.02
_KNOWN_OFFSETS = (0x2D0, 0x30)  # of a thread's number: glibc, musl
_CONTROL_BLOCK = 2048
_TRAMPOLINE = 16  # offset in a stub; before it the way to the hook


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be recorded: as the options of `leakscope run`."""

    sample_bytes: int = 0
    min_size: int = 0
    max_size: int = 0
    depth: int = 256


@dataclass(slots=True)
class Injected:
    """A process that was attached to. `recording` is a descriptor of its recording, ours."""

    attached: Attached
    recording: int
    pauses_ms: dict[str, float] = field(default_factory=dict)
    tries: int = 1

    def handover(self) -> np.void:
        """Return struct ls_handover as it is now. Raises `TargetError` when the process is gone."""
        with Writer(self.attached.pid) as memory:
            raw = memory.read(self.attached.handover, HANDOVER.itemsize)
        if len(raw) < HANDOVER.itemsize:
            raise TargetError(f"process {self.attached.pid} has ended")
        found: np.void = np.frombuffer(raw, HANDOVER)[0]
        return found


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything goes; addresses in the process."""

    islands: tuple[int, ...]
    of_site: dict[int, tuple[int, int]]  # by address of the function: island, stub
    region: tuple[int, int]
    recording: tuple[int, int]
    stamp: int
    slots: int
    live: int
    arena: tuple[int, int]
    wiped: tuple[int, int]


def inject(plan: Plan, wishes: Wishes, max_pause_s: float) -> Injected:
    """Attach to the process of `plan`, or leave it as it was.

    Raises `TargetError` when that cannot be done, or it would stand still for longer than
    `max_pause_s` seconds each time.
    """
    agent = load_agent()
    layout = _lay_out(plan, read_maps(plan.pid), len(agent.image), agent.live_bytes)
    attached = Attached(
        plan.pid, os.getpid(), -1, time.time_ns(), layout.region, layout.recording,
        (layout.region[0], len(agent.image)), layout.slots, layout.region[0] + agent.handover, 0,
        layout.islands,
    )  # fmt: skip
    injected = Injected(attached, -1)
    try:
        apart(partial(_map, plan, layout, injected, max_pause_s))
        patches = _write(plan, layout, wishes, injected)
        apart(partial(_patch, plan, patches, injected, max_pause_s))
    except BaseException as error:
        if injected.recording >= 0:
            os.close(injected.recording)
        with contextlib.suppress(TargetError):
            remove(injected.attached, max_pause_s=max(max_pause_s, 0.5))
        if isinstance(error, OSError):
            raise _failed(plan.pid, error) from error
        raise
    return injected


def _failed(pid: int, error: OSError) -> TargetError:
    """Say what an error while memory was written means: mostly that it is gone."""
    if error.errno in _GONE:
        return _gone(pid)
    return TargetError(f"process {pid} cannot be attached to: {error.strerror}")


# -- where -----------------------------------------------------------------------


def _lay_out(plan: Plan, mappings: Sequence[Mapping], image: int, live: int) -> _Layout:
    taken = [*mappings]
    islands: list[int] = []
    counts: dict[int, int] = {}
    of_site: dict[int, tuple[int, int]] = {}
    for site in plan.sites:
        address = site.function.address
        place = next(
            (one for one in islands if abs(one - address) < _NEAR and counts[one] < MOST_STUBS),
            None,
        )
        if place is None:
            place = _near(taken, address)
            if place is None or len(islands) == 8:
                raise TargetError(
                    f"process {plan.pid} cannot be attached to: there is no room near {site.object.name}"
                )
            islands.append(place)
            counts[place] = 0
            taken = _with(taken, place, ISLAND_BYTES)
        of_site[address] = place, place + CODE + counts[place] * STUB_BYTES
        counts[place] += 1
    live = live + _PAGE - 1 & -_PAGE
    wiped = _PAGE + _SLOTS_BYTES + live
    size = image + wiped + plan.arena_bytes
    region = _far(taken, size, plan.pid)
    taken = _with(taken, region, size)
    recording = _far(taken, plan.recording_bytes, plan.pid)
    stamp = region + image
    return _Layout(
        tuple(islands), of_site, (region, size), (recording, plan.recording_bytes), stamp,
        stamp + _PAGE, stamp + _PAGE + _SLOTS_BYTES,
        (region + image + wiped, plan.arena_bytes), (stamp, wiped),
    )  # fmt: skip


def _near(mappings: Sequence[Mapping], address: int) -> int | None:
    for low, high, below in (
        (address - _NEAR, address - (256 << 20), True),
        (address - (256 << 20), address, True),
        (address, address + _NEAR, False),
    ):
        place = hands.free_place(mappings, ISLAND_BYTES, low, high, below=below)
        if place is not None:
            return place
    return None


def _far(mappings: Sequence[Mapping], size: int, pid: int) -> int:
    """Return a place in the middle of nowhere."""
    gaps = [
        (after.start - before.end, after.start)
        for before, after in itertools.pairwise(mappings)
        if after.start < 1 << 47
    ]
    room, end = max(gaps, default=(0, 0))
    if room < size + (256 << 20):
        raise TargetError(f"process {pid} cannot be attached to: its address space is full")
    return (end - min(_FAR, room // 4) - size) & -(2 << 20)


def _with(mappings: Sequence[Mapping], start: int, size: int) -> list[Mapping]:
    more = replace(mappings[0], start=start, end=start + size, path="", inode=0)
    return sorted([*mappings, more], key=lambda m: m.start)


# -- memory ----------------------------------------------------------------------


def _map(plan: Plan, layout: _Layout, injected: Injected, max_pause_s: float) -> None:
    """Stop one thread, or all where that one is not free, and let it map everything."""
    error: Exception | None = None
    for alone in (True, False, False, False):
        try:
            with Writer(plan.pid) as memory:
                running = hands.Unstopped(memory)
                with hands.instructions(memory, running) as (gadgets, _):
                    _map_with(gadgets, memory, layout, injected, plan, max_pause_s, alone=alone)
        except RefusedError as refused:
            error = refused
            time.sleep(_PAUSE_S)
            continue
        except TooSlowError:
            raise _too_slow(plan.pid, max_pause_s) from None
        except OSError as failed:
            if failed.errno in _GONE:
                raise
            raise TargetError(
                f"process {plan.pid} cannot be attached to: memory for it was refused ({failed.strerror})"
            ) from failed
        return
    raise TargetError(
        f"process {plan.pid} cannot be attached to: {error}", hint="Try again in a moment."
    )


def _map_with(
    gadgets: Gadgets,
    memory: Writer,
    layout: _Layout,
    injected: Injected,
    plan: Plan,
    max_pause_s: float,
    *,
    alone: bool,
) -> None:
    limit_s = max_pause_s + HELD_UP_S
    frozen = Frozen(plan.pid, one=alone, patience_s=max_pause_s, limit_s=limit_s)
    try:
        with frozen:
            _check_threads(frozen, plan)
            deadline = frozen.since_ns / 1e9 + max_pause_s
            with hands.borrow(frozen, gadgets, deadline) as calls:
                _map_all(calls, memory, layout, injected)
    finally:
        if frozen.paused_ns:
            injected.pauses_ms["map"] = frozen.paused_ns / 1e6


def _map_all(calls: hands.Calls, memory: Writer, layout: _Layout, injected: Injected) -> None:
    done: list[tuple[int, int]] = []
    plain = hands.PRIVATE | hands.ANONYMOUS
    try:
        for number, island in enumerate(layout.islands):
            page = pack_secondary(layout.islands[0]) if number else pack(injected.attached)
            kind = plain | hands.FIXED_NOREPLACE
            with calls.unmapped_if_killed(island, ISLAND_BYTES):
                calls.map(island, ISLAND_BYTES, hands.READ | hands.EXEC, kind)
                done.append((island, ISLAND_BYTES))
                memory.write(island, page)  # at once: before, nobody knows of it
            if not number and _is_present(injected.attached.pid, island + CODE):
                raise TargetError(
                    f"process {injected.attached.pid} cannot be attached to: it locks all memory that"
                    " it maps (mlockall), and would lock the recording's, too",
                    hint=f"leakscope scan {injected.attached.pid} reads it from outside.",
                )
        region, size = layout.region
        free = hands.FIXED_NOREPLACE | hands.NORESERVE
        calls.map(region, size, hands.READ | hands.WRITE, plain | free)
        done.append((region, size))
        low, high = load_agent().text
        calls.map(region + low, high - low, hands.READ | hands.EXEC, plain | hands.FIXED)
        _map_recording(calls, layout, injected)
        done.append(layout.recording)
        calls.advise(*layout.wiped, hands.WIPEONFORK)
        calls.advise(*layout.recording, hands.DONTFORK)
        calls.advise(*layout.recording, hands.DONTDUMP)
        calls.check()
    except BaseException:
        for address, bytes_ in reversed(done):
            with contextlib.suppress(OSError):
                calls.unmap(address, bytes_)
        raise


def _map_recording(calls: hands.Calls, layout: _Layout, injected: Injected) -> None:
    """Map the recording, which has no name, and open it from here."""
    pid = living_task(injected.attached.pid)
    address, size = layout.recording
    both = hands.READ | hands.WRITE
    shared = hands.SHARED | hands.NORESERVE | hands.FIXED_NOREPLACE
    calls.map(address, size, both, shared | hands.ANONYMOUS)
    path = f"/proc/{pid}/map_files/{address:x}-{address + size:x}"
    try:
        injected.recording = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # Only root may do that. A file of the process's own, opened for a moment, does as well.
        calls.unmap(address, size)
        fd = calls.memory_file(size)
        try:
            injected.recording = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
            calls.map(address, size, both, shared, fd)
        finally:
            calls.close(fd)


def _is_present(pid: int, address: int) -> bool:
    """Whether memory that nobody has touched is there: the kernel does that where it is locked."""
    try:
        fd = os.open(f"/proc/{living_task(pid)}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(int.from_bytes(os.pread(fd, 8, address // _PAGE * 8), "little") >> 62)
    finally:
        os.close(fd)


def _check_threads(frozen: Frozen, plan: Plan) -> None:
    """Refuse where the thread pointer is not the C library's: then no thread can be known."""
    for tid, pointer in hands.thread_pointers(frozen).items():
        if frozen.read(pointer, 8) != pointer.to_bytes(8, "little"):
            raise TargetError(
                f"process {plan.pid} cannot be attached to: the thread pointer of thread {tid} is not"
                " that of a C library, so its threads cannot be told apart (Go?)",
                hint=f"leakscope scan {plan.pid} looks at it from outside.",
            )


def _too_slow(pid: int, max_pause_s: float) -> TargetError:
    return TargetError(
        f"process {pid} would have stood still for longer than {max_pause_s:g} s, so what was begun was undone",
        hint="Try again when the machine is calmer, or allow more with --max-pause SECONDS.",
    )


# -- the agent -------------------------------------------------------------------


def _write(
    plan: Plan, layout: _Layout, wishes: Wishes, injected: Injected
) -> list[tuple[Site, Patch]]:
    """Write the agent and the islands; the process runs on and knows nothing of them."""
    agent = load_agent()
    base = layout.region[0]
    hooks = {entry.name: base + entry.hook for entry in agent.table}
    patches: list[tuple[Site, Patch]] = []
    reals: dict[str, int] = {}
    with Writer(plan.pid) as memory:
        _check_same(memory, injected)
        for site in plan.sites:
            address = site.function.address
            _, stub = layout.of_site[address]
            try:
                _, moved = displace(site.code, address, stub + _TRAMPOLINE)
                jump = near_jump(address, stub)
            except CodeError as error:
                raise TargetError(
                    f"{site.name} of {site.object.name} cannot be replaced: {error}"
                ) from None
            if len(moved) > STUB_BYTES - _TRAMPOLINE:
                raise TargetError(
                    f"{site.name} of {site.object.name} begins with too many instructions"
                )
            memory.write(stub, far_jump(hooks[site.name]).ljust(_TRAMPOLINE, b"\xcc") + moved)
            for name in (site.name, *site.aliases):
                reals[name] = stub + _TRAMPOLINE
            patches.append((site, Patch(address, site.code[: len(jump)], jump, plain=True)))
        owner = next((s.object for s in plan.sites if s.name == "malloc"), None)
        for name, function in owner.functions.items() if owner is not None else ():
            reals.setdefault(name, function.address)
        values = _values(plan, layout, wishes)
        image = agent.placed(
            base, values, reals, {agent.slots_at: layout.slots, agent.tid_offset_at: 0}
        )
        for start, end in ((0, agent.text[0]), agent.text, (agent.text[1], len(image))):
            memory.write(base + start, image[start:end])
        memory.write(layout.stamp, (1).to_bytes(8, "little"))
    return patches


def _check_same(memory: Writer, injected: Injected) -> None:
    """Refuse where the process has called exec since it was mapped to: then that is not there."""
    wanted = pack(injected.attached)[:_KNOWN_BY]
    if memory.read(injected.attached.islands[0], _KNOWN_BY) != wanted:
        raise _gone(injected.attached.pid)


def _gone(pid: int) -> TargetError:
    return TargetError(
        f"process {pid} cannot be attached to: it ended, or began to run another program",
        hint="Try again.",
    )


def _values(plan: Plan, layout: _Layout, wishes: Wishes) -> Dictionary[str, object]:
    objects = plan.objects
    assert objects is not None
    notes = np.zeros((NOTES, 2), np.uint64)
    pairs = objects.notes[: NOTES - 1]
    notes[: len(pairs)] = pairs
    namespace = 0  # not known
    with contextlib.suppress(OSError):
        namespace = Path(f"/proc/{plan.pid}/ns/pid").stat().st_ino
    boot = (read_text("/proc/sys/kernel/random/boot_id") or "").strip()
    return {
        "region": layout.region[0],
        "region_bytes": layout.region[1],
        "live": layout.live,
        "stamp": layout.stamp,
        "arena": layout.arena[0],
        "arena_bytes": layout.arena[1],
        "recording": layout.recording[0],
        "recording_bytes": layout.recording[1],
        "budget_bytes": plan.budget_bytes,
        "main_program": objects.main_program,
        "debug": objects.debug,
        "allocator_low": plan.allocator_span[0],
        "allocator_high": plan.allocator_span[1],
        "sample_bytes": wishes.sample_bytes,
        "min_size": wishes.min_size,
        "max_size": wishes.max_size,
        "depth": wishes.depth,
        "wraps_new": int(plan.wraps_new),
        "pid": plan.inner_pid,
        "pid_namespace": namespace,
        "beat_ns": clock_of(plan.pid),
        "notes": notes,
        "exe": os.fsencode(plan.exe)[:511],
        "boot_id": boot.encode()[:39],
        "allocator": os.fsencode(plan.allocator_path)[:127],
    }


# -- the functions ---------------------------------------------------------------


def _patch(
    plan: Plan, patches: Sequence[tuple[Site, Patch]], injected: Injected, max_pause_s: float
) -> None:
    """Stop all threads and let the functions lead to the agent; tried again when one is in the way."""
    starts = np.array(sorted(patch.address for _, patch in patches), np.uint64)
    plain = _plain_pages(plan, patches)
    reason = ""
    for number in range(_TRIES):
        injected.tries = number + 1
        limit_s = max_pause_s + HELD_UP_S
        frozen = Frozen(plan.pid, patience_s=max_pause_s, limit_s=limit_s)
        try:
            with frozen, Writer(plan.pid) as memory:
                _check_same(memory, injected)
                _check_threads(frozen, plan)
                reason = _in_the_way(frozen, starts)
                if time.monotonic_ns() - frozen.since_ns > max_pause_s * 1e9:
                    raise _too_slow(plan.pid, max_pause_s)
                if not reason:
                    offset = _tid_offset(frozen, plan)
                    memory.write(
                        injected.attached.region[0] + load_agent().tid_offset_at,
                        offset.to_bytes(8, "little"),
                    )
                    rows = tuple(
                        replace(patch, plain=patch.address & -_PAGE in plain)
                        for _, patch in patches
                    )
                    injected.attached = replace(
                        injected.attached,
                        patches=rows,
                        tid_offset=offset,
                        descriptor=injected.recording,
                    )
                    memory.write(injected.attached.islands[0], pack(injected.attached))
                    _check_code(memory, patches, plan)
                    for patch in rows:
                        memory.write(patch.address, patch.jump)
        finally:
            if frozen.paused_ns:
                injected.pauses_ms["patch"] = frozen.paused_ns / 1e6
        if not reason:
            return
        time.sleep(_PAUSE_S)
    raise TargetError(
        f"process {plan.pid} cannot be attached to: {reason}, each of {_TRIES} times",
        hint="Try again in a moment.",
    )


def _in_the_way(frozen: Frozen, starts: np.ndarray) -> str:
    """Say which thread is, or will come back, inside the bytes that are to be replaced."""
    words = hands.stack_words(frozen)
    at = np.searchsorted(starts, words, side="right")
    near = at > 0
    distance = words[near] - starts[at[near] - 1]
    if np.any((distance > 0) & (distance < 5)):
        return "a thread is in the first instructions of one of the functions"
    return ""


def _check_code(memory: Writer, patches: Sequence[tuple[Site, Patch]], plan: Plan) -> None:
    for site, patch in patches:
        if memory.read(patch.address, len(site.code)) != site.code:
            raise TargetError(
                f"process {plan.pid} cannot be attached to: {site.name} was changed meanwhile"
            )


def _plain_pages(plan: Plan, patches: Sequence[tuple[Site, Patch]]) -> set[int]:
    """Return the pages of code, by address, that are as their file has them."""
    from leakscope.trace.attach.objects import open_mapped

    plain: set[int] = set()
    with Writer(plan.pid) as memory:
        for site, patch in patches:
            page = patch.address & -_PAGE
            offset = site.function.file_offset - (patch.address - page)
            if page in plain or offset < 0:
                continue
            try:
                fd = open_mapped(plan.pid, site.object.mapping)
            except OSError:
                continue
            try:
                if os.pread(fd, _PAGE, offset) == memory.read(page, _PAGE):
                    plain.add(page)
            finally:
                os.close(fd)
    return plain


def _tid_offset(frozen: Frozen, plan: Plan) -> int:
    """Return where each thread has its number, from its thread pointer. Raises `TargetError`."""
    votes: dict[int, int] = {}
    pointers = hands.thread_pointers(frozen)
    for tid, pointer in pointers.items():
        raw = frozen.read(pointer, _CONTROL_BLOCK) or frozen.read(pointer, 1024)
        words = np.frombuffer(raw[: len(raw) // 4 * 4], np.uint32)
        for index in np.flatnonzero(words == hands.inner_tid(plan.pid, tid)):
            votes[int(index) * 4] = votes.get(int(index) * 4, 0) + 1
    # One that is just ending may have lost its number already.
    least = len(pointers) - len(pointers) // 10
    fitting = [offset for offset, count in votes.items() if count >= least]
    for offset in _KNOWN_OFFSETS:
        if offset in fitting:
            return offset
    if len(fitting) == 1:
        return fitting[0]
    raise TargetError(
        f"process {plan.pid} cannot be attached to: its C library does not say which thread is which"
    )
