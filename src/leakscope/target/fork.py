# SPDX-License-Identifier: Apache-2.0
"""A copy-on-write copy of a stopped process, which never runs, and holds nothing but memory.

A stopped thread clones a helper that shares everything, and that one clones the copy and ends, so
that the copy is no child of the process: no wait of it can see one. Before the process goes on,
the copy has dropped what others could notice: its descriptors (`close_range` with
CLOSE_RANGE_UNSHARE and an empty rest, so that none is even taken over beyond the first 64), its
shared mappings, its working directory, its session. It has no exit signal, and the highest
oom_score_adj. When we are killed, the kernel kills it.

`why_not` says where such a copy could still be noticed or do harm.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.proc.maps import read_maps
from leakscope.proc.text import read_text
from leakscope.target.areas import why_not_forked
from leakscope.target.borrowed import (
    Borrowed,
    RefusedError,
    borrow_thread,
    wait_stop,
)
from leakscope.target.headroom import lack_of_memory, lack_of_processes, overcommits
from leakscope.target.ptrace import ALL, OPTION_EXITKILL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.proc.maps import Mapping
    from leakscope.target.areas import Area
    from leakscope.target.frozen import Frozen

__all__ = ["fork", "kill", "why_not", "worst_case"]

_CLONE, _WAIT4, _PRCTL, _CLOSE_RANGE, _SETSID, _CHDIR, _MUNMAP = 56, 61, 157, 436, 112, 80, 11
_VM, _FILES = 0x100, 0x400
_GET_CHILD_SUBREAPER = 37
_UNSHARE = 2
_ALL_DESCRIPTORS = (1 << 32) - 1
_KEPT_FIRST = 64  # descriptors that the kernel takes over and closes at once
_FLUSHED = ("fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs", "lustre", "ecryptfs", "overlay-nfs")
_KILL_TIMEOUT_S = 5.0
_PER_PAGE = 16  # bytes of page tables and the like, at most
_SIGCHLD = 1 << 16


def worst_case(areas: Sequence[Area]) -> int:
    """Return how many bytes more there are when the process has written to all of its memory."""
    own = sum(area.own + area.swapped for area in areas if not area.is_shared)
    return own + own // 4096 * _PER_PAGE + (1 << 20)


def why_not(pid: int, areas: Sequence[Area], own: Sequence[tuple[int, int]]) -> str | None:
    """Say why no copy can be made of the running process without harm; None: it can."""
    if platform.machine() != "x86_64":
        return "it can be done on x86-64 alone"
    if not overcommits():
        return "the kernel counts all memory that is promised (vm.overcommit_memory is 2)"
    return (
        why_not_forked(areas, own)
        or lack_of_memory(pid, worst_case(areas))
        or lack_of_processes(pid)
        or _no_reaper(pid)
        or _flushed(pid)
    )


def _no_reaper(pid: int) -> str | None:
    """Say why nobody may be given the copy when it ends: an orphan goes to its namespace's init."""
    status = read_text(f"/proc/{pid}/status") or ""
    numbers = status.partition("\nNSpid:")[2].partition("\n")[0].split()
    if numbers[-1:] == ["1"]:
        return "it is the init of its pid namespace, to whom every orphan is given"
    init = _init_of(pid)
    if init is None:
        return "the init of its pid namespace cannot be seen"
    status = read_text(f"/proc/{init}/status") or ""
    reaps = 0
    for name in ("SigCgt", "SigIgn", "SigBlk"):
        word = status.partition(f"\n{name}:\t")[2].partition("\n")[0]
        reaps |= int(word or "0", 16) & _SIGCHLD
    stat = (read_text(f"/proc/{init}/stat") or "").rpartition(")")[2].split()
    # Page faults of children that it has waited for: some init does so without the signal.
    if not reaps and (len(stat) < 9 or stat[8] == "0"):
        return "the init of its pid namespace does not look after orphans"
    return None


def _init_of(pid: int) -> int | None:
    """Return the first process of the namespace that `pid` is in, as it is called here."""
    try:
        inside = Path(f"/proc/{pid}/ns/pid").stat().st_ino
        if Path("/proc/self/ns/pid").stat().st_ino == inside:
            return 1
    except OSError:
        return None
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            status = read_text(f"{folder}/status") or ""
            numbers = status.partition("\nNSpid:")[2].partition("\n")[0].split()
            if len(numbers) > 1 and numbers[-1] == "1":
                with contextlib.suppress(OSError):
                    if (folder / "ns" / "pid").stat().st_ino == inside:
                        return int(folder.name)
    return None


def _flushed(pid: int) -> str | None:
    """Say which file would be told that a descriptor of it is closed: those of file servers."""
    kinds: dict[str, str] = {}
    for line in (read_text(f"/proc/{pid}/mountinfo") or "").split("\n"):
        before, dash, after = line.partition(" - ")
        if dash:
            kinds[before.split(" ")[0]] = after.split(" ")[0]
    for number in range(_KEPT_FIRST):
        text = read_text(f"/proc/{pid}/fdinfo/{number}", 4096) or ""
        mount = text.partition("mnt_id:")[2].partition("\n")[0].strip()
        if kinds.get(mount, "").startswith(_FLUSHED):
            return f"it has a file of a file server open ({kinds[mount]})"
    return None


def fork(frozen: Frozen) -> int:
    """Return the pid of a copy of the stopped process, stopped, and ours.

    Raises `RefusedError` when it cannot be done: then nothing has changed.
    """
    with borrow_thread(frozen) as thread:
        return _clone(frozen, thread)


def _clone(frozen: Frozen, thread: Borrowed) -> int:
    result, _ = thread.call(_PRCTL, _GET_CHILD_SUBREAPER, thread.letter)
    if result != 0 or thread.read_letter(4) != bytes(4):
        raise RefusedError("it is one to whom orphans are given (PR_SET_CHILD_SUBREAPER)")
    # The first is its number where the process lives, the second where we do.
    number, between = thread.call(_CLONE, _VM | _FILES, thread.child_stack)
    if not between:
        raise RefusedError(f"its fork failed: {os.strerror(-number & 0xFFF)}")
    image = 0
    try:
        wait_stop(between)
        helper = thread.child(between)
        helper.options(OPTION_EXITKILL)
        # The root directory's name lies in the copy, too.
        thread.write(b"/\0")
        result, image = helper.call(_CLONE, _FILES)
        if not image:
            raise RefusedError(f"its fork failed: {os.strerror(-result & 0xFFF)}")
        wait_stop(image)
        _empty(frozen, thread, image)
        helper.end()
        _check_parent(frozen, image)
    except BaseException:
        if image:
            kill(image)
        raise
    finally:
        kill(between)
        thread.call(_WAIT4, number, 0, ALL | os.WNOHANG)
    return image


def _empty(frozen: Frozen, thread: Borrowed, image: int) -> None:
    """Let the copy drop what it shares with others."""
    copy = thread.child(image)
    copy.options(OPTION_EXITKILL)
    result, _ = copy.call(_CLOSE_RANGE, 0, _ALL_DESCRIPTORS, _UNSHARE)
    if result:
        raise RefusedError(f"its copy cannot leave its files alone: {os.strerror(-result & 0xFFF)}")
    with contextlib.suppress(OSError):
        Path(f"/proc/{image}/oom_score_adj").write_text("1000", encoding="ascii")
    copy.call(_SETSID)
    copy.call(_CHDIR, thread.letter)
    for mapping in _shared(frozen.mappings):
        result, _ = copy.call(_MUNMAP, mapping.start, mapping.end - mapping.start)
        if result:
            raise RefusedError("its copy cannot leave shared memory alone")
    missing = _missing(frozen.mappings, read_maps(image))
    if missing:
        raise RefusedError(f"{missing:,} bytes of its memory are kept from children")


def _shared(mappings: Sequence[Mapping]) -> list[Mapping]:
    return [m for m in mappings if m.permissions[3] == "s"]


def _missing(ours: Sequence[Mapping], copy: Sequence[Mapping]) -> int:
    """Bytes of writable private memory that the copy lacks (MADV_DONTFORK)."""
    spans = {m.start: m.end for m in copy if "w" in m.permissions}
    return sum(
        m.end - m.start
        for m in ours
        if m.permissions[1] == "w" and m.permissions[3] == "p" and spans.get(m.start, 0) < m.end
    )


def _check_parent(frozen: Frozen, image: int) -> None:
    status = read_text(f"/proc/{image}/status") or ""
    if status.partition("\nPPid:\t")[2].partition("\n")[0] in {"", str(frozen.pid)}:
        raise RefusedError("its copy would be its child")


def kill(image: int) -> None:
    """Kill a copy and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(image, signal.SIGKILL)
    end = time.monotonic() + _KILL_TIMEOUT_S
    while time.monotonic() < end:
        try:
            done, status = os.waitpid(image, ALL | os.WNOHANG)
        except ChildProcessError:
            return
        if done and not os.WIFSTOPPED(status):
            return
        time.sleep(0.0001)
