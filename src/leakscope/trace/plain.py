# SPDX-License-Identifier: Apache-2.0
"""Start a program without the agent and wait for its end, as `launch` does with it.

Streams, terminal, process group and signals are the program's own; what is sent to us is passed on.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.trace._harvest import program_name, signal_name
from leakscope.trace._spawn import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Ended", "program_name", "run_plain", "signal_name"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    pid: int
    exit_status: int | None  # None when a signal killed it
    killed_by: int | None  # the signal
    interrupted: bool  # somebody asked it to end with SIGINT or SIGTERM


def run_plain(
    path: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    started: Callable[[int], None] | None = None,
) -> Ended:
    """Run the file `path` to its end; `arguments` begin with the name that it is given.

    `started` is called with its pid at once. Raises `TargetError` when the kernel will not start it.
    """
    child = Child(path, arguments, ())
    child.start(environment)
    if started is not None:
        started(child.pid)
    status = child.wait(lambda: None)
    return Ended(
        pid=child.pid,
        exit_status=status if status >= 0 else None,
        killed_by=-status if status < 0 else None,
        interrupted=any(number in (signal.SIGINT, signal.SIGTERM) for number in child.received),
    )
