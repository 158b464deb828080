# SPDX-License-Identifier: Apache-2.0
"""What a command found, whatever it looked at: the one value that an output needs.

Texts are for people and complete; a measure that a table sorts by stands beside its text as a
number. Sizes are bytes, rates a second, times nanoseconds since the recording or watch began.
Texts come from hostile names: `leakscope.report.answers` makes all of them printable.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from leakscope.model.holders import Holding

__all__ = [
    "AccountRow",
    "AccountTable",
    "Answer",
    "FrameText",
    "GaugeCourse",
    "Lives",
    "Profile",
    "Result",
    "Signal",
    "Stack",
    "Step",
    "Tone",
]


class Tone(enum.StrEnum):
    """How bad something is; a colour never stands alone for it."""

    ALARM = "alarm"
    WARNING = "warning"
    CALM = "calm"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, and the command in it, if it has one."""

    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One line of an account. `tone` is that of the verdict on it."""

    name: str
    amount: int
    what: str = ""
    tone: Tone = Tone.CALM


@dataclass(frozen=True, slots=True)
class AccountTable:
    """A table that adds up: the rows are parts of `total`, and nothing is counted twice."""

    title: str
    unit: str  # "bytes" or "count"
    rows: tuple[AccountRow, ...]
    total: int
    total_name: str

    @property
    def adds_up(self) -> bool:
        """Whether the rows are the total; a table of estimates may miss it."""
        return sum(row.amount for row in self.rows) == self.total


@dataclass(frozen=True, slots=True)
class FrameText:
    """One frame as people read it. `own` is False for the run-time's and the system's code."""

    function: str
    file: str | None = None
    line: int | None = None
    module: str | None = None
    own: bool = True
    inlined: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """A call stack, innermost first; `source` is the place to look at, None: none of these."""

    title: str
    places: tuple[FrameText, ...]
    source: int | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """One piece of evidence, for the verdict or against it."""

    text: str
    supports: bool


@dataclass(frozen=True, slots=True)
class GaugeCourse:
    """A gauge over time. `fit` is the fitted line by its ends: time, value, low, high.

    `cuts` are moments across which values are not compared, with the reason. `falls` are none of
    them. Times are nanoseconds since the first value that anybody saw.
    """

    name: str
    subject: str
    verdict: str
    tone: Tone
    unit: str  # "bytes" or "count"
    times_ns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    sentence: str = ""
    step: Step | None = None
    cuts: tuple[tuple[int, str], ...] = ()
    fit: tuple[tuple[int, float, float, float], ...] = ()
    limit: float | None = None
    limit_text: str = ""  # whose limit it is, and when it is reached
    facts: tuple[str, ...] = ()  # what else was seen of the subject


@dataclass(frozen=True, slots=True)
class Lives:
    """When the living blocks of a site were allocated, and how old blocks are and became.

    `ages_*` count blocks by log2 of their age: entry 0 is younger than `tick_ns`, entry k lies
    in [2**(k-1), 2**k) ticks. `lifetime_ns` is the age that 99 % of the dead did not exceed.
    """

    births: tuple[int, ...]  # of what lives, by equal parts of the run
    ages_living: tuple[int, ...]
    ages_dead: tuple[int, ...]
    tick_ns: float
    lifetime_ns: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """One thing that was found: a finding, a leaking gauge, lost blocks, something odd."""

    key: str  # never the same twice in one answer; the same for the same thing elsewhere
    verdict: str
    tone: Tone
    title: str  # the place, the gauge, the size: what it is about
    where: str  # file and line, or module; empty when nobody knows
    sentence: str
    amount: int | None = None  # bytes
    amount_text: str = ""
    change: int | None = None  # bytes more than before, of two that are compared
    count: int | None = None  # blocks
    rate: float | None = None  # bytes a second
    remark: str = ""  # confidence, pattern, kind
    quiet: str | None = None  # why it is not shown by default
    step: Step | None = None
    evidence: tuple[Signal, ...] = ()
    stacks: tuple[Stack, ...] = ()
    source: tuple[tuple[int, str], ...] = ()  # numbered lines around `source_line`
    source_line: int | None = None
    site: int | None = None  # its row in the profile
    lives: Lives | None = None
    holders: tuple[Holding, ...] = ()
    lines: tuple[str, ...] = ()  # more that was seen
    identities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What every call stack allocated, held and lost: for flame graphs and long tables.

    A node is a frame in its context: `parents` of a node have smaller numbers, node 0 is the
    root. A site is a call stack (its innermost node) and a kind. `measures` have a value for each
    site, by name: "live_bytes", "live_count", "lost_bytes", "allocs", …; what the source does not
    know is missing. `verdicts` index `verdict_names`, 0 is no finding.
    """

    places: tuple[FrameText, ...]
    parents: npt.NDArray[np.int32]
    place_of: npt.NDArray[np.int32]  # of each node
    numbers: npt.NDArray[np.int32]  # of each site: what its source calls it
    node_of: npt.NDArray[np.int32]  # of each site
    kind_of: npt.NDArray[np.uint8]
    kinds: tuple[str, ...]
    verdicts: npt.NDArray[np.uint8]
    verdict_names: tuple[str, ...]
    measures: dict[str, npt.NDArray[np.float64]]
    times_ns: npt.NDArray[np.int64]  # of the rows of `courses`
    live_bytes: npt.NDArray[np.float64]  # at these times, of all sites together
    courses: npt.NDArray[np.float32]  # (len(course_of), rows) live bytes
    course_of: npt.NDArray[np.int32]  # sites that have a course, heaviest first
    resident_bytes: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command found on one subject."""

    command: str  # "report", "watch", …
    subject: str  # "app (pid 1234)"
    tone: Tone
    headline: str
    about: tuple[str, ...] = ()  # what the subject is, in a sentence each
    warnings: tuple[str, ...] = ()  # what can make the verdict wrong
    steps: tuple[Step, ...] = ()
    accounts: tuple[AccountTable, ...] = ()
    results: tuple[Result, ...] = ()
    left_out: int = 0  # results that are not among them
    courses: tuple[GaugeCourse, ...] = ()
    coverage: tuple[tuple[str, str], ...] = ()  # what was seen and not seen, by its name
    profile: Profile | None = field(default=None, compare=False)
