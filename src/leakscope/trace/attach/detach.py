# SPDX-License-Identifier: Apache-2.0
"""Take out what an attach has left in a process, by whomever, and however that one ended."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.freezer import freezing_cgroup
from leakscope.proc.maps import read_maps
from leakscope.proc.process import children_of, pids
from leakscope.proc.text import read_text
from leakscope.target.borrowed import RefusedError
from leakscope.target.frozen import Frozen, apart
from leakscope.target.lease import HELD_UP_S
from leakscope.target.sharing import sharers
from leakscope.trace.attach import hands
from leakscope.trace.attach.hands import Writer
from leakscope.trace.attach.island import ISLAND_BYTES, all_attached, find_attached, pack
from leakscope.trace.attach.objects import open_mapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.proc.maps import Mapping
    from leakscope.trace.attach.island import Attached

__all__ = ["Removed", "followed_by", "remove", "remove_from_children"]

_PAGE = 4096
_TRIES = 60
_SHORT_S, _LONG_S = 0.002, 0.1
_SLOT = np.dtype([("thread", "<u8"), ("busy", "<u8"), ("rest", "V32"), ("pointer", "<u8"),
                  ("tid", "<u4"), ("frames", "<u4")])  # fmt: skip
_SLOTS = 1 << 14
_RESTORERS = (b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", b"\xb8\x0f\x00\x00\x00\x0f\x05")
_FRAME_IP = 8 + 40 + 16 * 8  # from the return address of a handler to the interrupted one
_STACK_BYTES = 64 << 10


@dataclass(slots=True)
class Removed:
    """What became of an attach. `pid` is the process."""

    pid: int
    pause_ms: float = 0.0  # the longest of all threads
    alone_ms: float = 0.0  # and of one
    tries: int = 0
    restored: bool = False  # the functions have their own bytes
    unmapped: bool = False
    reason: str = ""  # why its memory is still there
    failed: bool = False  # the functions still lead to the agent, for that reason
    absent: bool = False  # there was nothing: it ended, runs another program, or is detached
    foreign: int = 0  # functions that somebody else has changed since: left alone


def remove(attached: Attached, *, max_pause_s: float) -> Removed:
    """Give the functions of the process back their bytes, and unmap what was mapped.

    Where a thread is in the agent's code the memory stays mapped after some tries, and is not used.
    Raises `TargetError` when the process may not be stopped; one that has ended is no error.
    """
    result = Removed(attached.pid)
    for number in range(_TRIES):
        result.tries = number + 1
        mappings = _mappings(attached.pid)
        current = _current(attached, mappings)
        if current is None:  # it has ended, or runs another program now
            result.unmapped = True
            result.absent = number == 0
            return result
        attached = current
        try:
            apart(partial(_try, attached, mappings, result, max_pause_s))
        except TargetError:
            if _current(attached, _mappings(attached.pid)) is None:  # ended meanwhile
                result.unmapped = True
                return result
            if number + 1 == _TRIES or freezing_cgroup(attached.pid) is not None:
                raise
            time.sleep(_SHORT_S if number < _TRIES // 2 else _LONG_S)
            continue
        except RefusedError as error:
            result.reason = str(error)
        except OSError as error:
            result.reason = f"a system call in it failed ({error.strerror})"
        if _is_filtered(attached.pid) and number:
            result.reason = "it lives under a system call filter (seccomp) now"
            break
        if result.unmapped:
            result.reason = ""
            return result
        time.sleep(_SHORT_S if number < _TRIES // 2 else _LONG_S)
    result.reason = result.reason or "none of its threads could be borrowed"
    if not result.restored:
        raise TargetError(f"process {attached.pid} cannot be detached: {result.reason}")
    with contextlib.suppress(TargetError, OSError), Writer(attached.pid) as memory:
        memory.write(attached.islands[0], pack(replace(attached, tracer=0, patches=())))
    return result


def _is_filtered(pid: int) -> bool:
    return "\nSeccomp:\t0" not in (read_text(f"/proc/{pid}/status") or "\nSeccomp:\t0")


def _try(
    attached: Attached, mappings: Sequence[Mapping], result: Removed, max_pause_s: float
) -> None:
    """Stop all threads to give the bytes back; then one, to unmap what nobody comes to any more."""
    patience_s = max(max_pause_s, 0.5)
    with Writer(attached.pid) as memory:
        running = hands.Unstopped(memory)
        restorers = _restorers(running)
        other = next(sharers(attached.pid), None)
        limit_s = patience_s + HELD_UP_S
        frozen = Frozen(attached.pid, patience_s=patience_s, limit_s=limit_s)
        try:
            with frozen:
                if _current(attached, frozen.mappings) is None:
                    result.unmapped = True
                    return
                _restore(attached, memory, result)
                result.restored = True
                result.reason = _inside(attached, frozen, restorers)
                if other is not None and not result.reason:
                    result.reason = f"process {other} runs in its memory, too, and may be in it"
        finally:
            result.pause_ms = max(result.pause_ms, frozen.paused_ns / 1e6)
        if result.reason:
            return
        dirty = _restorable(attached, mappings)
        with hands.instructions(memory, running) as (gadgets, lent):
            for alone in (True, False):  # that one may not be free
                frozen = Frozen(attached.pid, one=alone, patience_s=patience_s, limit_s=limit_s)
                try:
                    with frozen, hands.borrow(frozen, gadgets, None) as calls:
                        if _current(attached, frozen.mappings) is None:
                            result.unmapped = True  # with what it ran before
                            return
                        for page in set(dirty) - lent:
                            with contextlib.suppress(OSError):
                                calls.advise(page, _PAGE, hands.DONTNEED)
                        _unmap(attached, frozen, calls)
                        result.unmapped = True
                        return
                except RefusedError:
                    if not alone:
                        raise
                finally:
                    result.alone_ms = max(result.alone_ms, frozen.paused_ns / 1e6)


def _current(attached: Attached, mappings: Sequence[Mapping]) -> Attached | None:
    """Return the same attach as it is in the process now, None when it is not there any more."""
    with contextlib.suppress(TargetError):
        for one in all_attached(attached.pid, mappings):
            if one.identity == attached.identity:
                return one
    return None


def remove_from_children(attached: Attached, *, max_pause_s: float) -> list[Removed]:
    """Do the same to the processes that were forked from it while it was attached."""
    found = []
    for pid in pids():
        if pid == attached.pid:
            continue
        with contextlib.suppress(TargetError):
            mappings = read_maps(pid)
            if not any(m.start == attached.islands[0] for m in mappings):
                continue
            one = find_attached(pid, mappings)
            if one is None or one.identity != attached.identity:
                continue
            try:
                found.append(remove(one, max_pause_s=max_pause_s))
            except TargetError as error:
                found.append(Removed(pid, reason=str(error), failed=True))
    return found


def followed_by(attached: Attached) -> list[Attached]:
    """Return what the same leakscope has left in the descendants of the process."""
    found: list[Attached] = []
    pending = [*children_of(attached.pid)]
    while pending:
        pid = pending.pop()
        pending += children_of(pid)
        with contextlib.suppress(TargetError):
            one = find_attached(pid)
            if one is not None and one.patches and one.tracer == attached.tracer:
                found.append(one)
    return found


def _mappings(pid: int) -> Sequence[Mapping]:
    try:
        return read_maps(pid)
    except TargetError as error:
        if "no process" in str(error):
            return ()
        raise


def _restore(attached: Attached, memory: Writer, result: Removed) -> None:
    result.foreign = 0
    for patch in attached.patches:
        now = memory.read(patch.address, len(patch.jump))
        if now == patch.jump:
            memory.write(patch.address, patch.kept)
        elif now and now != patch.kept:
            result.foreign += 1


def _restorable(attached: Attached, mappings: Sequence[Mapping]) -> list[int]:
    """Return pages whose private copies can go: with our bytes back, they are as their file."""
    kept = {patch.address: patch for patch in attached.patches}
    pages: dict[int, list[int]] = {}
    for address in kept:
        pages.setdefault(address & -_PAGE, []).append(address)
    found = []
    with Writer(attached.pid) as memory:
        for page, addresses in pages.items():
            place = next((m for m in mappings if m.start <= page < m.end), None)
            if place is None or not place.inode or place.permissions != "r-xp":
                continue
            if not all(kept[each].plain for each in addresses):
                continue
            raw = bytearray(memory.read(page, _PAGE))
            if len(raw) < _PAGE:
                continue
            for each in addresses:
                at = each - page
                end = min(at + len(kept[each].kept), _PAGE)
                raw[at:end] = kept[each].kept[: end - at]
            try:
                fd = open_mapped(attached.pid, place)
            except OSError:
                continue
            try:
                if os.pread(fd, _PAGE, page - place.start + place.offset) == bytes(raw):
                    found.append(page)
            finally:
                os.close(fd)
    return found


def _unmap(attached: Attached, frozen: Frozen, calls: hands.Calls) -> None:
    """Unmap all of it, what tells of it last."""
    there = frozen.mappings
    for address, size in (attached.recording, attached.region):
        if any(m.start < address + size and m.end > address for m in there):
            calls.unmap(address, size)
    for island in reversed(attached.islands):
        if any(m.start <= island < m.end for m in there):
            calls.unmap(island, ISLAND_BYTES)


def _inside(attached: Attached, frozen: Frozen, restorers: np.ndarray) -> str:
    """Say why the agent's code must stay: a thread is in it, or comes back to it. "": it can go."""
    spans = [(start, end) for start, end in attached.code if start]
    for thread in frozen.threads:
        if any(start <= thread.pc < end for start, end in spans):
            return f"thread {thread.tid} is in it"
    raw = frozen.read(attached.slots, _SLOTS * _SLOT.itemsize)
    if len(raw) == _SLOTS * _SLOT.itemsize:
        slots = np.frombuffer(raw, _SLOT)
        used = slots[(slots["pointer"] != 0) & ((slots["busy"] != 0) | (slots["frames"] != 0))]
        if len(used):
            numbers = {
                (thread.tls, hands.inner_tid(attached.pid, thread.tid)) for thread in frozen.threads
            }
            for slot in used:
                if (int(slot["pointer"]), int(slot["tid"])) in numbers:
                    return f"thread {int(slot['tid'])} is in a function of it"
    return _interrupted(frozen, spans, restorers)


def _interrupted(frozen: Frozen, spans: Sequence[tuple[int, int]], restorers: np.ndarray) -> str:
    """Look for handlers of signals that came while a thread was in the code."""
    for thread in frozen.threads:
        low = thread.sp & -8
        place = next((m for m in frozen.mappings if m.start <= low < m.end), None)
        if place is None:
            continue
        raw = frozen.read(low, min(place.end - low, _STACK_BYTES))
        words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
        for index in np.flatnonzero(np.isin(words, restorers)):
            at = int(index) + _FRAME_IP // 8
            if at < len(words) and any(start <= int(words[at]) < end for start, end in spans):
                return f"a signal came to thread {thread.tid} while it was in it"
    return ""


_known: dict[tuple[int, int, str], list[int]] = {}


def _restorers(memory: hands.Unstopped) -> np.ndarray:
    """Return where handlers of signals may return to: the C library's, and others alike."""
    found: list[int] = []
    for mapping in memory.mappings:
        if "x" not in mapping.permissions or not mapping.inode:
            continue
        name = mapping.path.rpartition("/")[2]
        is_main = mapping.path == memory.mappings[0].path
        if not (is_main or name.startswith(("libc.", "libc-", "ld-musl", "libpthread"))):
            continue
        key = mapping.inode, mapping.offset, mapping.path
        if key not in _known:
            code = memory.read(mapping.start, min(mapping.end - mapping.start, 16 << 20))
            places = []
            for form in _RESTORERS:
                at = code.find(form)
                while at >= 0:
                    places.append(at)
                    at = code.find(form, at + 1)
            _known[key] = places
        found += [mapping.start + place for place in _known[key]]
    return np.array(found, np.uint64)
