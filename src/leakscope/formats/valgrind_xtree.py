# SPDX-License-Identifier: Apache-2.0
"""valgrind's execution trees (--xtree-leak=yes, --xtree-memory) in callgrind's format.

    # callgrind format
    creator: xtree-1
    events: RB  PB  IB  DB  DIB  RBk  PBk  IBk  DBk  iRB …      or: curB curBk totB totBk totFdB totFdBk
    fl=(1) /tmp/a.c                                 names are written once, and numbered
    fn=(1) main
    17                                              the line of a frame that calls the next one
    cfi=(1)
    cfn=(2) lose
    calls=0 11
    17 0 0 64 240 …                                 the sum of that call: passed over
    fl=(1)
    fn=(2)
    11 0 0 64 240 …                                 the innermost frame: what was allocated there
                                                    an empty line ends the stack
    totals: 0 0 348 1032 …

Unlike callgrind's own profiles, whose stacks cannot be had back, each stack stands for itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._lines import RawLines, not_understood, number
from leakscope.formats._text import allocation_kind, frame
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"\s*# callgrind format\s*\n(?:[a-z]+:[^\n]*\n|\s*\n){0,10}creator: xtree-")
_NAME = re.compile(rb"(fl|fi|fe|fn|cfi|cfl|cfn)=\((\d{1,9})\)(?: (.*))?")
_COST = re.compile(rb"(\d{1,9})((?: \d{1,18})*) ?")
_UNKNOWN = ("UnknownFile???", "???")
_ALLOCATES = re.compile(
    r"(?:malloc|calloc|realloc|memalign|posix_memalign|operator new\b.*|_Zn[wa].*)"
)
_MOST_NAMES = 1 << 20
_MOST_NAME = 1 << 14  # bytes


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is such a tree."""
    return _KNOWN.match(head.replace(b"\r", b"")) is not None


@dataclass(slots=True)
class _Stack:
    frames: list[tuple[str, str, int]]  # function, file, line; outermost first
    costs: tuple[int, ...]


@dataclass(slots=True)
class _Tree:
    """What is in the file."""

    head: dict[bytes, str] = field(default_factory=dict)
    stacks: list[_Stack] = field(default_factory=list)
    whole: bool = False
    left_out: int = 0
    unknown: int = 0
    _names: dict[tuple[bool, int], str] = field(default_factory=dict)
    _open: list[tuple[str, str, int]] = field(default_factory=list)
    _where: tuple[str, str] = ("", "")
    _call: bool = False  # the next line is the sum of a call

    def take(self, line: bytes) -> None:
        """Read one line."""
        if (name := _NAME.fullmatch(line)) is not None:
            self._named(name)
        elif (cost := _COST.fullmatch(line)) is not None:
            self._cost(int(cost[1]), cost[2].split())
        elif line.startswith(b"calls="):
            self._call = True
        elif not line.strip() or line.startswith(b"#"):
            self._open.clear()
        else:
            word, colon, text = line.partition(b":")
            self.whole = self.whole or word == b"totals"
            if colon:
                self.head.setdefault(word, text.strip().decode("utf-8", "replace")[:_MOST_NAME])
            else:
                self.unknown += 1

    def _named(self, found: re.Match[bytes]) -> None:
        function = found[1].endswith(b"fn")
        key = function, int(found[2])
        if found[3] is not None and len(self._names) < _MOST_NAMES:
            self._names[key] = found[3][:_MOST_NAME].decode("utf-8", "replace")
        if found[1] == b"fl":
            self._where = "", self._names.get(key, "")
        elif found[1] == b"fn":
            self._where = self._names.get(key, ""), self._where[1]

    def _cost(self, line: int, costs: list[bytes]) -> None:
        if self._call:
            self._call = False
            return
        if len(self._open) < MOST_FRAMES:
            self._open.append((*self._where, line))
        if not costs:
            return
        if len(self.stacks) >= MOST_RECORDS:
            self.left_out += 1
            return
        told = tuple(number(cost) or 0 for cost in costs)
        self.stacks.append(_Stack(list(self._open), told))


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    lines, tree = RawLines(file), _Tree()
    for line in lines:
        tree.take(line)
    events = tree.head.get(b"events", "").split()
    if not {"RB", "DB"} <= set(events) and "curB" not in events:
        raise RecordingError(f"{file.path} is an execution tree of valgrind without its figures")
    command = tree.head.get(b"cmd", "").split(" ")[0]
    build = RecordingBuilder(
        Process(pid=number(tree.head.get(b"pid", "")), exe=command or None),
        Coverage(mode="valgrind xtree"),
    )
    leaks = "DB" in events
    for stack in tree.stacks:
        told = dict(zip(events, stack.costs, strict=False))
        node, kind = _node(build, stack)
        if leaks:
            _add_leaks(build, node, kind, told)
        else:
            _add_held(build, node, kind, told)
    if leaks:
        build.reach_is_known()
    lost = leaks and any(dict(zip(events, s.costs, strict=False)).get("DBk") for s in tree.stacks)
    build.coverage = _coverage(file, tree, leaks=leaks, lost=lost)
    return (build.build(),)


def _node(build: RecordingBuilder, stack: _Stack) -> tuple[int, str]:
    inner = list(reversed(stack.frames))
    kind = "malloc"
    if inner and inner[0][1] in _UNKNOWN and _ALLOCATES.fullmatch(inner[0][0]) is not None:
        kind = allocation_kind(inner.pop(0)[0])
    frames: list[BuiltFrame] = []
    for function, file, line in inner:
        built = frame(
            None,
            None if function in _UNKNOWN else function,
            None if file in _UNKNOWN else file,
            line or None,
        )
        if built is not None:
            frames.append(built)
    return build.stack(frames, truncated=len(stack.frames) >= MOST_FRAMES), kind


def _add_leaks(build: RecordingBuilder, node: int, kind: str, told: dict[str, int]) -> None:
    """Add what leaks at a stack. DB has the bytes that are lost with a block (DIB) in it."""
    found = (
        (Reachability.DEFINITELY_LOST, told.get("DB", 0) - told.get("DIB", 0), told.get("DBk", 0)),
        (Reachability.INDIRECTLY_LOST, told.get("IB", 0), told.get("IBk", 0)),
        (Reachability.POSSIBLY_LOST, told.get("PB", 0), told.get("PBk", 0)),
        (Reachability.REACHABLE, told.get("RB", 0), told.get("RBk", 0)),
    )
    for reach, size, count in found:
        if size > 0 or count > 0:
            site = build.site(node, kind, live_bytes=max(size, 0), live_count=count)
            build.reach(site, reach, count, max(size, 0))


def _add_held(build: RecordingBuilder, node: int, kind: str, told: dict[str, int]) -> None:
    counters = {"live_bytes": told.get("curB", 0), "live_count": told.get("curBk", 0)}
    names = {"totB": "alloc_bytes", "totBk": "allocs", "totFdB": "freed_bytes", "totFdBk": "frees"}
    for event, name in names.items():
        if event in told:
            counters[name] = told[event]
    build.site(node, kind, **counters)


def _coverage(file: ForeignFile, tree: _Tree, *, leaks: bool, lost: bool) -> Coverage:
    notes, troubles = [], []
    if not leaks:
        troubles.append(NO_CHECK)
        notes.append("the tree tells what was held, not whether it leaks; --xtree-leak=yes does")
    if not tree.whole:
        troubles = [] if lost else [NO_CHECK]  # what it found so far is lost all the same
        notes.append(f"the file is not whole: {file.cut or 'its totals are missing'}")
    if tree.left_out:
        notes.append(f"not read: {plural(tree.left_out, 'stack')}")
    if tree.unknown:
        notes.append(not_understood(tree.unknown))
    return Coverage(mode="valgrind xtree", troubles=tuple(troubles), notes=tuple(notes))
