# SPDX-License-Identifier: Apache-2.0
"""End a program that takes too long, with all that it started, and keep what was recorded.

SIGTERM goes to its process group first, as a CI runner does it; what is still there after a few
seconds is killed, together with traced processes that left the group. A process that is being
examined for lost blocks, which its own SIGTERM began, is given the time for that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    from leakscope.trace._harvest import Harvest
    from leakscope.trace._spawn import Child
    from leakscope.trace.farewell import Farewells

__all__ = ["Deadline"]

_PATIENCE_S = 5.0  # between SIGTERM and SIGKILL,
_EXAMINED_S = 60.0  # or so much for a process that is being examined
_DYING_S = 10.0  # after SIGKILL, until nobody waits any more
_PAUSE_S = 0.02


class Deadline:
    """The moment at which a program is told to end. `seconds` None: it never comes."""

    def __init__(
        self, seconds: float | None, child: Child, harvest: Harvest, farewells: Farewells | None
    ) -> None:
        self.seconds = seconds
        self._child, self._harvest, self._farewells = child, harvest, farewells
        self._began = time.monotonic()
        self._asked: float | None = None  # when SIGTERM was sent
        self.killed = False
        self._finished = False

    @property
    def passed(self) -> bool:
        """Whether the program was told to end."""
        return self._asked is not None

    def look(self) -> None:
        """Do what is due; called a few times a second while the program runs."""
        if self.seconds is None:
            return
        now = time.monotonic()
        if self._asked is None:
            if now - self._began >= self.seconds:
                self._asked = now
                self._child.kill(signal.SIGTERM)
                self._child.kill(signal.SIGCONT)  # one that is stopped hears nothing else
        elif not self.killed and now - self._asked >= self._patience():
            self.killed = True
            self._child.kill(signal.SIGKILL)

    def finish(self) -> None:
        """After the program's end: see that the others of its group, and its daemons, end as well."""
        if self._asked is None or self._finished:
            return
        self._finished = True
        for pid in self._traced():
            if not _is_in_group(pid, self._child.pid):
                _kill(pid, signal.SIGTERM)
        until = self._asked + _EXAMINED_S + _DYING_S
        told = False
        while time.monotonic() < until and (self._child.kill(0) or self._traced()):
            if not told and (self.killed or time.monotonic() - self._asked >= self._patience()):
                told, self.killed = True, True
                until = time.monotonic() + _DYING_S
                self._child.kill(signal.SIGKILL)
                for pid in self._traced():
                    _kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)

    def note(self) -> str:
        """Say what was done."""
        how = "SIGTERM" if not self.killed else "SIGTERM and then, as that did not do, SIGKILL"
        return (
            f"the timeout of {self.seconds:g} s was reached: its processes were sent {how};"
            f" what was recorded until then is here"
        )

    def _patience(self) -> float:
        examined = self._farewells is not None and self._farewells.busy
        return _EXAMINED_S if examined else _PATIENCE_S

    def _traced(self) -> list[int]:
        """Return the processes that still write a recording of this run."""
        with contextlib.suppress(LeakscopeError):
            writers = (file.writer() for file in self._harvest.live_files())
            return [pid for pid in writers if pid is not None]
        return []


def _is_in_group(pid: int, group: int) -> bool:
    """Whether it has been sent what the group was sent."""
    try:
        return os.getpgid(pid) == group
    except (ProcessLookupError, PermissionError):
        return True


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
