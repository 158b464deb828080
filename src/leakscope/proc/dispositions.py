# SPDX-License-Identifier: Apache-2.0
"""Which signals our parent left ignored: what a program that we start has to inherit.

Python ignores SIGPIPE and SIGXFSZ before anybody can ask what they were. The command `leakscope` is
a small native program that asks first and passes the answer on; `python -m leakscope` has to guess
these two from what the parent itself ignores.
"""

from __future__ import annotations

import functools
import os
import signal

__all__ = ["ignored_by_parent", "settle"]

_VARIABLE = "LEAKSCOPE_IGNORED"  # native/start/command.c
_OVERWRITTEN = frozenset({int(signal.SIGPIPE), int(signal.SIGXFSZ)})


@functools.cache
def ignored_by_parent() -> frozenset[int]:
    """Return the numbers of the signals that were ignored when this process was started."""
    pid, _, mask = os.environ.pop(_VARIABLE, "").partition(":")
    try:
        if int(pid, 16) == os.getpid():  # else inherited by somebody whom it does not concern
            return _numbers(int(mask, 16))
    except ValueError:
        pass
    ours = {n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN}
    return frozenset(map(int, ours)) - _OVERWRITTEN | _guess()


def settle() -> None:
    """Note what was inherited, then make sure that we get the status of our children.

    For the start of a process that is leakscope's own.
    """
    ignored_by_parent()
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _guess() -> frozenset[int]:
    """Return what our parent ignores of what Python has overwritten.

    Systemd ignores SIGPIPE and so do its services, by default; shells ignore what they were told to. A
    parent in Python ignores both for itself and gives its children the default.
    """
    parent = os.getppid()
    try:
        if os.path.basename(os.readlink(f"/proc/{parent}/exe")).startswith("python"):
            return frozenset()
        with open(f"/proc/{parent}/status", encoding="utf-8", errors="replace") as status:
            mask = next(line.split()[1] for line in status if line.startswith("SigIgn:"))
        return _numbers(int(mask, 16)) & _OVERWRITTEN
    except (OSError, StopIteration, IndexError, ValueError):
        return frozenset()


def _numbers(mask: int) -> frozenset[int]:
    return frozenset(number for number in range(1, 65) if mask >> (number - 1) & 1)
