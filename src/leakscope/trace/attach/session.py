# SPDX-License-Identifier: Apache-2.0
"""One attach from its beginning to its end: put in, looked at meanwhile, taken out, read."""

from __future__ import annotations

import contextlib
import os
import select
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from leakscope.errors import LeakscopeError, TargetError
from leakscope.proc.process import read_start
from leakscope.recording import layout, live
from leakscope.trace._harvest import program_name as _program_name
from leakscope.trace.attach.beat import Beat, clock_of, is_heard
from leakscope.trace.attach.detach import Removed, remove, remove_from_children
from leakscope.trace.attach.inject import Injected, Wishes, inject
from leakscope.trace.attach.island import find_attached

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope.model.recordings import Recording
    from leakscope.trace.attach.island import Attached
    from leakscope.trace.attach.plan import Plan

__all__ = ["Session", "Wishes", "clear_away", "program_name"]

_LOOK_S = 1.0
_HEADER = dict(layout.HEADER_DTYPE.fields or {})


@dataclass(slots=True)
class Session:
    """A process that leakscope is attached to, as a context manager: at the end it is detached.

    `plan` must not refuse. Raises `TargetError` when it cannot be attached to.
    """

    plan: Plan
    wishes: Wishes = field(default_factory=Wishes)
    max_pause_s: float = 0.1
    alone: bool = False  # somebody else looks after the children
    removed: Removed | None = None
    children: list[Removed] = field(default_factory=list)
    setup_ms: float = 0.0
    lonely: bool = False
    cleared: Removed | None = None  # what an earlier attach had left
    _injected: Injected | None = None
    _beat: Beat | None = None
    _pidfd: int = -1
    _start: int | None = None
    _tried: bool = False  # to detach it

    def __enter__(self) -> Self:
        plan = self.plan
        if plan.refusal is not None:
            raise TargetError(
                f"process {plan.pid} ({plan.name}) is not attached to: {plan.refusal}",
                hint=plan.hint,
            )
        self._start = read_start(plan.pid)
        try:
            self._pidfd = os.pidfd_open(plan.pid)
        except ProcessLookupError:
            raise TargetError(f"there is no process {plan.pid} any more") from None
        try:
            self.cleared = clear_away(plan.pid, self.max_pause_s)
            self._injected = inject(plan, self.wishes, self.max_pause_s)
        except BaseException:
            os.close(self._pidfd)
            raise
        self._beat = Beat(self._injected.attached)
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.detach()
        finally:
            os.close(self._pidfd)
            self._pidfd = -1
            if self._injected is not None:
                os.close(self._injected.recording)

    @property
    def pauses_ms(self) -> dict[str, float]:
        """How long the process stood still in each phase."""
        return dict(self._of().pauses_ms)

    @property
    def attached(self) -> Attached:
        """What was done to the process."""
        return self._of().attached

    @property
    def path(self) -> Path:
        """Where the recording can be read, as long as this lasts."""
        return Path(f"/proc/self/fd/{self._of().recording}")

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        fd = self._pidfd
        return fd >= 0 and not select.select([fd], [], [], 0)[0]

    def is_attached(self) -> bool:
        """Whether the process still runs the program, and nobody has detached it."""
        if not self.is_alive():
            return False
        try:
            found = find_attached(self.plan.pid)
        except TargetError:
            return False
        identity = self._of().attached.identity
        return found is not None and found.identity == identity and bool(found.patches)

    def wait(self, seconds: float, stopped: Callable[[float], bool]) -> str:
        """Wait for `seconds`, and say why it was ended before: "stop", "end", "gone"; or "".

        `stopped` waits for at most so many seconds and says whether somebody wants to stop.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if stopped(min(left, _LOOK_S)):
                return "stop"
            if not self.is_alive():
                return "end"
            if not self.is_attached():
                return "gone"
        return ""

    def has_recording(self) -> bool:
        """Whether anything was allocated or freed so far."""
        return int.from_bytes(os.pread(self._of().recording, 8, 0), "little") == layout.MAGIC

    def recording(self) -> Recording | None:
        """Return what is recorded up to now; None: nothing was allocated or freed so far."""
        alive = self.is_alive()
        if not self.has_recording():
            return None
        if alive:
            self._tell_time()
        found = live.read(self.path)
        if not alive:
            return found
        return replace(found, process=replace(found.process, pid=self.plan.pid, ended="running"))

    def detach(self) -> None:
        """Take everything out. May be called more than once, and is tried once.

        Raises `TargetError` where the process cannot be stopped: then the agent stays in it, and
        `recording` still gives what was recorded.
        """
        if self._tried:
            return
        self._tried = True
        if self._beat is not None:
            self._beat.stop()
        injected = self._of()
        with contextlib.suppress(LeakscopeError, OSError):
            given = injected.handover()
            self.setup_ms, self.lonely = int(given["setup_ns"]) / 1e6, bool(given["lonely"])
        self._tell_time()
        self.removed = remove(injected.attached, max_pause_s=self.max_pause_s)
        if self.alone:
            return
        self.children = remove_from_children(injected.attached, max_pause_s=self.max_pause_s)

    def _of(self) -> Injected:
        if self._injected is None:
            raise TargetError(f"process {self.plan.pid} is not attached to")
        return self._injected

    def _tell_time(self) -> None:
        """Note in the recording how long it has lasted: a quiet program does not."""
        now = clock_of(self.plan.pid)
        fd = self._of().recording
        if not now or not self.is_attached():
            return
        for name in ("mono_last_ns", "counter_last"):
            form, offset = _HEADER[name][:2]
            if int.from_bytes(os.pread(fd, form.itemsize, offset), "little"):
                os.pwrite(fd, now.to_bytes(form.itemsize, "little"), offset)


def clear_away(pid: int, max_pause_s: float) -> Removed | None:
    """Take out what an earlier attach has left that nobody looks after any more."""
    attached = find_attached(pid)
    if attached is None or is_heard(attached):
        return None
    return remove(attached, max_pause_s=max_pause_s)


def program_name(recording: Recording) -> str:
    """Return the name that files of a recording begin with."""
    return _program_name(recording.process)
