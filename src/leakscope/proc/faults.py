# SPDX-License-Identifier: Apache-2.0
"""Memory faults that the kernel's log still tells: of programs (SIGSEGV) and of the kernel itself.

They are bugs of memory, and no sign of a leak.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.proc.kmsg import read_log

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Fault", "parse_faults", "read_faults"]

# arch/x86/mm/fault.c, arch/x86/kernel/traps.c; arch/arm64/kernel/traps.c.
_PROGRAM = re.compile(
    r"(?:traps: )?(?P<name>.{1,64}?)\[(?P<pid>\d+)\]:? "
    r"(?P<what>segfault|general protection(?: fault)?|trap (?:invalid opcode|stack segment|divide error)"
    r"|unhandled (?:level \d )?(?:translation|permission|alignment) fault|bad frame|bus error)"
    r".*?(?: in (?P<where>[^\[,]+)\[[0-9a-f]+.*)?$"
)
_KERNEL = re.compile(
    r"BUG: (?:unable to handle|kernel NULL pointer|KASAN|KFENCE|Bad page)"
    r"|kernel BUG at|Unable to handle kernel|general protection fault, probably for non-canonical"
)
_OOPS = re.compile(r"(?:Internal error: )?Oops(?: - [^:]*)?: .*\[#\d+\]")
_WORDS = ("fault", "BUG", "Oops", "nable to handle", "general protection", "traps:", "bad frame")
_SAME = 10.0  # seconds: the lines of one oops
_LONGEST = 120


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `age_s` is how long ago it was; `text` is hostile."""

    kernel: bool  # an oops; else a program was killed, or handled the signal
    text: str  # "w (pid 24812) in libc.so.6", or the kernel's own words
    age_s: float


def parse_faults(records: Iterable[tuple[float, str]], now_s: float) -> list[Fault]:
    """Find the faults among records of the log (seconds since boot, text), the oldest first."""
    found: list[Fault] = []
    oops_s = -_SAME
    for at, text in records:
        if _KERNEL.search(text) or _OOPS.search(text):
            if at - oops_s >= _SAME:
                found.append(Fault(True, text[:_LONGEST], max(0.0, now_s - at)))
            oops_s = at
        elif (program := _PROGRAM.match(text)) is not None:
            where = f" in {program['where']}" if program["where"] else ""
            who = f"{program['name']} (pid {program['pid']}){where}"
            found.append(Fault(False, who, max(0.0, now_s - at)))
    return found


def read_faults(path: str = "/dev/kmsg") -> list[Fault] | None:
    """Return the faults that the log still holds; None when this user may not read it."""
    records = read_log(lambda text: any(word in text for word in _WORDS), path)
    return None if records is None else parse_faults(records, time.monotonic())
