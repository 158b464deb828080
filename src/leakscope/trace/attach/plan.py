# SPDX-License-Identifier: Apache-2.0
"""What an attach would do to a process, and whether that is safe. Nothing is touched for it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.proc.cgroup import memory_limit
from leakscope.proc.freezer import freezing_cgroup
from leakscope.proc.maps import read_maps
from leakscope.proc.naming import name_of
from leakscope.proc.process import living_task, read_executable, refuse_thread
from leakscope.proc.status import read_status
from leakscope.proc.text import read_text
from leakscope.target.borrowed import has_shadow_stack
from leakscope.target.headroom import room_in_cgroups
from leakscope.target.sharing import sharers
from leakscope.target.x86_code import CodeError, displace, jumps_into
from leakscope.trace.attach.beat import is_heard
from leakscope.trace.attach.handover import ALLOCATOR, load_agent
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.objects import MappedFunction, Object, Objects, read_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakscope.proc.maps import Mapping
    from leakscope.trace.attach.island import Attached

__all__ = ["Plan", "Site", "make_plan"]

_NEEDED = ("malloc", "free", "calloc", "realloc")
_KERNEL = (5, 14)
_ROOM = 5 << 30  # address space for the recording; what is not used takes no memory
_ARENA, _ARENA_A_THREAD = 192 << 20, 2 << 20
_SHARE = 8  # of a limit of memory, and of what is free, that the recording may take at most
_LEAST = 16 << 20  # bytes of memory for a recording
_CODE = 32  # bytes of a function that are looked at
_MAPPINGS = 24  # that may come to be
_CHECKERS = re.compile(r"/(lib(asan|tsan|lsan|msan|hwasan|clang_rt\.[a-z]*san)|vgpreload_)[^/]*$")
_NAMES = {
    "jemalloc": re.compile(r"jemalloc"),
    "tcmalloc": re.compile(r"tcmalloc"),
    "mimalloc": re.compile(r"mimalloc"),
    "musl's malloc": re.compile(r"ld-musl|musl.*/libc\.so"),
    "glibc's malloc": re.compile(r"/libc(-[\d.]+)?\.so"),
}


@dataclass(frozen=True, slots=True)
class Site:
    """A function whose first bytes are to lead to the agent."""

    name: str
    group: int
    function: MappedFunction
    object: Object
    code: bytes  # at its beginning, as the file has it
    aliases: tuple[str, ...] = ()  # other names of the same function


@dataclass(frozen=True, slots=True)
class Plan:
    """What an attach would do.

    `refusal` says why it is not done and `hint` what to do instead; None: it can be done.
    """

    pid: int
    name: str
    threads: int = 0
    refusal: str | None = None
    hint: str | None = None
    allocator: str = ""  # in words
    allocator_path: str = ""
    sites: tuple[Site, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # functions that stay as they are, and why
    wraps_new: bool = False
    allocator_span: tuple[int, int] = (0, 0)
    objects: Objects | None = None
    inner_pid: int = 0  # its number in its own namespace
    exe: str = ""
    recording_bytes: int = _ROOM
    arena_bytes: int = _ARENA
    budget_bytes: int = 0

    def replaced(self, group: int) -> tuple[Site, ...]:
        """Return the functions of a group that would lead to the agent."""
        return tuple(site for site in self.sites if site.group == group)


class _RefuseError(Exception):
    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def make_plan(pid: int) -> Plan:
    """Say what attaching to `pid` would do. Raises `TargetError` when it may not be looked at."""
    refuse_thread(pid)
    plan = Plan(pid, name_of(pid).short)
    try:
        return _plan(plan)
    except _RefuseError as error:
        return replace(plan, refusal=str(error), hint=error.hint)


def _plan(plan: Plan) -> Plan:
    pid = plan.pid
    if platform.machine() != "x86_64":
        raise _RefuseError(
            "attaching works on x86-64 only so far",
            "Start the program under leakscope: leakscope run -- PROGRAM",
        )
    mappings = read_maps(pid)
    _check_state(pid, mappings)
    left = _check_company(pid, mappings)
    threads = len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - names are enough
    plan = replace(plan, threads=threads, arena_bytes=_ARENA + threads * _ARENA_A_THREAD)
    _check_limits(plan, mappings)
    table = load_agent().table
    memory = _open_memory(pid)
    try:

        def read(address: int, size: int) -> bytes:
            try:
                found = os.pread(memory, size, address)
            except (OSError, OverflowError):
                return b""
            return found if left is None else left.without(address, found)

        try:
            objects = read_objects(pid, mappings, read, {entry.name for entry in table})
        except ValueError as error:
            raise _RefuseError(str(error)) from None
        owner = _allocator(objects)
        groups = {entry.name: entry.group for entry in table}
        sites, skipped = _sites(objects, owner, groups, mappings, read)
    finally:
        os.close(memory)
    wraps = "_Znwm" in owner.functions and bool(objects.debug)
    _check_whole(sites, skipped, owner, wraps=wraps)
    limit, room = memory_limit(pid), room_in_cgroups(pid)
    if room is not None and room < 2 * _LEAST:
        raise _RefuseError(
            f"its memory cgroup has room for {room:,} bytes more, which the recording might use up",
            f"leakscope scan {pid} reads it from outside; or raise the limit.",
        )
    return replace(
        plan,
        allocator=_words_for(owner, objects),
        allocator_path=owner.path,
        sites=tuple(sites),
        skipped=tuple(skipped),
        wraps_new=wraps,
        allocator_span=(owner.low, owner.high) if objects.debug else (0, 0),
        objects=objects,
        inner_pid=_inner(pid),
        exe=read_executable(pid) or objects.objects[0].path,
        budget_bytes=_budget(limit, room),
    )


def _check_state(pid: int, mappings: Sequence[Mapping]) -> None:
    if pid == os.getpid():
        raise _RefuseError("that is leakscope itself")
    release = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2])
    if release < _KERNEL:
        raise _RefuseError(
            f"the kernel is {os.uname().release}; attaching needs Linux 5.14 or newer",
            "Start the program under leakscope: leakscope run -- PROGRAM",
        )
    status = read_status(pid)
    if status.tracer:
        raise _RefuseError(
            f"process {status.tracer} traces it already, and only one can",
            "Detach that debugger first.",
        )
    if status.state[:1] in "TtZX":
        state = "has ended" if status.state[:1] in "ZX" else "is stopped"
        raise _RefuseError(f"it {state}", None if state == "has ended" else f"kill -CONT {pid}")
    if not mappings:
        raise _RefuseError("it is a thread of the kernel, and has no heap")
    frozen = freezing_cgroup(pid)
    if frozen is not None:
        raise _RefuseError(
            f"the freezer of its cgroup {frozen} holds it", "Thaw that cgroup, and try again."
        )
    waits = False
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = read_text(f"{task}/status") or ""
        if text and "\nSeccomp:\t0" not in text:
            raise _RefuseError(
                "it lives under a system call filter (seccomp), which may kill it for what attaching does",
                f"leakscope scan {pid} reads it from outside; or start it under leakscope run",
            )
        if has_shadow_stack(int(task.name)):
            raise _RefuseError("its return addresses are guarded by a shadow stack")
        waits |= "\nState:\tD" in text
    other = None if waits else next(sharers(pid), None)  # one that waits has a child of vfork
    if other is not None:
        raise _RefuseError(
            f"process {other} runs in its memory, too, and would not be stopped with it",
            f"leakscope scan {pid} reads it from outside.",
        )


def _check_company(pid: int, mappings: Sequence[Mapping]) -> Attached | None:
    """Return what an earlier attach has left, which is taken out before anything else is done."""
    for mapping in mappings:
        if Path(mapping.path).name.startswith("libleakscope-agent"):
            raise _RefuseError("the agent is in it already", f"leakscope report {pid}")
        if _CHECKERS.search(mapping.path):
            raise _RefuseError(
                f"it runs under a checker of its own ({Path(mapping.path).name}), which replaces the allocator",
                "That checker finds leaks itself.",
            )
    attached = find_attached(pid)
    if attached is not None and is_heard(attached):
        raise _RefuseError(
            f"it is attached already, by process {attached.tracer}", f"leakscope detach {pid}"
        )
    return attached


def _check_limits(plan: Plan, mappings: Sequence[Mapping]) -> None:
    pid = plan.pid
    text = read_text(f"/proc/{living_task(pid)}/status") or ""

    def kib(name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) << 10 if found else 0

    size, locked = kib("VmSize"), kib("VmLck")
    if locked > size // 2:
        raise _RefuseError(
            "it locks all of its memory (mlockall), and would lock the recording's, too"
        )
    limits = read_text(f"/proc/{pid}/limits") or ""
    wanted = plan.recording_bytes + plan.arena_bytes + (8 << 20)
    for name, used, needed in (
        ("Max address space", size, wanted),
        ("Max data size", kib("VmData"), wanted - plan.recording_bytes),
    ):
        found = re.search(rf"^{name}\s+(\d+)", limits, re.MULTILINE)
        if found and used + needed > int(found[1]):
            raise _RefuseError(f"its limit is too low ({name.lower()}, {int(found[1]):,} bytes)")
    most = int((read_text("/proc/sys/vm/max_map_count") or "65530").strip() or 65530)
    if len(mappings) + _MAPPINGS > most:
        raise _RefuseError("it has nearly as many mappings as the kernel allows (vm.max_map_count)")
    if (read_text("/proc/sys/vm/overcommit_memory") or "").strip() == "2":
        free = _meminfo("CommitLimit") - _meminfo("Committed_AS")
        if free < wanted:
            raise _RefuseError(
                "the kernel counts all memory that is promised (vm.overcommit_memory is 2), and not"
                " enough is left"
            )


def _meminfo(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", read_text("/proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _budget(limit: int | None, room: int | None) -> int:
    shares = [_meminfo("MemAvailable") // _SHARE]
    if limit is not None:
        shares.append(limit // _SHARE)
    if room is not None:
        shares.append(room // 2)
    return max(min(shares), _LEAST) & -4096


def _open_memory(pid: int) -> int:
    try:
        return os.open(f"/proc/{living_task(pid)}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise TargetError(
            f"the memory of process {pid} may not be read by this user",
            hint="Run as the user it runs as, or as root (it needs CAP_SYS_PTRACE).",
        ) from None
    except OSError as error:
        raise TargetError(f"process {pid} cannot be looked at: {error.strerror}") from error


def _inner(pid: int) -> int:
    text = read_text(f"/proc/{pid}/status") or ""
    numbers = text.partition("\nNSpid:")[2].partition("\n")[0].split()
    return int(numbers[-1]) if numbers else pid


def _allocator(objects: Objects) -> Object:
    for one in objects.objects:
        if all(name in one.functions for name in ("malloc", "free")):
            return one
    main = objects.objects[0]
    raise _RefuseError(
        f"no function malloc was found in {main.name}"
        + (
            ""
            if objects.debug
            else ", which is statically linked: its names are stripped, or it is not C"
        ),
        "leakscope watch PID and leakscope scan PID look at it from outside.",
    )


def _words_for(owner: Object, objects: Objects) -> str:
    for words, pattern in _NAMES.items():
        if owner is not objects.objects[0] and pattern.search(owner.path):
            return f"{words} ({owner.path})"
    if owner is objects.objects[0]:
        return f"the malloc inside the program itself ({owner.path})"
    return f"the malloc of {owner.path}"


def _sites(
    objects: Objects,
    owner: Object,
    groups: dict[str, int],
    mappings: Sequence[Mapping],
    read: Callable[[int, int], bytes],
) -> tuple[list[Site], list[tuple[str, str]]]:
    """Choose the functions: the allocator's own, and of each other the one that the loader binds."""
    by_address: dict[int, Site] = {}
    skipped: list[tuple[str, str]] = []
    for name, group in groups.items():
        places = (owner,) if group == ALLOCATOR else objects.objects
        one = next((place for place in places if name in place.functions), None)
        if one is None:
            continue
        function = one.functions[name]
        known = by_address.get(function.address)
        if known is not None:
            by_address[function.address] = replace(known, aliases=(*known.aliases, name))
            continue
        try:
            code = _checked(one, function, mappings, read)
        except CodeError as error:
            skipped.append((name, str(error)))
            continue
        by_address[function.address] = Site(name, group, function, one, code)
    return list(by_address.values()), skipped


def _checked(
    one: Object,
    function: MappedFunction,
    mappings: Sequence[Mapping],
    read: Callable[[int, int], bytes],
) -> bytes:
    """Return the function's code when it can be moved. Raises `CodeError`, `_RefuseError`."""
    place = next((m for m in mappings if m.start <= function.address < m.end), None)
    code = one.file.get(function.file_offset, b"")
    if place is None or place.permissions != "r-xp" or place.inode != one.mapping.inode:
        raise CodeError("its code is not where its file has it")
    if read(function.address, _CODE) != code[:_CODE]:
        raise _RefuseError(
            f"the code of {function.name} in {one.name} is not that of its file:"
            " a debugger, a probe or another tool has changed it",
            "Remove what changed it, or restart the program.",
        )
    if 0 < function.size < 5:
        raise CodeError("it is shorter than a jump")
    length, _ = displace(code[:_CODE], function.address, function.address)
    if function.size and length > function.size:
        raise CodeError("it is shorter than a jump")
    if jumps_into(code[: function.size or _CODE], 1, 5):
        raise CodeError("something in it jumps to its beginning")
    return code[:_CODE]


def _check_whole(
    sites: Sequence[Site], skipped: Sequence[tuple[str, str]], owner: Object, *, wraps: bool
) -> None:
    """Refuse where frees would be missed of what is seen to be allocated."""
    found = {name for site in sites for name in (site.name, *site.aliases)}
    reasons = dict(skipped)
    needed = [name for name in _NEEDED if name in owner.functions or name in ("malloc", "free")]
    if wraps:
        needed += [name for name in owner.functions if name.startswith(("_Zdl", "_Zda"))]
    for name in needed:
        if name not in found:
            reason = reasons.get(name, "it was not found")
            raise _RefuseError(f"{name} of {owner.name} cannot be replaced: {reason}")
