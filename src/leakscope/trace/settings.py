# SPDX-License-Identifier: Apache-2.0
"""What the agent is asked to do, and how it is told: its environment variables.

The same variables work without leakscope's command line: LD_PRELOAD and LEAKSCOPE_DIR are
enough to record a program.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from leakscope._digits import is_number
from leakscope.errors import UsageError

__all__ = ["CONFIG_FILE", "MAX_DEPTH", "Settings", "parse_signal", "parse_size"]

CONFIG_FILE = "/etc/leakscope.conf"
"""Switches recording on in programs that have the agent preloaded and sleeping."""

MAX_DEPTH = 256
"""Frames the agent can keep of one call stack (LS_MAX_DEPTH)."""

MOST_RECORDINGS = 2048
"""Recordings of ended processes that wait to be read, before the oldest are given up."""

MAX_DIRECTORY = 480
"""Bytes of LEAKSCOPE_DIR that leave the agent room for a file name."""

MAX_NAMES = 255
"""Bytes of LEAKSCOPE_ONLY and of LEAKSCOPE_EXCLUDE that the agent keeps."""

_SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNUSABLE = {
    signal.SIGKILL: "cannot be caught",
    signal.SIGSTOP: "cannot be caught",
    signal.SIGSEGV: "means a crash",
    signal.SIGBUS: "means a crash",
    signal.SIGILL: "means a crash",
    signal.SIGFPE: "means a crash",
    signal.SIGABRT: "means a crash",
    signal.SIGCHLD: "comes with every child that ends",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What to record. None leaves a thing to the agent's environment or its default.

    Sizes in bytes, `start_after` in seconds, signals as numbers. Raises `UsageError` when a
    value makes no sense.
    """

    sample: int | None = None  # mean bytes between samples; None: every allocation
    min_size: int | None = None
    max_size: int | None = None
    depth: int | None = None
    start_after: float | None = None
    start_signal: int | None = None
    stop_signal: int | None = None
    dump_signal: int | None = None
    children: bool = True
    only: tuple[str, ...] = ()  # programs by name, with * and ?; empty: all
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise UsageError(f"the sampling period must be at least one byte, not {self.sample}")
        for name, value in (("smallest", self.min_size), ("largest", self.max_size)):
            if value is not None and value < 0:
                raise UsageError(f"the {name} size to record cannot be negative: {value}")
        if self.min_size is not None and self.max_size and self.min_size > self.max_size:
            raise UsageError(
                f"the smallest size to record ({self.min_size}) is above the largest"
                f" ({self.max_size}): nothing would be recorded"
            )
        if self.depth is not None and not 1 <= self.depth <= MAX_DEPTH:
            raise UsageError(f"the depth must be between 1 and {MAX_DEPTH}, not {self.depth}")
        if self.start_after is not None and not 0 <= self.start_after <= 1e9:
            raise UsageError(f"cannot start after {self.start_after} seconds")
        for number in (self.start_signal, self.stop_signal, self.dump_signal):
            if number is not None:
                _check_signal(number)
        if self.dump_signal is not None and self.dump_signal in (
            self.start_signal,
            self.stop_signal,
        ):
            raise UsageError("the dump signal must differ from the start and stop signals")
        for names in (self.only, self.exclude):
            _check_names(names)

    def environment(self, directory: str) -> dict[str, str]:
        """Return the variables that make the agent record into `directory`."""
        if not directory.startswith("/") or len(directory.encode()) > MAX_DIRECTORY:
            raise UsageError(
                f"the path {directory[:80]} is not absolute or longer than {MAX_DIRECTORY} bytes,"
                f" more than the agent takes"
            )
        values = {
            "LEAKSCOPE_SAMPLE": self.sample,
            "LEAKSCOPE_MIN_SIZE": self.min_size,
            "LEAKSCOPE_MAX_SIZE": self.max_size,
            "LEAKSCOPE_DEPTH": self.depth,
            "LEAKSCOPE_START_SIGNAL": self.start_signal,
            "LEAKSCOPE_STOP_SIGNAL": self.stop_signal,
            "LEAKSCOPE_DUMP_SIGNAL": self.dump_signal,
        }
        variables = {name: str(value) for name, value in values.items() if value is not None}
        variables["LEAKSCOPE_DIR"] = directory
        variables["LEAKSCOPE_KEEP"] = str(MOST_RECORDINGS)
        if self.start_after is not None:
            variables["LEAKSCOPE_START_AFTER"] = f"{self.start_after:.9f}"
        for name, patterns in (("LEAKSCOPE_ONLY", self.only), ("LEAKSCOPE_EXCLUDE", self.exclude)):
            if patterns:
                variables[name] = "/".join(patterns)
        if not self.children:
            variables["LEAKSCOPE_CHILDREN"] = "0"
        return variables


def parse_size(text: str) -> int:
    """Return the bytes that "4096", "512KiB", "64k" or "1.5M" stand for; units are binary.

    Raises `UsageError` when it is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > 32:
        raise UsageError(f"{text[:40]!r} is not a size", hint="Write 4096, 512KiB or 1.5M.")
    whole, fraction, unit = match.groups()
    scale = 1024 ** " kmgt".index(unit.lower() or " ")
    return round(float(f"{whole}.{fraction}") * scale) if fraction else int(whole) * int(scale)


def parse_signal(text: str) -> int:
    """Return the number of a signal named "USR1", "SIGUSR1" or "10"; checked as in `Settings`."""
    name = text.strip().upper()
    if is_number(name):
        number = int(name)
    else:
        name = name if name.startswith("SIG") else f"SIG{name}"
        realtime = re.fullmatch(r"SIGRTMIN\+(\d{1,2})", name)
        found = getattr(signal, name, None)
        if realtime:
            number = int(signal.SIGRTMIN) + int(realtime[1])
        elif isinstance(found, signal.Signals):
            number = int(found)
        else:
            raise UsageError(f"there is no signal {text[:40]}", hint="For example: USR1, USR2.")
    _check_signal(number)
    return number


def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not name or "/" in name:
            raise UsageError(
                f"'{name[:80]}' is not a program's name",
                hint="Write it without its directory; * stands for any text: --only 'test_*'",
            )
    if len("/".join(names).encode()) > MAX_NAMES:
        raise UsageError(f"the names of programs are longer than {MAX_NAMES} bytes together")


def _check_signal(number: int) -> None:
    if not 1 <= number <= signal.SIGRTMAX:
        raise UsageError(f"there is no signal number {number}")
    reason = {int(key): value for key, value in _UNUSABLE.items()}.get(number)
    if reason is not None:
        raise UsageError(
            f"{signal.Signals(number).name} cannot control recording: it {reason}",
            hint="Use USR1, USR2 or a real-time signal such as RTMIN+3.",
        )
