# SPDX-License-Identifier: Apache-2.0
"""Before memory runs out: attached processes near a limit are scanned while there is room.

What `trace.pressure` does for a run, for those that are attached to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from leakscope.errors import TargetError
from leakscope.recording.own import own_ranges
from leakscope.scan import scan_process
from leakscope.trace.farewell import with_reachability
from leakscope.trace.pressure import Pressure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakscope.model.recordings import Recording
    from leakscope.trace.attach.session import Session
    from leakscope.trace.output import Output

__all__ = ["NearEnd"]

_KEPT_S = 10.0  # what is known of one that has ended, until somebody takes it


@dataclass(frozen=True, slots=True)
class _Attached:
    """An attached process as the watch looks at it."""

    path: Path
    session: Session

    def writer(self) -> int | None:
        return self.session.plan.pid if self.session.is_attached() else None

    def started(self) -> bool:
        return self.session.has_recording()


class NearEnd:
    """A context manager: inside, attached processes are watched. `sessions` gives them anew each time.

    None of them stands still for longer than `max_pause_s` seconds at a time. `root` is the first one.
    """

    def __init__(
        self,
        sessions: Callable[[], Sequence[Session]],
        output: Output,
        root: int,
        max_pause_s: float,
    ) -> None:
        self._sessions, self._max_pause_s = sessions, max_pause_s
        self._seen: dict[Path, tuple[Session, float]] = {}
        self._pressure = Pressure(self._files, output, root, self._examine, self._read)

    def __enter__(self) -> Self:
        self._pressure.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Look no more. May be called more than once."""
        self._pressure.stop()

    def told(self) -> list[str]:
        """Return what was done since the last call, in sentences."""
        return self._pressure.told()

    def killed(self) -> str | None:
        """Say for which limit the kernel killed something since the start; None: it did not."""
        why = self._pressure.killed()
        return (
            None if why is None else f"the kernel killed for memory while it was attached to: {why}"
        )

    def joined(self, session: Session, recording: Recording) -> Recording:
        """Return the recording of one that has ended with what its last scan said."""
        examined = self._pressure.take(_key(session))
        return recording if examined is None else with_reachability(recording, examined)

    def _files(self) -> list[_Attached]:
        now = time.monotonic()
        for session in self._sessions():
            self._seen[_key(session)] = session, now
        self._seen = {key: one for key, one in self._seen.items() if now - one[1] < _KEPT_S}
        return [_Attached(key, session) for key, (session, _) in self._seen.items()]

    def _examine(self, pid: int, path: Path, pause_s: float) -> Recording:
        session = self._seen[path][0]
        own = own_ranges(session.path)
        pause_s = min(pause_s, self._max_pause_s)
        return scan_process(pid, lambda: self._read(path), own=own, max_pause_s=pause_s)

    def _read(self, path: Path) -> Recording:
        session = self._seen[path][0]
        recording = session.recording()
        if recording is None:
            raise TargetError(f"process {session.plan.pid} has not allocated anything yet")
        return recording


def _key(session: Session) -> Path:
    attached = session.attached
    return Path(f"{attached.pid}.{attached.started_unix_ns}")
