# SPDX-License-Identifier: Apache-2.0
"""Find out what works on this machine, for one program or process, by looking and trying.

Every check says what was found and, when something is missing, what it is good for and how
to enable it. Nothing is changed.
"""

from __future__ import annotations

import enum
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope._paths import exists
from leakscope.errors import LeakscopeError, TargetError
from leakscope.proc import elf
from leakscope.proc.isolated import find_program
from leakscope.proc.maps import Mapping, read_maps
from leakscope.proc.process import living_task, may_read_memory, read_executable, refuse_thread
from leakscope.proc.status import (
    CAP_BPF,
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    ProcessStatus,
    read_status,
)
from leakscope.trace._preload import agent_path, preload_value, safe_copy
from leakscope.trace.live_files import PAUSED, find_live_file, list_live_files
from leakscope.trace.output import SHARED_MEMORY
from leakscope.trace.preflight import inspect_program
from leakscope.trace.settings import CONFIG_FILE, Settings
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Check", "Checkup", "State", "allocator_of", "examine", "libc_of"]

_TRIAL_SECONDS = 20
_KERNEL_WANTED = (5, 14)
_ALLOCATORS = {
    "jemalloc": re.compile(r"libjemalloc\b"),
    "tcmalloc": re.compile(r"libtcmalloc(_minimal|_debug|_and_profiler)*\b"),
    "mimalloc": re.compile(r"libmimalloc\b"),
    "hoard": re.compile(r"libhoard\b"),
    "snmalloc": re.compile(r"libsnmalloc"),
}
_MUSL = re.compile(r"(ld-musl-\w+|libc\.musl-\w+)\.so|/musl/lib/libc\.so|-linux-musl/libc\.so")
_GLIBC = re.compile(r"/libc(-2\.\d+)?\.so(\.6)?$")


class State(enum.StrEnum):
    """What a check found."""

    WORKS = "works"
    LIMITED = "limited"  # works, with a loss that the text names
    MISSING = "missing"  # of use, not necessary
    BROKEN = "broken"  # necessary
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `fix` is how to enable what is missing."""

    name: str
    state: State
    text: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything about one subject. `able`: it can be traced, or a process can be scanned."""

    subject: str
    able: bool
    verdict: str
    checks: tuple[Check, ...]


def examine(subject: str | None = None) -> Checkup:
    """Check this machine and, if named, a program or (a decimal number) a process.

    Raises `TargetError` for a process that does not exist or may not be looked at; a
    program that cannot be traced is a result, not an error.
    """
    machine = (*_machine(), *_elsewhere())
    trial = next(check for check in machine if check.name == "agent")
    if subject is None:
        able = trial.state is State.WORKS
        verdict = "programs can be traced here" if able else f"nothing can be traced: {trial.text}"
        return Checkup("this machine", able, verdict, machine)
    if is_number(subject) and not exists(subject):
        able, verdict, checks = _process(int(subject))
        return Checkup(f"process {subject}", able, verdict, (*checks, *machine))
    able, verdict, checks = _program(subject)
    if able and trial.state is not State.WORKS:
        able, verdict = False, f"{subject} cannot be traced: {trial.text}"
    return Checkup(subject, able, verdict, (*checks, *machine))


# -- the machine ---------------------------------------------------------------


def _machine() -> Iterator[Check]:
    yield _agent()
    yield _kernel()
    yield _shared_memory()
    yield _libc_here()
    yield _symbols_here()
    yield from _container()
    yield from _leftovers()


def _agent() -> Check:
    try:
        agent = agent_path()
    except TargetError as error:
        return Check("agent", State.BROKEN, str(error), error.hint)
    try:
        place = tempfile.TemporaryDirectory(prefix="leakscope-doctor-")
    except OSError as error:
        return Check("agent", State.BROKEN, f"there is no folder for a trial: {error.strerror}")
    with place as folder:
        try:
            preload = preload_value(safe_copy(agent, Path(folder)), {})
            environment = Settings().environment(folder) | {"LD_PRELOAD": preload}
            done = subprocess.run(
                [find_program("true") or "/bin/true"],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TRIAL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, LeakscopeError) as error:
            return Check("agent", State.BROKEN, f"the trial with {agent} failed: {error}")
        recorded = [file for file in list_live_files(Path(folder)) if file.started()]
    if done.returncode != 0 or not recorded:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = said[0] if said else f"no recording, exit status {done.returncode}"
        return Check("agent", State.BROKEN, f"{agent} does not work in /bin/true: {why}")
    return Check("agent", State.WORKS, f"recorded a trial run of true ({agent})")


def _kernel() -> Check:
    release = platform.release()
    match = re.match(r"(\d+)\.(\d+)", release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version >= _KERNEL_WANTED:
        return Check("kernel", State.WORKS, f"Linux {release}")
    return Check(
        "kernel",
        State.LIMITED,
        f"Linux {release}: before 5.14 (MADV_POPULATE_WRITE) tables grow more slowly",
        "Nothing has to be done.",
    )


def _shared_memory() -> Check:
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError as error:
        return Check(
            "shared memory",
            State.LIMITED,
            f"{SHARED_MEMORY} cannot be used ({error.strerror}): live recordings go to the disk",
            "Mount a tmpfs there.",
        )
    text = f"{SHARED_MEMORY} has {bytes_text(free)} free, at 32 bytes a live block"
    if free < 256 << 20:
        return Check(
            "shared memory",
            State.LIMITED,
            f"{text}: live recordings go to the disk",
            "In a container: docker run --shm-size=1g",
        )
    return Check("shared memory", State.WORKS, text)


def _libc_here() -> Check:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        version = None
    return Check("libc", State.NOTE, version or "not glibc (musl?)")


def _symbols_here() -> Check:
    if importlib.util.find_spec("drgn") is None:
        return Check(
            "symbols",
            State.LIMITED,
            "drgn is not installed: source lines take longer, and those of very large files are missing",
            "pip install drgn",
        )
    servers = os.environ.get("DEBUGINFOD_URLS", "").split()
    if servers:
        return Check("symbols", State.WORKS, f"debuginfod: {' '.join(servers)}")
    return Check(
        "symbols",
        State.NOTE,
        "debug information is looked for in files only: DEBUGINFOD_URLS is not set",
        "export DEBUGINFOD_URLS=https://debuginfod.debian.net (or your distribution's)",
    )


def _container() -> Iterator[Check]:
    names = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman"}
    inside = next((name for path, name in names.items() if exists(path)), None)
    if inside is None:
        inside = os.environ.get("container")  # noqa: SIM112 - systemd's name for it
    inside = inside or _in_container_cgroup()
    if inside:
        yield Check("container", State.NOTE, f"inside a container ({inside})")
    if read_status().seccomp:
        yield Check(
            "seccomp",
            State.NOTE,
            "a system call filter is on; tracing from launch needs nothing that usual ones forbid",
        )


def _in_container_cgroup() -> str | None:
    try:
        text = Path("/proc/1/cgroup").read_text()
    except OSError:
        return None
    found = re.search(r"kubepods|docker|containerd|lxc|libpod", text)
    return found[0] if found else None


def _stored(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _leftovers() -> Iterator[Check]:
    """Live recordings that an ended leakscope left, for instance when it was killed."""
    own = f"leakscope-{os.geteuid()}-*"
    count = size = 0
    where: list[str] = []
    for folder in sorted([*SHARED_MEMORY.glob(own), *SHARED_MEMORY.glob(f"{own}/*/")]):
        try:
            files = list_live_files(folder)
        except LeakscopeError:
            continue
        if files and not any(file.is_mapped() for file in files):
            size += sum(_stored(file.path) for file in files)
            count += len(files)
            where.append(str(folder))
    if count:
        more = f" and in {len(where) - 1} more of its kind" if len(where) > 1 else ""
        what = f"{count} recordings of ended programs take"
        if count == 1:
            what = "1 recording of an ended program takes"
        yield Check(
            "left over",
            State.NOTE,
            f"{what} {bytes_text(size)} in {where[0]}{more}",
            f"leakscope report {where[0]}; then rm -r {where[0]}",
        )


# -- what other methods would find -----------------------------------------------


def _elsewhere() -> Iterator[Check]:
    """What `leakscope run` does not need, but debuggers and kernel tracers do."""
    me = read_status()
    yield _ptrace(me)
    yield _bpf(me)
    paranoid = _sysctl("kernel/perf_event_paranoid")
    if paranoid is not None:
        able = paranoid < 2 or me.can(CAP_PERFMON) or me.can(CAP_SYS_ADMIN)
        yield Check(
            "perf",
            State.WORKS if able else State.MISSING,
            f"perf_event_paranoid is {paranoid}",
            None if able else "sysctl kernel.perf_event_paranoid=1",
        )


def _ptrace(me: ProcessStatus) -> Check:
    scope = _sysctl("kernel/yama/ptrace_scope")
    if me.can(CAP_SYS_PTRACE) and scope != 3:
        return Check("ptrace", State.WORKS, "this user may look into any process")
    if scope in (None, 0):
        return Check("ptrace", State.WORKS, "this user may look into own processes")
    meaning = {1: "only into children", 2: "only with CAP_SYS_PTRACE", 3: "not at all"}
    return Check(
        "ptrace",
        State.MISSING,
        f"ptrace_scope is {scope}: debuggers may look {meaning.get(scope, '?')}"
        " (not needed by `leakscope run`)",
        "It cannot be lowered before the next boot."
        if scope == 3
        else "sysctl kernel.yama.ptrace_scope=0, or run as root",
    )


def _bpf(me: ProcessStatus) -> Check:
    lacks = []
    if not (me.can(CAP_SYS_ADMIN) or (me.can(CAP_BPF) and me.can(CAP_PERFMON))):
        lacks.append("CAP_BPF and CAP_PERFMON (run as root)")
    if not exists("/sys/kernel/btf/vmlinux"):
        lacks.append("BTF (a kernel with CONFIG_DEBUG_INFO_BTF)")
    if not exists("/sys/bus/event_source/devices/uprobe"):
        lacks.append("uprobes (a kernel with CONFIG_UPROBE_EVENTS)")
    if not lacks:
        return Check("bpf", State.WORKS, "BPF, BTF and uprobes are usable")
    return Check(
        "bpf",
        State.MISSING,
        f"missing: {'; '.join(lacks)} (not needed by `leakscope run`)",
        "Allocators of static programs can only be watched this way (memleak-bpfcc).",
    )


def _sysctl(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text())
    except (OSError, ValueError):
        return None


# -- a program -------------------------------------------------------------------


def _program(name: str) -> tuple[bool, str, list[Check]]:
    try:
        program = inspect_program(name)
    except TargetError as error:
        check = Check("program", State.BROKEN, str(error), error.hint)
        return False, f"{name} cannot be traced", [check]
    way = " → ".join([program.path, *program.interpreters])
    checks = [Check("program", State.WORKS, f"the agent can be preloaded into {way}")]
    if program.libc is not None:
        checks.append(Check("its libc", State.NOTE, program.libc))
    for allocator, pattern in _ALLOCATORS.items():
        if any(pattern.search(library) for library in program.needed):
            checks.append(Check("its allocator", State.NOTE, f"{allocator}, linked as a library"))
    checks.append(_debug_info(program.image))
    checks += [Check("program", State.NOTE, note) for note in program.notes]
    return True, f"{name} can be traced: leakscope run -- {name}", checks


def _debug_info(path: str) -> Check:
    try:
        found = elf.read_elf(path)
    except TargetError as error:
        return Check("debug info", State.NOTE, str(error))
    if found.has_debug_info:
        return Check("debug info", State.WORKS, f"in {path} itself")
    from leakscope.symbols import find_debug_file

    separate = find_debug_file(path, found.build_id)
    if separate is not None:
        return Check("debug info", State.WORKS, f"in {separate}")
    text = f"{path} has none: no lines, and function names only from its symbol table"
    fix = "Compile with -g, or install the package with -dbgsym in its name"
    if ".symtab" not in found.sections:
        text = f"{path} is stripped: no lines, and names of exported functions only"
    if os.environ.get("DEBUGINFOD_URLS") and found.build_id:
        return Check("debug info", State.NOTE, f"{text}; debuginfod will be asked", fix)
    return Check("debug info", State.LIMITED, text, fix)


# -- a process ---------------------------------------------------------------------


def _process(pid: int) -> tuple[bool, str, list[Check]]:
    refuse_thread(pid)
    status = read_status(pid)
    maps = read_maps(pid)
    checks = [
        Check("process", State.NOTE, f"{status.name}, state {status.state}, uid {status.uid}")
    ]
    if not maps:
        text = f"process {pid} ({status.name}) has no memory: a zombie or a kernel thread"
        return False, text, checks
    # What works at once comes first; the machine's checks, which are about tracing, come last.
    watch, scan = _watchable(pid), _scannable(pid, status)
    checks[:0] = [watch, scan, _attachable(pid)]
    static = not any(_GLIBC.search(m.path) or _MUSL.search(m.path) for m in maps)
    checks.append(Check("its libc", State.NOTE, libc_of(maps) or "none found: static?"))
    checks.append(Check("its allocator", State.NOTE, allocator_of(maps)))
    checks += _barriers(pid, status)
    loaded = any(Path(m.path).name.startswith("libleakscope-agent") for m in maps)
    file = find_live_file(pid)
    if file is not None:
        paused = file.field("control") & PAUSED
        verdict = (
            f"process {pid} is traced, and paused: leakscope control {pid} start"
            if paused
            else f"process {pid} is being traced: leakscope report {pid}"
        )
        return True, verdict, checks
    if loaded:
        verdict = (
            f"the agent is in process {pid} and sleeps: a line `trace {status.name}`"
            f" in {CONFIG_FILE} switches it on"
        )
        return True, verdict, checks
    works = scan.state is State.WORKS
    verdict = f"process {pid} ({status.name}) can be watched and scanned now: leakscope scan {pid}"
    if not works:
        verdict = f"process {pid} ({status.name}) can be watched: leakscope watch {pid} --for 2m"
    name = None if static else _program_of(pid)
    without = "it runs without the agent, which must be there from the start"
    how = f"Start it anew: leakscope run -- {name}" if name else None
    checks.insert(3, Check("run", State.MISSING, without, how))
    if static:
        checks.append(Check("program", State.BROKEN, "it looks statically linked"))
    elif name:
        checks += _program(name)[2]
    return works, verdict, checks


def _watchable(pid: int) -> Check:
    """Its gauges: everybody may read the private memory, not everybody the rest."""
    text = f"how fast it grows, since when, until which limit: leakscope watch {pid} --for 2m"
    if may_read_memory(pid):
        return Check("watch", State.WORKS, text)
    lost = "without its descriptors and its share of shared memory (PSS)"
    return Check("watch", State.LIMITED, f"{text}, {lost}", "Run as root, or as its user.")


def _scannable(pid: int, status: ProcessStatus) -> Check:
    """Whether its memory can be read and its threads stopped: the kernel asks the same for both."""
    if status.tracer:
        text = f"process {status.tracer} holds it with ptrace, and only one can"
        return Check("scan", State.MISSING, text, "Detach that debugger first.")
    try:
        os.close(os.open(f"/proc/{living_task(pid)}/mem", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        scope = _sysctl("kernel/yama/ptrace_scope")
        text = f"its memory may not be read (ptrace_scope is {scope or 0})"
        return Check("scan", State.MISSING, text, f"Run as root: sudo leakscope scan {pid}")
    except OSError as error:
        return Check("scan", State.MISSING, f"its memory cannot be read: {error.strerror}")
    text = f"which blocks of its heap are lost, and what holds the rest: leakscope scan {pid}"
    return Check("scan", State.WORKS, text)


def _attachable(pid: int) -> Check:
    """What an attach would do, and why it cannot where it cannot."""
    from leakscope.trace.attach.plan import make_plan

    try:
        plan = make_plan(pid)
    except LeakscopeError as error:
        return Check("attach", State.MISSING, str(error), error.hint)
    if plan.refusal is not None:
        return Check("attach", State.MISSING, f"it cannot be: {plan.refusal}", plan.hint)
    text = (
        f"which lines allocate what leaks from now on, without a restart: leakscope attach {pid}"
        f" ({plan.allocator}; {len(plan.sites)} functions)"
    )
    if plan.skipped:
        text += f"; left alone: {', '.join(name for name, _ in plan.skipped)}"
    return Check("attach", State.WORKS, text)


def libc_of(maps: tuple[Mapping, ...]) -> str | None:
    """Which libc a process with these mappings runs on."""
    for mapping in maps:
        if _MUSL.search(mapping.path):
            return f"musl ({mapping.path})"
        if _GLIBC.search(mapping.path):
            return f"glibc ({mapping.path})"
    return None


def allocator_of(maps: tuple[Mapping, ...]) -> str:
    """Whose malloc a process with these mappings uses, as far as its libraries tell."""
    for name, pattern in _ALLOCATORS.items():
        for mapping in maps:
            if pattern.search(mapping.path):
                return f"{name} ({mapping.path})"
    libc = libc_of(maps)
    return f"that of {libc}" if libc else "unknown, linked statically"


def _barriers(pid: int, status: ProcessStatus) -> Iterator[Check]:
    if status.tracer:
        yield Check("debugger", State.NOTE, f"process {status.tracer} traces it with ptrace")
    if status.seccomp:
        yield Check("its seccomp", State.NOTE, "a system call filter is on in it")
    for kind in ("mnt", "pid"):
        try:
            other = str(Path(f"/proc/{pid}/ns/{kind}").readlink()) != str(
                Path(f"/proc/self/ns/{kind}").readlink()
            )
        except OSError:
            continue
        if other:
            yield Check(
                "container",
                State.NOTE,
                f"it lives in another {'mount' if kind == 'mnt' else 'pid'} namespace",
                "Install and run leakscope inside its container.",
            )


def _program_of(pid: int) -> str | None:
    return read_executable(pid)
