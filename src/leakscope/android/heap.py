# SPDX-License-Identifier: Apache-2.0
"""Native heap dumps of a device: malloc_debug switched on, a dump taken and fetched, all undone.

Each way to switch it on is a `SwitchWay`: what has to be set, what has to be started again for it to
take effect, and how the dump comes about. What was set is put back in every case, also when the
device refuses in the middle.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shlex
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._files import publish
from leakscope.android.options import check_options
from leakscope.errors import LeakscopeError, RecordingError, TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leakscope.android.adb import Adb

__all__ = ["Request", "SwitchWay", "take_heap"]

_FOLDER = "/data/local/tmp"
_LONGEST = 91  # characters of a property that can be set
_WRAP_SDK, _SIGNAL_SDK, _EXIT_SDK = 26, 26, 28
_DUMP_SIGNAL = 47
_START_S, _DUMP_S, _PAUSE_S = 60.0, 120.0, 0.5
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROGRAM = "libc.debug.malloc.program"
_OPTIONS = "libc.debug.malloc.options"
_OLD_ENABLED = "libc.debug.malloc.env_enabled"


class SwitchWay(enum.StrEnum):
    """How malloc_debug is switched on."""

    APP = "app"
    PROCESS = "process"  # it is on already
    PROGRAM = "program"
    ZYGOTE = "zygote"
    ALL = "all"
    SHELL = "shell"


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted: `name` is an app, a pid, a program or a command, as its way needs it."""

    way: SwitchWay
    name: str
    options: str = "backtrace"
    wait_s: float = 10.0
    output: Path = field(default_factory=lambda: Path("native_heap.txt"))


@dataclass(slots=True)
class _Undo:
    """What was set, last first; the device may be gone when it is to be put back."""

    adb: Adb
    told: Callable[[str], None]
    steps: list[tuple[str, Callable[[], object]]] = field(default_factory=list)

    def set(self, name: str, value: str) -> None:
        """Set a property; it is put back to what it was."""
        if len(value) > _LONGEST:
            raise UsageError(
                f"{name} would have {len(value)} characters, and a property has {_LONGEST} at most",
                hint="Give fewer options.",
            )
        before = self.adb.get(name)
        self.steps.append((f"{name}={before!r}", lambda: self.adb.set(name, before)))
        self.told(f"sets {name} (it was {before!r}, and will be again)")
        self.adb.set(name, value)

    def remove(self, path: str) -> None:
        """Remove a file of the device afterwards."""
        self.steps.append((path, lambda: self.adb.shell("rm", "-f", path)))

    def all(self) -> None:
        """Put all back; what cannot be is told, with the rest done all the same."""
        failed = []
        while self.steps:
            what, step = self.steps.pop()
            try:
                step()
            except LeakscopeError as error:
                failed.append(f"{what} ({error})")
        if failed:
            self.told(f"could not be undone on the device: {'; '.join(failed)}")


@contextlib.contextmanager
def _undone(adb: Adb, told: Callable[[str], None]) -> Iterator[_Undo]:
    undo = _Undo(adb, told)
    try:
        yield undo
    finally:
        with _held_back(told):
            undo.all()


@contextlib.contextmanager
def _held_back(told: Callable[[str], None]) -> Iterator[None]:
    """Whoever presses Ctrl-C once more, or ends us, has to wait until the device is as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _: object) -> None:
        if not came:
            told("what was set on the device is being put back, which takes a moment")
        came.append(number)

    before = {each: signal.signal(each, note) for each in _ENDINGS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])


def take_heap(adb: Adb, request: Request, *, told: Callable[[str], None]) -> Path:
    """Do it all and return the file that was fetched.

    Raises `UsageError` for options that are not there, `TargetError` for what the device refuses.
    """
    if os.path.lexists(request.output):
        raise RecordingError(
            f"{request.output} is there already, and is not written over",
            hint="Name a new file: -o",
        )
    if not request.output.absolute().parent.is_dir():
        raise RecordingError(f"there is no directory {request.output.absolute().parent}")
    sdk = adb.sdk
    options = check_options(request.options, sdk)
    with _undone(adb, told) as undo:
        remote = {
            SwitchWay.APP: _app,
            SwitchWay.PROCESS: _process,
            SwitchWay.PROGRAM: _program,
            SwitchWay.ZYGOTE: _zygote,
            SwitchWay.ALL: _all,
            SwitchWay.SHELL: _shell,
        }[request.way](adb, undo, request, options, sdk)
        _fetch(adb, remote, request.output)
    return request.output


def _fetch(adb: Adb, remote: str, output: Path) -> None:
    if adb.dry_run:
        adb.call("pull", remote, str(output))
        return
    # Nobody else can read in the folder, or has put a link there.
    folder = output.absolute().parent
    try:
        made = tempfile.TemporaryDirectory(prefix=f".{output.name[:64]}.", dir=folder)
    except OSError as error:
        raise RecordingError(f"cannot write in {folder}: {error.strerror}") from error
    with made as private:
        part = Path(private, "native_heap.txt")
        adb.call("pull", remote, str(part), patience_s=600.0)
        if not part.is_file() or not part.stat().st_size:
            raise TargetError(
                f"the device wrote no dump to {remote}",
                hint="Was malloc_debug on when the process started? See its log: adb logcat -d -s malloc_debug",
            )
        part.chmod(0o600)
        publish(part, output)


def _app(adb: Adb, undo: _Undo, request: Request, options: str, sdk: int) -> str:
    """wrap.PACKAGE: the app alone runs with malloc_debug, from its next start on."""
    if sdk and sdk < _WRAP_SDK:
        raise UsageError(
            f"an app can be wrapped from API level {_WRAP_SDK} (Android 8) on, and the device has {sdk}",
            hint="Use --zygote, which needs root.",
        )
    spaced = options.replace(" ", "\\ ")
    undo.set(f"wrap.{request.name}", f'"LIBC_DEBUG_MALLOC_OPTIONS={spaced} logwrapper"')
    undo.steps.append((request.name, lambda: adb.shell("am", "force-stop", request.name)))
    adb.shell("am", "force-stop", request.name)
    adb.shell("monkey", "-p", request.name, "-c", "android.intent.category.LAUNCHER", "1")
    pid = _wait_for(adb, request.name)
    _wait(adb, request.wait_s)
    return _dump(adb, undo, pid)


def _process(adb: Adb, undo: _Undo, request: Request, options: str, sdk: int) -> str:
    del options, sdk  # it runs as it runs
    return _dump(adb, undo, int(request.name))


def _program(adb: Adb, undo: _Undo, request: Request, options: str, sdk: int) -> str:
    """A program of the system by its name; the one that runs is ended, and init starts it again."""
    _need_root(adb)
    # Once more at the end, so that it runs as before.
    undo.steps.append(
        (request.name, lambda: [adb.shell("kill", str(p)) for p in adb.pids(request.name)])
    )
    undo.set(_PROGRAM, request.name)
    undo.set(_OPTIONS, options)
    for pid in adb.pids(request.name):
        adb.shell("kill", str(pid))
    pid = _wait_for(adb, request.name)
    _wait(adb, request.wait_s)
    return _signal(adb, undo, pid, sdk)


def _zygote(adb: Adb, undo: _Undo, request: Request, options: str, sdk: int) -> str:
    """All apps, by the process that they are forked from."""
    del sdk
    _need_root(adb)
    undo.set(_PROGRAM, "app_process")
    undo.set(_OPTIONS, options)
    _restart(adb, undo)
    pid = _wait_for(adb, request.name)
    _wait(adb, request.wait_s)
    return _dump(adb, undo, pid)


def _all(adb: Adb, undo: _Undo, request: Request, options: str, sdk: int) -> str:
    """Every process that starts from now on."""
    del sdk
    _need_root(adb)
    undo.steps.append(("start", lambda: (adb.shell("stop"), adb.shell("start"))))
    adb.shell("stop")
    undo.set(_OPTIONS, options)
    adb.shell("start")
    pid = _wait_for(adb, request.name)
    _wait(adb, request.wait_s)
    return _dump(adb, undo, pid)


def _shell(adb: Adb, undo: _Undo, request: Request, options: str, sdk: int) -> str:
    """One command, which leaves its dump when it ends."""
    remote = f"{_FOLDER}/leakscope-{os.getpid()}"
    if sdk and sdk < _WRAP_SDK:
        undo.set(_OLD_ENABLED, "1")
        variable = "LIBC_DEBUG_MALLOC_ENABLE=1"
        undo.set(_OPTIONS, options)
    else:
        if sdk and sdk < _EXIT_SDK:
            raise UsageError(
                f"a command leaves a dump at its end from API level {_EXIT_SDK} (Android 9) on, and the"
                f" device has {sdk}",
                hint="Use --program.",
            )
        ending = f"backtrace_dump_on_exit backtrace_dump_prefix={remote}"
        variable = f"LIBC_DEBUG_MALLOC_OPTIONS={shlex.quote(f'{options} {ending}')}"
    # A command may be several, of a shell: each of its programs is to get it.
    line = f"export {variable}; {request.name}"
    failed: TargetError | None = None
    try:
        adb.call("shell", line, patience_s=max(request.wait_s, 1.0) + 600.0)
    except TargetError as error:  # one that ends with a status leaves its dump all the same
        failed = error
    try:
        listed = adb.call("shell", f"ls -S {remote}.*.exit.txt").split()  # the largest first
    except TargetError as error:
        raise failed or error from None
    if failed is not None:
        undo.told(f"the command did not end well: {failed}")
    found = listed or [f"{remote}.PID.exit.txt"]
    for each in found:
        undo.remove(each)
    if len(found) > 1:
        undo.told(f"{len(found)} programs left a dump each; the largest is fetched")
    return found[0]


def _dump(adb: Adb, undo: _Undo, pid: int) -> str:
    """`am dumpheap -n`, which writes for a while after it has returned."""
    remote = f"{_FOLDER}/leakscope-{pid}-{os.getpid()}.txt"
    undo.remove(remote)
    said = adb.shell("am", "dumpheap", "-n", str(pid), remote)
    if "Error" in said or "Exception" in said or "not debuggable" in said:
        raise TargetError(
            f"the device refuses a dump of process {pid}: {' '.join(said.split())[:200]}"
        )
    _wait_until_whole(adb, remote)
    return remote


def _signal(adb: Adb, undo: _Undo, pid: int, sdk: int) -> str:
    """Signal 47; it acts at the next call of malloc, which a look at its stacks brings about."""
    if sdk and sdk < _SIGNAL_SDK:
        raise UsageError(f"a program dumps on a signal from API level {_SIGNAL_SDK} on")
    remote = f"{_FOLDER}/backtrace_heap.{pid}.txt"
    undo.remove(remote)
    adb.shell("kill", f"-{_DUMP_SIGNAL}", str(pid))
    adb.shell("debuggerd", "-b", str(pid))
    _wait_until_whole(adb, remote)
    return remote


def _wait_until_whole(adb: Adb, remote: str) -> None:
    until = time.monotonic() + _DUMP_S
    while True:
        with contextlib.suppress(TargetError):  # not there yet
            if adb.shell("tail", "-n", "1", remote).strip() == "END" or adb.dry_run:
                return
        if time.monotonic() > until:
            raise TargetError(
                f"the device wrote no whole dump to {remote} in {_DUMP_S:.0f} s",
                hint="See its log: adb logcat -d -s malloc_debug",
            )
        time.sleep(_PAUSE_S)


def _restart(adb: Adb, undo: _Undo) -> None:
    """Start the system's run-time again; it is once more when the properties are put back."""
    undo.steps.insert(0, ("start", lambda: (adb.shell("stop"), adb.shell("start"))))
    adb.shell("stop")
    adb.shell("start")


def _need_root(adb: Adb) -> None:
    if not adb.is_root:
        raise TargetError(
            "that way takes root on the device, and adb has none",
            hint="Try: adb root; or --app PKG",
        )


def _wait_for(adb: Adb, name: str) -> int:
    until = time.monotonic() + _START_S
    while True:
        found = adb.pids(name)
        if found:
            return found[0]
        if time.monotonic() > until:
            raise TargetError(
                f"{name} does not run on the device",
                hint="Start it there, or see its log: adb logcat -d",
            )
        time.sleep(_PAUSE_S)


def _wait(adb: Adb, seconds: float) -> None:
    if not adb.dry_run:
        time.sleep(seconds)
