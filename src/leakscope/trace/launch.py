# SPDX-License-Identifier: Apache-2.0
"""Run a program under the agent and bring home the recordings of it and its children.

The program is looked at first (`preflight`), the output place too; then it runs with its
standard streams, terminal, process group and signals untouched. When leakscope is killed,
the program goes on and its live recording stays readable.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leakscope._paths import absolute, exists, is_directory
from leakscope.errors import LeakscopeError, RecordingError, TargetError, UsageError
from leakscope.proc.status import read_status
from leakscope.recording import live
from leakscope.trace._deadline import Deadline
from leakscope.trace._filters import inherited_filters
from leakscope.trace._harvest import Harvest, signal_name
from leakscope.trace._preload import agent_path, preload_value, safe_copy
from leakscope.trace._spawn import Child
from leakscope.trace._starts import Starts
from leakscope.trace._survivors import may_survive, running_processes
from leakscope.trace.farewell import Examination, Farewells
from leakscope.trace.live_files import count_files, removed_unread
from leakscope.trace.output import make_live_directory, plan_output, private_part
from leakscope.trace.preflight import Program, inspect_program
from leakscope.trace.pressure import Pressure
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from leakscope.model.recordings import Recording
    from leakscope.trace.live_files import LiveFile
    from leakscope.trace.settings import Settings

__all__ = ["Run", "Running", "run"]

# Processes that end together with the program (the other end of a pipe) get this long.
_GRACE_SECONDS = 0.5
_FORKED_LAST_SECONDS = 0.1
# So many ended children are packed while the program still runs, to keep memory bounded.
_BACKLOG = 64
_BACKLOG_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """A traced process that outlived the program, and the live recording it still writes."""

    pid: int
    path: Path


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run. `recordings` and `files` belong together, the program's own first."""

    command: tuple[str, ...]
    program: Program
    pid: int
    exit_status: int | None  # None when a signal killed it
    killed_by: int | None  # the signal
    recordings: tuple[Recording, ...]
    files: tuple[Path, ...]
    snapshots: tuple[Path, ...]
    running: tuple[Running, ...]
    notes: tuple[str, ...]
    # Recordings that could not be packed, and where they are; programs that were not traced.
    problems: tuple[str, ...]
    interrupted: bool  # somebody asked it to end with SIGINT or SIGTERM
    timed_out: bool = False  # it took longer than it was given, and was ended

    @property
    def returncode(self) -> int:
        """The program's status as a shell gives it: 128 + N when signal N killed it."""
        return 128 + (self.killed_by or 0) if self.exit_status is None else self.exit_status

    @property
    def outcome(self) -> str:
        """How the program ended, in words."""
        late = ", after its timeout" if self.timed_out else ""
        if self.exit_status is None:
            return f"was killed by {signal_name(self.killed_by or 0)}{late}"
        return f"exited with status {self.exit_status}{late}"


def run(
    command: Sequence[str | os.PathLike[str]],
    settings: Settings,
    *,
    output: str | os.PathLike[str] | None = None,
    wait_children: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    streams: Sequence[int | None] = (),
    progress: Callable[[str], None] | None = None,
    examination: Examination | None = None,
    near_limit: Callable[[int, Path, float], Recording] | None = None,
    keep_all: bool = True,
    is_clean: Callable[[Recording], bool] | None = None,
) -> Run:
    """Run `command` to its end and return its recordings, one for each traced process.

    `settings` says what is recorded; `output` is a directory or a file name in which %n and %p
    stand for program and pid; `wait_children` waits for daemons and background processes too.
    The program starts in the directory `cwd`, from where its name is looked up too. It and all that it started are ended after `timeout` seconds;
    for that it leads a process group of its own. `streams` are descriptors for its standard streams.
    `examination` says how each process is examined right before it ends, `near_limit` how when its
    memory runs short (see `pressure`); None: not at all.
    Without `keep_all`, children that ended at once and freed every block leave no recording, nor do
    those of whose recordings `is_clean` says that there is nothing to tell.

    Raises `UsageError`, `TargetError` or `RecordingError` before anything was started when
    it cannot work, and `TargetError` afterwards when the agent never came up.
    """
    arguments = tuple(os.fspath(word) for word in command)
    if not arguments:
        raise UsageError("there is no program to run", hint="Give it after `--`.")
    if any("\0" in word for word in arguments):
        raise UsageError("an argument contains a zero byte, which no program can be given")
    environment = dict(os.environ if env is None else env)
    where = _start_directory(cwd)
    program = inspect_program(*_seen_from(where, arguments[0], environment))
    agent = agent_path()
    planned = plan_output(output)
    directory = make_live_directory(planned)
    child = Child(
        program.path,
        arguments,
        _signals(settings),
        directory=where,
        own_group=timeout is not None,
        streams=streams,
    )
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, private_part(directory), ignore_errors=True)
        preloaded = safe_copy(agent, directory)
        environment |= settings.environment(str(directory))
        environment["LD_PRELOAD"] = preload_value(preloaded, environment)
        farewells = None if examination is None else Farewells(directory, examination)
        environment.pop("LEAKSCOPE_SCAN", None)
        filters, survives = inherited_filters()
        environment["LEAKSCOPE_SECCOMP"] = str(filters if survives else 0)
        if farewells is not None:
            undo.callback(farewells.stop)
            listens = farewells.start()
            environment |= {"LEAKSCOPE_SCAN": listens} if listens else {}
        before = running_processes()
        child.start(environment)
        undo.pop_all()  # from here on the directory may hold what nobody else has
    harvest = Harvest(
        directory, planned, child.pid, settings.children, farewells, keep_all, is_clean=is_clean
    )
    pressure = None
    if near_limit is not None:
        pressure = Pressure(harvest.live_files, planned, child.pid, near_limit, live.read)
        harvest.before_kill = pressure.take
        pressure.start()
    deadline = Deadline(timeout, child, harvest, farewells)
    starts = Starts(directory, child.pid, environment)
    look = starts.look if settings.children else (lambda: None)
    try:
        tick = _Tick(harvest, child, deadline, pressure, look, progress or (lambda _: None))
        status = child.wait(tick)
        deadline.finish()
        lonely = not may_survive(before, directory)
        if pressure is not None:
            pressure.stop()
        running = _collect(harvest, status, wait_children, deadline, lonely=lonely)
    finally:
        if pressure is not None:
            pressure.stop()
        if farewells is not None:
            farewells.stop()
    notes = _notes(program, harvest)
    untraced = starts.untraced() if settings.children else ()
    if not starts.root_left:
        untraced += _untraced(harvest.left, child.last_name)
    if not running and not harvest.problems:
        for path in starts.files():
            path.unlink(missing_ok=True)
        _remove_directory(directory, preloaded if preloaded != agent else None)
    done = Run(
        command=arguments,
        program=program,
        pid=child.pid,
        exit_status=status if status >= 0 else None,
        killed_by=-status if status < 0 else None,
        recordings=(),
        files=(),
        snapshots=tuple(harvest.snapshots),
        running=tuple(Running(file.writer() or file.pid, file.path) for file in running),
        notes=(
            *((deadline.note(),) if deadline.passed else ()),
            *notes,
            *_about_filters(status),
            *_about_memory(status, pressure),
        ),
        problems=(*harvest.problems, *untraced),
        interrupted=any(number in (signal.SIGINT, signal.SIGTERM) for number in child.received),
        timed_out=deadline.passed,
    )
    if not harvest.packed and not running and not (harvest.empty or harvest.quiet or harvest.clean):
        if settings.only or settings.exclude:
            raise _nobody_chosen(done)
        raise _nothing_recorded(done, harvest)
    own_first = sorted(harvest.packed, key=lambda packed: _rank(packed.recording, child.pid))
    return replace(
        done,
        recordings=tuple(packed.recording for packed in own_first),
        files=tuple(packed.path for packed in own_first),
    )


def _start_directory(cwd: str | None) -> str | None:
    """Return the directory from the root on. Raises `TargetError` when nothing can start in it."""
    if cwd is None:
        return None
    if not is_directory(cwd):
        what = "is not a directory" if exists(cwd) else "does not exist"
        raise TargetError(f"the directory to start in, {cwd!r}, {what}")
    if not os.access(cwd, os.X_OK):
        raise TargetError(f"the directory to start in, {cwd!r}, may not be entered by this user")
    return str(absolute(cwd))


def _seen_from(
    where: str | None, name: str, environment: dict[str, str]
) -> tuple[str, dict[str, str]]:
    """Return the program's name and an environment to look it up in, as they are in `where`."""
    if where is None:
        return name, environment
    if "/" in name:
        return os.path.join(where, name), environment  # noqa: PTH118 - a "./" stays
    folders = environment.get("PATH", os.defpath).split(":")
    path = ":".join(os.path.join(where, folder) for folder in folders)  # noqa: PTH118
    return name, environment | {"PATH": path}


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _Tick:
    """What is done a few times a second while the program runs."""

    def __init__(
        self,
        harvest: Harvest,
        child: Child,
        deadline: Deadline,
        pressure: Pressure | None,
        look: Callable[[], None],
        progress: Callable[[str], None],
    ) -> None:
        self._harvest, self._child, self._deadline = harvest, child, deadline
        self._pressure, self._look, self._progress = pressure, look, progress
        self._heeded = 0  # of the signals that were received
        self._next_look = 0.0

    def __call__(self) -> None:
        self._deadline.look()
        harvest, received = self._harvest, self._child.received
        if len(received) > self._heeded:
            ends = any(number in _ENDING for number in received[self._heeded :])
            self._heeded = len(received)
            if ends and harvest.farewells is not None:
                harvest.farewells.let_go()
        known = len(harvest.snapshots)
        harvest.take_snapshots()
        harvest.look_who_lives()
        for path in harvest.snapshots[known:]:
            self._progress(f"snapshot written: {path}")
        for text in self._pressure.told() if self._pressure is not None else ():
            self._progress(text)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _BACKLOG_SECONDS
            self._look()
            if len(harvest.live_files()) > _BACKLOG:
                harvest.pack_ended(None)


def _collect(
    harvest: Harvest, status: int, wait_children: bool, deadline: Deadline, *, lonely: bool
) -> tuple[LiveFile, ...]:
    """Pack what has ended; wait for the rest, for a moment or, if asked, to its end.

    `lonely` says that nothing is alive that the program started.
    """
    until = time.monotonic() + _GRACE_SECONDS
    with contextlib.suppress(KeyboardInterrupt):
        if (
            harvest.children and not lonely
        ):  # a daemon that was forked last may have no recording yet
            time.sleep(_GRACE_SECONDS if wait_children else _FORKED_LAST_SECONDS)
    running = harvest.pack_ended(status)
    with contextlib.suppress(KeyboardInterrupt):
        while running and (wait_children or time.monotonic() < until):
            time.sleep(0.05)
            deadline.look()
            deadline.finish()
            if wait_children:
                harvest.take_snapshots()
            running = harvest.pack_ended(status)
    return running


def _rank(recording: Recording, root: int) -> tuple[bool, bool]:
    """The program's own recording first; of those before and after an exec, the last."""
    return recording.process.pid != root, recording.process.ended == "replaced by exec"


def _signals(settings: Settings) -> list[int]:
    wanted = (settings.start_signal, settings.stop_signal, settings.dump_signal)
    return [number for number in wanted if number is not None]


def _remove_directory(directory: Path, copy: Path | None) -> None:
    with contextlib.suppress(OSError):
        if copy is not None:
            copy.unlink()
            if copy.parent != directory:
                copy.parent.rmdir()
        for path in (*count_files(directory), *directory.glob("*.seccomp")):
            path.unlink()
        directory.rmdir()  # stays when something is left in it
        if private_part(directory) != directory:
            private_part(directory).rmdir()


def _notes(program: Program, harvest: Harvest) -> tuple[str, ...]:
    notes = [*program.notes, *(harvest.farewells.notes if harvest.farewells else ())]
    if harvest.unstarted and harvest.packed:
        notes.append(f"{harvest.unstarted} process(es) ended before the agent in them had started")
    if harvest.empty:
        notes.append(_unkept(harvest.empty, "freed every block"))
    if harvest.quiet:
        notes.append(_unkept(harvest.quiet, "ended soon and lost no block"))
    if harvest.clean:
        notes.append(_unkept(harvest.clean, "lost no block and did not grow"))
    removed = removed_unread(harvest.directory)
    if removed:
        notes.append(
            f"{removed} recordings of ended processes were given up unread, the oldest first: they"
            f" came faster than they could be read"
        )
    return tuple(notes)


def _unkept(count: int, what: str) -> str:
    who, they = ("process", "it has") if count == 1 else ("processes", "they have")
    return f"{count:,} more forked {who} {what}; {they} no file"


def _about_filters(status: int) -> tuple[str, ...]:
    if status != -signal.SIGSYS:
        return ()
    text = (
        "a system call filter (seccomp) killed it. The agent makes no call that a filter which it"
        " saw or was told of would punish; if the program runs to its end without leakscope, then"
        " the filter was installed in a way that the agent could not see"
    )
    return (text,)


def _about_memory(status: int, pressure: Pressure | None) -> tuple[str, ...]:
    if status != -signal.SIGKILL or pressure is None:
        return ()
    why = pressure.killed()
    return () if why is None else (f"the kernel killed for memory while it ran: {why}",)


def _untraced(left: str | None, last_name: str) -> tuple[str, ...]:
    """Say so when the traced program became another one that our agent was kept from."""
    name = (left or "").rpartition("/")[2]
    if not name or not last_name or name[:15] == last_name:
        return ()
    text = (
        f"{name} became another program, {last_name}, which was not traced: leakscope's environment"
        f" was taken from it, as env -i and sudo do, or it is static or privileged, or it began under"
        f" a system call filter (seccomp) that might have killed it for the agent's calls."
        f" `leakscope doctor PROGRAM` tells which"
    )
    return (text,)


def _nobody_chosen(done: Run) -> TargetError:
    return TargetError(
        f"{done.program.path} {done.outcome}, and no program was recorded: --only and --exclude"
        f" left out all that was started",
        hint="The name is that of the program's file: of a script, that of its interpreter.",
    )


def _nothing_recorded(done: Run, harvest: Harvest) -> LeakscopeError:
    """Why there is no recording although the program ran."""
    name = done.program.path
    if harvest.problems:
        return RecordingError(
            f"{name} {done.outcome}, but no recording could be written: {harvest.problems[0]}",
            hint="Make room or name another place with --output, then: leakscope report PATH",
        )
    if done.killed_by is not None:
        return TargetError(
            f"{name} {done.outcome} before the agent in it had started, so nothing was recorded",
            hint="See what killed it: a limit (ulimit -a), the OOM killer (dmesg), or its parent.",
        )
    limits = [
        f"{word} is {bytes_text(value)}"
        for word, number in (
            ("ulimit -f", resource.RLIMIT_FSIZE),
            ("ulimit -v", resource.RLIMIT_AS),
        )
        if (value := resource.getrlimit(number)[0]) != resource.RLIM_INFINITY
    ]
    reason = (
        f"the agent found no room for its tables ({', '.join(limits)})"
        if limits
        else "the agent did not come up in it, so nothing was recorded"
    )
    if not limits and read_status().seccomp:
        reason += (
            ": it runs under a system call filter (seccomp) of which the agent knows nothing,"
            " and which might kill the program for one of the agent's calls"
        )
    return TargetError(
        f"{name} {done.outcome}, but {reason}",
        hint=f"Lines from ld.so above tell why; `leakscope doctor {name}` tries it out.",
    )
