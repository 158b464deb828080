# SPDX-License-Identifier: Apache-2.0
"""What one look at a kernel's memory tells: where it is, what is odd, what cannot be seen."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.triage import Oddity

__all__ = ["KernelHolder", "KernelSource", "KernelState"]


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One thing a kernel can tell. `state` is "works", "off", "denied" or "absent"."""

    name: str
    tells: str
    state: str
    why: str = ""
    enable: str = ""  # what would make it work

    @property
    def works(self) -> bool:
        """Whether it can be read now."""
        return self.state == "works"


@dataclass(frozen=True, slots=True)
class KernelHolder:
    """A line, cache or function and what it holds, in bytes; `growth` is in bytes a second."""

    kind: str  # "line", "cache", "vmalloc", "pages"
    name: str
    bytes: int
    count: int | None = None
    growth: float = 0.0
    note: str = ""  # "given back on demand"


@dataclass(frozen=True, slots=True)
class KernelState:
    """Everything the screen shows. Sizes in bytes."""

    release: str
    verdict: str
    total: int
    kernel: int  # what the kernel holds of it for itself, caches that it gives back left out
    reclaimable: int
    unexplained: int
    sources: tuple[KernelSource, ...]
    holders: tuple[KernelHolder, ...]  # the heaviest of each kind first
    oddities: tuple[Oddity, ...]
    suspects: int | None  # objects in kmemleak's report now; None: it cannot be read
    next_step: str
    apart_s: float
    notes: tuple[str, ...] = ()
