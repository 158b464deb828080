# SPDX-License-Identifier: Apache-2.0
"""What heap dumps of Java tell: who holds how much, what looks like a leak, what grew between them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from leakscope.model.findings import Evidence, Verdict
from leakscope.model.frames import FrameName

__all__ = [
    "ClassRow",
    "DumpGrowth",
    "GrownPart",
    "HeapAnswer",
    "HeapOddity",
    "HeldClass",
    "JavaPattern",
]
__all__ += ["HeapPlace", "PathStep", "Suspect", "ThreadFacts"]


class JavaPattern(enum.StrEnum):
    """Leaks that have a name, because many programs have them."""

    STATIC_COLLECTION = "a static collection that is never emptied"
    LISTENERS = "listeners that are not removed"
    THREAD_LOCAL = "thread locals that are not removed"
    CLASS_LOADER = "class loaders that are not let go"
    STREAMS = "streams that are not closed"
    STRINGS = "a pool of strings that only grows"
    EQUAL = "equal strings"
    FINALIZER = "objects that wait for their finalizer"
    DIRECT = "direct buffers"
    LOCAL = "a variable of a thread that runs"


@dataclass(frozen=True, slots=True)
class PathStep:
    """One object on the way from what holds it. `reference` is how the one before refers to it."""

    reference: str  # "static SESSIONS", "table", "[17]"; of the first one what makes it a root
    class_name: str  # of an object of java.lang.Class that of the class it stands for
    address: int
    is_class: bool
    retained: int


@dataclass(frozen=True, slots=True)
class ThreadFacts:
    """A thread that holds something, with its stack, innermost frame first."""

    name: str
    stack: tuple[FrameName, ...]
    frame: FrameName | None = None  # whose variable it is, where one is
    more: int = 0  # other threads that hold the like


@dataclass(frozen=True, slots=True)
class HeldClass:
    """Objects of one class that something holds. Sizes are bytes of the objects alone."""

    class_name: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class HeapPlace:
    """An object in which memory accumulates. `key` is the same in another dump of the program."""

    class_name: str
    address: int
    retained: int
    entries: int  # objects that it holds directly
    held: tuple[HeldClass, ...]  # all that it holds, by class, heaviest first
    path: tuple[PathStep, ...]
    key: tuple[str, ...]
    soft: bool = False  # its entries are soft or weak references: a cache that gives back


@dataclass(frozen=True, slots=True)
class Suspect:
    """What holds a large share of a heap: one object, or `count` objects of a class."""

    class_name: str
    count: int
    retained: int
    share: float  # of all that is strongly held
    place: HeapPlace
    thread: ThreadFacts | None
    pattern: JavaPattern | None
    sentence: str
    next_step: str


@dataclass(frozen=True, slots=True)
class HeapOddity:
    """Something with a known name that no single object holds."""

    pattern: JavaPattern
    count: int
    size: int
    sentence: str
    next_step: str
    subject: str  # the same in another dump
    off_heap: bool = False  # the size is that of memory outside the Java heap


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The strongly held instances of one class name, with those of all loaders."""

    class_name: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class HeapAnswer:
    """One dump. Sizes are bytes; `taken_ms` counts from 1970."""

    name: str
    version: str
    android: bool
    id_size: int
    taken_ms: int
    objects: int
    class_count: int
    roots: int
    strong_bytes: int
    levels: tuple[tuple[str, int, int], ...]  # how held, objects, bytes; what is not strong
    classes: tuple[ClassRow, ...]  # heaviest first
    class_total: int
    suspects: tuple[Suspect, ...]
    oddities: tuple[HeapOddity, ...]
    places: tuple[HeapPlace, ...]  # also those too small to be suspects
    notes: tuple[str, ...]  # what is missing
    seconds: float
    memory: int  # bytes that the analysis took at most
    heaps: tuple[tuple[str, int, int], ...] = ()  # Android: name, objects, bytes


@dataclass(frozen=True, slots=True)
class GrownPart:
    """One class, or one place, through several dumps."""

    subject: str  # "class", "place", "pattern"
    name: str
    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    verdict: Verdict
    confidence: float
    rate: float | None  # bytes a second
    sentence: str
    evidence: tuple[Evidence, ...]
    place: HeapPlace | None = None
    pattern: JavaPattern | None = None


@dataclass(frozen=True, slots=True)
class DumpGrowth:
    """Several dumps of one process, in the order in which they were taken."""

    answers: tuple[HeapAnswer, ...]
    times_s: tuple[float, ...]  # since the first one
    verdict: Verdict | None  # None: nothing grows
    grown: tuple[GrownPart, ...]  # what leaks first
    steady: int  # classes that were judged and do not grow
    notes: tuple[str, ...]
