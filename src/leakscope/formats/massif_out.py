# SPDX-License-Identifier: Apache-2.0
"""massif's files as recordings: what was held at times, and by whom in some of them.

    desc: --stacks=yes
    cmd: ./a
    time_unit: i                     i (instructions), ms, B (bytes allocated), s (heaptrack)
    #-----------
    snapshot=2
    #-----------
    time=5646030
    mem_heap_B=32100352
    mem_heap_extra_B=0
    mem_stacks_B=0
    heap_tree=detailed               empty, detailed, peak
    n2: 32100352 (heap allocation functions) malloc/new/new[], --alloc-fns, etc.
     n0: 30000000 0x4005DB: main (a.c:31)             callers of what stands above, indented
     n0: 2100352 in 29 places, all below massif's threshold (1.00%)

The snapshot that is marked as the peak need not be the biggest (--peak-inaccuracy).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, NO_CHECK
from leakscope.formats._frame_text import frame_of
from leakscope.formats._lines import RawLines, not_understood
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.recordings import Coverage, Process
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_HEAD = re.compile(rb"\s*desc:[^\n]*\n\s*cmd:[^\n]*\n\s*time_unit:")
_NUMBER = re.compile(
    rb"(snapshot|time|mem_heap_B|mem_heap_extra_B|mem_stacks_B)=(\d{1,18})(?:\.\d+)?"
)
_NODE = re.compile(rb"( *)n(\d{1,9}): (\d{1,18}) (.*)")
_PLACES = re.compile(rb"in \d+ places?, (?:all )?below")
_NS = {"ms": 1_000_000, "s": 1_000_000_000}
_MOST_NODES = 1 << 20
_MOST_SNAPSHOTS = 1 << 20


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is massif's."""
    return _HEAD.match(head.replace(b"\r", b"")) is not None


@dataclass(slots=True)
class _Snapshot:
    number: int = 0
    time: int = 0
    heap: int = 0
    extra: int = 0
    stacks: int = 0
    peak: bool = False
    whole: bool = False  # nothing of it is missing

    @property
    def total(self) -> int:
        return self.heap + self.extra + self.stacks


@dataclass(slots=True)
class _Node:
    size: int
    text: bytes
    children: int  # that are still to come
    own: int = 0  # bytes that no child has


class _Massif:
    """What is in the file."""

    def __init__(self) -> None:
        self.head: dict[bytes, str] = {}
        self.snapshots: list[_Snapshot] = []
        self.tree: tuple[_Snapshot, list[tuple[int, _Node]]] | None = None  # the last whole one
        self._nodes: list[tuple[int, _Node]] | None = None
        self.unknown = 0

    def read(self, lines: RawLines) -> None:
        for line in lines:
            self._line(line)
        if not lines.rest:
            self._end_tree()

    def _line(self, line: bytes) -> None:
        if (node := _NODE.fullmatch(line)) is not None:
            if self._nodes is not None and len(self._nodes) < _MOST_NODES:
                entry = _Node(int(node[3]), node[4], int(node[2]))
                self._nodes.append((len(node[1]), entry))
            return
        if (found := _NUMBER.fullmatch(line)) is not None:
            self._number(found[1], int(found[2]))
        elif line.startswith(b"heap_tree="):
            self._begin_tree(line[10:])
        elif line.startswith(b"#"):
            self._end_tree()
        elif line.startswith((b"desc:", b"cmd:", b"time_unit:")) and not self.snapshots:
            name, _, text = line.partition(b":")
            self.head[name] = text.strip().decode("utf-8", "replace")
        elif line.strip():
            self.unknown += 1

    def _number(self, name: bytes, value: int) -> None:
        if name == b"snapshot":
            if len(self.snapshots) < _MOST_SNAPSHOTS:
                self.snapshots.append(_Snapshot(value))
        elif self.snapshots:
            names = {b"time": "time", b"mem_heap_B": "heap", b"mem_heap_extra_B": "extra"}
            setattr(self.snapshots[-1], names.get(name, "stacks"), value)

    def _begin_tree(self, kind: bytes) -> None:
        if self.snapshots:
            self.snapshots[-1].peak = kind == b"peak"
            self.snapshots[-1].whole = kind == b"empty"
            self._nodes = None if kind == b"empty" else []

    def _end_tree(self) -> None:
        """Keep the tree when it has all the nodes that it tells of."""
        nodes, self._nodes = self._nodes, None
        if not nodes:
            return
        path: list[_Node] = []
        for depth, node in nodes:
            if depth > len(path):
                return
            del path[depth:]
            node.own = node.size
            if path:
                path[-1].children -= 1
                path[-1].own -= node.size
            path.append(node)
        if all(node.children == 0 and node.own >= 0 for _, node in nodes):
            self.snapshots[-1].whole = True
            self.tree = self.snapshots[-1], nodes


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    lines, massif = RawLines(file), _Massif()
    massif.read(lines)
    if massif.head.get(b"desc", "").startswith("xtree."):
        raise RecordingError(
            f"{file.path} is an execution tree of valgrind in massif's format: its snapshots are"
            " different figures of one moment",
            hint="Make it with --xtree-memory=full --xtree-memory-file=NAME.kcg.",
        )
    if not massif.snapshots:
        raise RecordingError(f"{file.path} is a file of massif without any snapshot")
    command = massif.head.get(b"cmd", "").split(" ")[0]
    unit = massif.head.get(b"time_unit", "i")
    last = massif.snapshots[-1]
    build = RecordingBuilder(
        Process(exe=command or None),
        duration_ns=last.time * _NS[unit] if unit in _NS else None,
    )
    if massif.tree is not None and _is_late(massif):
        _add_sites(build, massif.tree[1])
        rest = max(last.heap - massif.tree[0].heap, 0)
    else:
        rest = last.heap
    build.site(0, live_bytes=rest)  # by whom is not told
    build.coverage = Coverage(
        mode="valgrind massif",
        troubles=(NO_CHECK,),
        notes=tuple(_notes(file, lines, massif)),
    )
    return (build.build(),)


def _is_late(massif: _Massif) -> bool:
    """Whether the last tree is about what was held at the end: at most 5 % off."""
    last = massif.snapshots[-1].heap
    return massif.tree is not None and abs(massif.tree[0].heap - last) * 20 <= last


def _places(nodes: list[tuple[int, _Node]]) -> str:
    """Return the three heaviest callers of the allocator."""
    top = sorted((node for depth, node in nodes if depth == 1), key=lambda n: -n.size)[:3]
    return "; ".join(f"{n.size:,} {n.text.decode('utf-8', 'replace')[:200]}" for n in top)


def _add_sites(build: RecordingBuilder, nodes: list[tuple[int, _Node]]) -> None:
    pages = nodes[0][1].text.startswith(b"(page allocation")
    path: list[BuiltFrame | None] = []
    for depth, node in nodes:
        del path[depth:]
        text = node.text.decode("utf-8", "replace")
        few = _PLACES.match(node.text) is not None
        path.append(None if few or depth == 0 else frame_of(text))
        if node.own:
            frames = [frame for frame in path[:MOST_FRAMES] if frame is not None]
            where = build.stack(frames, truncated=few or len(path) > MOST_FRAMES)
            build.site(where, "mmap" if pages else "malloc", live_bytes=node.own)


def _notes(file: ForeignFile, lines: RawLines, massif: _Massif) -> list[str]:
    notes = ["massif tells how much is held, not whether it leaks; memcheck looks for leaks"]
    last, unit = massif.snapshots[-1], massif.head.get(b"time_unit", "i")
    cut = file.cut or (None if last.whole and not lines.rest else "it ends inside a snapshot")
    if cut:
        notes.append(f"the file is not whole: {cut}")
    notes.append(
        f"held in the last of {len(massif.snapshots):,} snapshots: {last.heap:,} bytes of heap,"
        f" {last.extra:,} more around the blocks"
        + (f", {last.stacks:,} of stacks" if last.stacks else "")
    )
    half = [s for s in massif.snapshots if s.time * 2 <= last.time]
    if half and last.time:
        notes.append(f"after half of the run it was {half[-1].heap:,} bytes of heap")
    peak = next((s for s in massif.snapshots if s.peak), None)
    most = max(massif.snapshots, key=lambda each: each.total)
    if peak is not None:
        notes.append(f"massif's peak, snapshot {peak.number}: {peak.total:,} bytes")
    if peak is None or most.total > peak.total:
        notes.append(f"the biggest snapshot, {most.number}: {most.total:,} bytes")
    if massif.tree is None:
        notes.append("no snapshot tells who holds the memory")
    elif massif.tree[0] is not last:
        at = massif.tree[0]
        notes.append(
            f"who holds it is that of snapshot {at.number} ({bytes_text(at.heap)}), the last one with"
            f" details: at {at.time:,} of {last.time:,} {unit}"
        )
        if not _is_late(massif):
            notes[-1] += f": {_places(massif.tree[1])}"
    if "--pages-as-heap=yes" in massif.head.get(b"desc", ""):
        notes.append("it is pages that were mapped, of libraries too: that they stay is no leak")
    if massif.unknown:
        notes.append(not_understood(massif.unknown))
    return notes
