# SPDX-License-Identifier: Apache-2.0
"""What one look at a machine tells: whose its memory is, what is odd, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AccountLine", "Holder", "Oddity", "ProgramGroup", "Triage"]


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One line of the account of the machine."""

    name: str
    bytes: int
    what: str
    owners: tuple[tuple[str, int], ...] = ()  # whose it is, where that is known: name, bytes


@dataclass(frozen=True, slots=True)
class Holder:
    """One process and what it holds. `pss` is None where it may not be read.

    `growth` is that of `anon` between the two looks, in bytes a second; None: it is too young.
    """

    pid: int
    name: str
    anon: int
    pss: int | None
    threads: int
    fds: int | None
    exe: str | None = None
    growth: float | None = None

    @property
    def held(self) -> int:
        """PSS, or anonymous memory where PSS may not be read."""
        return self.anon if self.pss is None else self.pss


@dataclass(frozen=True, slots=True)
class ProgramGroup:
    """All processes of one executable. `pss` is None where one of theirs may not be read."""

    name: str
    processes: int
    pid: int  # of the biggest
    held: int
    pss: int | None
    anon: int
    threads: int
    fds: int | None
    growth: float = 0.0  # of all of them, bytes a second


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something unusual, in a sentence, and what to do about it; `urgent` hurts already."""

    sentence: str
    next_step: str
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Triage:
    """Everything the screen shows."""

    total: int
    available: int
    lines: tuple[AccountLine, ...]
    processes: tuple[Holder, ...]  # biggest first
    oddities: tuple[Oddity, ...]
    notes: tuple[str, ...]
    next_step: str
    seconds: float
    apart_s: float = 0.0  # the two looks
    cgroup: tuple[str, int, int] | None = None  # path, working set, limit, when bounded
    state: Mapping[str, float] = field(default_factory=dict)  # pressure, fragmentation, …
