# SPDX-License-Identifier: Apache-2.0
"""Signs of life: whoever attached writes the time into the process, now and then.

Without them the agent stops recording after ten seconds (LS_NO_BEAT_NS), and others know that they
may clear away what was left.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.trace.attach.handover import HANDOVER, offset_of
from leakscope.trace.attach.hands import Writer

if TYPE_CHECKING:
    from leakscope.trace.attach.island import Attached

__all__ = ["Beat", "clock_of", "is_heard"]

_EVERY_S = 1.0
_HEARD_NS = 5_000_000_000
_OFFSET = offset_of(HANDOVER, "beat_ns")


def clock_of(pid: int) -> int:
    """Return the time in ns as the process has it, 0 when its clock is another than ours."""
    try:
        if Path(f"/proc/{pid}/ns/time").stat().st_ino != Path("/proc/self/ns/time").stat().st_ino:
            return 0
    except OSError:
        return 0
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def is_heard(attached: Attached) -> bool:
    """Whether the process that attached has given a sign of life lately."""
    if not attached.tracer:
        return False
    with Writer(attached.pid) as memory:
        last = int.from_bytes(memory.read(attached.handover + _OFFSET, 8), "little")
    if not last:  # not asked for
        return Path(f"/proc/{attached.tracer}").exists()
    return abs(clock_of(attached.pid) - last) < _HEARD_NS


class Beat:
    """A thread that gives signs of life for one attached process."""

    def __init__(self, attached: Attached) -> None:
        self._attached = attached
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="leakscope-beat")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for that."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        place = self._attached.handover + _OFFSET
        try:
            with Writer(self._attached.pid) as memory:
                while not self._stop.wait(_EVERY_S):
                    now = clock_of(self._attached.pid)
                    if now:
                        memory.write(place, now.to_bytes(8, "little"))
        except (OSError, TargetError):  # it has ended, or was detached
            return
