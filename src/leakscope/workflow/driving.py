# SPDX-License-Identifier: Apache-2.0
"""Run a program under another tool, and bring home what the tool found as recordings of ours.

The tool writes into a private folder that is removed at the end; the program keeps its streams,
signals and status. `drive` knows how each tool is set up, `formats` what it wrote.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from leakscope._paths import absolute
from leakscope.drive import tool
from leakscope.drive.setup import COMPANION, Exit, Target
from leakscope.errors import LeakscopeError, RecordingError, TargetError
from leakscope.proc.elf import read_elf
from leakscope.recording import packed
from leakscope.trace.launch import Run
from leakscope.trace.output import Output, plan_output
from leakscope.trace.plain import program_name, run_plain, signal_name
from leakscope.trace.preflight import Program, find_program, inspect_program
from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from leakscope.drive.setup import Setup
    from leakscope.model.recordings import Process, Recording
    from leakscope.trace.plain import Ended

__all__ = ["drive"]

_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")  # what no tool takes for something else in a path
_COMPANION_S = 5.0  # until a tool beside the program has seen that it ended
_POLL_S = 0.1
_MOST_FILES = 4096
_MOST_LOG = 8192  # bytes of its end
_MOST_SAID = 300  # characters of a tool's own words
_SAID = re.compile(r"^(?:==\d+==|valgrind:|<jemalloc>:)?\s*")
_DULL = re.compile(r"Copyright|rerun with|Command:|Using Valgrind|an error detector|Parent PID")


def drive(
    name: str,
    command: Sequence[str],
    *,
    output: str | os.PathLike[str] | None = None,
    children: bool = True,
    sample: int | None = None,
    depth: int | None = None,
    tool_path: str | None = None,
    wait_children: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Run:
    """Run `command` under the tool `name` to its end; returns recordings, the program's own first.

    `output` is as in `leakscope.trace.launch.run`; `sample` and `depth` are refused by tools that
    have no such thing. Raises `UsageError` or `TargetError` before anything was started when it
    cannot work, `TargetError` afterwards when the tool left no result.
    """
    chosen = tool(name)
    planned = plan_output(output)
    environment = dict(os.environ)
    path = find_program(command[0], environment)
    with _Folder() as place:
        folder = place.path
        program = _looked_at(path, environment)
        setup = chosen.set_up(
            Target(
                name=command[0],
                path=path,
                image=program.image,
                needed=program.needed,
                folder=folder,
                environment=environment,
                children=children,
                sample=sample,
                depth=depth,
                tool_path=tool_path,
            )
        )
        if setup.preload:
            inspect_program(path, environment)  # refuses what nothing can be preloaded into
        with _Companion(setup, folder) as companion:
            ended = _start(setup, program, command, environment, companion)
        if progress is not None:
            progress(f"{command[0]} has ended; reading what {name} wrote")
        left = _still_running(folder, ended.pid, wait=wait_children)
        results = _Results(setup, folder, ended, program, planned)
        results.read(without=left if setup.follows_children else ())
        place.keep = bool(left) and setup.follows_children
        run = _run(name, command, program, setup, results, kept=left if place.keep else ())
    if not run.recordings:
        raise _nothing_left(name, run, results, setup.silent)
    return run


def _start(
    setup: Setup,
    program: Program,
    command: Sequence[str],
    environment: Mapping[str, str],
    companion: _Companion,
) -> Ended:
    variables = {**environment, **setup.environment}
    if setup.preload:
        kept = environment.get("LD_PRELOAD", "").replace(":", " ").split()
        variables["LD_PRELOAD"] = ":".join([*setup.preload, *kept])
    if setup.command:
        # By its path: the tool would look for it in its own way.
        arguments = [*setup.command, program.path, *command[1:]]
        return run_plain(setup.command[0], arguments, variables, started=companion.start)
    return run_plain(program.path, command, variables, started=companion.start)


def _looked_at(path: str, environment: Mapping[str, str]) -> Program:
    """Return what is known of a program; one that cannot be traced may still be run by a tool."""
    try:
        return inspect_program(path, environment)
    except TargetError:
        needed: tuple[str, ...] = ()
        with contextlib.suppress(LeakscopeError):
            needed = read_elf(path).needed
        return Program(path, (), None, needed)


class _Folder:
    """A private folder whose path no tool takes for anything else; removed unless `keep` is set."""

    def __init__(self) -> None:
        self.path = Path()
        self.keep = False

    def __enter__(self) -> Self:
        for place in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - mkdtemp
            if not _PLAIN.fullmatch(place):
                continue
            with contextlib.suppress(OSError):
                self.path = absolute(tempfile.mkdtemp(prefix="leakscope-with-", dir=place))
                return self
        raise TargetError(
            "there is no folder for what the tool writes",
            hint="Set TMPDIR to a folder that you can write to, of letters and digits.",
        )

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)


class _Companion:
    """A tool that runs beside the program; a context manager that sees to its end."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self._companion, self._folder = setup.companion, folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def start(self, pid: int) -> None:
        """Start it, for the program `pid`."""
        if not self._companion:
            return
        command = [word.replace("{pid}", str(pid)) for word in self._companion]
        with (self._folder / COMPANION).open("wb") as file, contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Signals are blocked here while the program runs, and it is to be ended by one.
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),  # noqa: PLW1509
            )

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        for number in (None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_COMPANION_S)
                return


class _Results:
    """What the tool wrote, read and packed."""

    def __init__(
        self, setup: Setup, folder: Path, ended: Ended, program: Program, planned: Output
    ) -> None:
        self._setup, self.folder, self.ended = setup, folder, ended
        self._program, self._planned = program, planned
        self.found: list[tuple[Recording, Path]] = []
        self.problems: list[str] = []
        self.said = ""  # by the tool, of itself
        self.unread = 0

    def read(self, *, without: Sequence[int]) -> None:
        """Read every file of the tool, the program's own first; not of those that still run."""
        pattern = re.compile(self._setup.results)
        matches = [(pattern.fullmatch(path.name), path) for path in sorted(self.folder.iterdir())]
        files = [
            (self._pid(match[1] if match.re.groups else None), p) for match, p in matches if match
        ]
        if self._setup.elsewhere is not None:
            place = Path(self._setup.elsewhere.replace("{pid}", str(self.ended.pid)))
            if place.is_file() and not place.is_symlink() and place.stat().st_uid == os.geteuid():
                files.append((self.ended.pid, place))
        files = [each for each in files if each[0] not in without]
        files.sort(key=lambda each: (each[0] != self.ended.pid, each[0]))
        for pid, path in files[:_MOST_FILES]:
            self._read(pid, path)
        if len(files) > _MOST_FILES:
            self.problems.append(
                f"only {_MOST_FILES:,} of {plural(len(files), 'result')} were read"
            )
        if not any(pid == self.ended.pid for pid, _ in files) and self._setup.without_file:
            self._keep(self.ended.pid, self._setup.without_file(self._exit_of(self.ended.pid)))
        self.said = self._own_words()

    def _pid(self, text: str | None) -> int:
        return int(text) if text and len(text) < 11 else self.ended.pid

    def _exit_of(self, pid: int) -> Exit:
        if pid != self.ended.pid:
            return Exit(pid)
        return Exit(pid, self.ended.exit_status, self.ended.killed_by)

    def _read(self, pid: int, path: Path) -> None:
        try:
            recordings = self._setup.read(path, self._exit_of(pid))
        except (LeakscopeError, OSError) as error:
            text = f"{error}".replace(f"{path}", "it")
            self.problems.append(f"the result on process {pid} cannot be read: {text}")
            return
        if recordings is None:
            self.unread += 1
            if pid != self.ended.pid or self.found:
                self.problems.append(f"the tool left no result on process {pid}")
            return
        self._keep(pid, recordings)
        if self._setup.elsewhere is not None and path.parent != self.folder:
            path.unlink(missing_ok=True)

    def _keep(self, pid: int, recordings: Sequence[Recording]) -> None:
        for recording in recordings:
            process = self._process(recording.process, pid)
            known = replace(recording, process=process)
            place = self._planned.path(program_name(process), process.pid or pid)
            try:
                packed.write(known, place)
            except BaseException:
                self._planned.release(place)
                raise
            self.found.append((known, place))

    def _process(self, process: Process, pid: int) -> Process:
        """Fill in what the tool does not tell."""
        process = replace(process, pid=process.pid or pid, exe=process.exe or self._program.path)
        if process.pid != self.ended.pid:
            return process
        killed = self.ended.killed_by
        return replace(
            process,
            exe=self._program.path,
            ended="exited" if killed is None else f"killed by {signal_name(killed)}",
            exit_status=self.ended.exit_status,
        )

    def _own_words(self) -> str:
        """Return the last thing that the tool wrote of itself."""
        pattern, lines = re.compile(self._setup.log), []
        for path in sorted(self.folder.iterdir()):
            if pattern.fullmatch(path.name) and path.is_file():
                with contextlib.suppress(OSError), path.open("rb") as file:
                    file.seek(max(path.stat().st_size - _MOST_LOG, 0))
                    lines += file.read(_MOST_LOG).decode("utf-8", "replace").splitlines()
        words = [_SAID.sub("", line).strip() for line in lines]
        last = [word for word in words if not _DULL.search(word) and word]
        return last[-1][:_MOST_SAID] if last else ""


def _run(
    name: str,
    command: Sequence[str],
    program: Program,
    setup: Setup,
    results: _Results,
    *,
    kept: Sequence[int],
) -> Run:
    ended, notes = results.ended, [*setup.notes]
    notes += [
        f"process {pid} still runs; what {name} writes of it will be in {results.folder}"
        for pid in kept
    ]
    if not setup.follows_children:
        notes.append(f"{name} looks at the program alone, not at what it starts")
    return Run(
        command=tuple(command),
        program=program,
        pid=ended.pid,
        exit_status=ended.exit_status,
        killed_by=ended.killed_by,
        recordings=tuple(recording for recording, _ in results.found),
        files=tuple(path for _, path in results.found),
        snapshots=(),
        running=(),
        notes=tuple(notes),
        problems=tuple(results.problems),
        interrupted=ended.interrupted,
    )


def _nothing_left(name: str, run: Run, results: _Results, silent: str | None) -> LeakscopeError:
    said = f"; it said: {results.said}" if results.said else ""
    if not said and silent is not None and run.killed_by is None:
        said = f": {silent}"
    why = results.problems[0] if results.problems else f"{name} left no result{said}"
    hint = f"Run it without the tool: leakscope run -- {run.command[0]}"
    if run.killed_by is not None:
        hint = "Most tools write at the end, which a signal that kills leaves out."
    return RecordingError(f"{run.command[0]} {run.outcome}, and {why}", hint=hint)


def _still_running(folder: Path, root: int, *, wait: bool) -> list[int]:
    """Return the processes that were told of `folder` and still run; wait for them if asked."""
    wanted = os.fsencode(folder)
    while True:
        found = [pid for pid in _pids() if pid != root and _was_told(pid, wanted)]
        if not found or not wait:
            return found
        try:
            time.sleep(_POLL_S)
        except KeyboardInterrupt:
            return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names


def _was_told(pid: int, folder: bytes) -> bool:
    for name in ("environ", "cmdline"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - a file of the kernel
                if folder in file.read(1 << 20):
                    return True
        except OSError:
            continue
    return False
