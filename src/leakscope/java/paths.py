# SPDX-License-Identifier: Apache-2.0
"""How something is held: the way from a root to it, reference by reference, with its names."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from leakscope.java._core import NONE, HeapTable
from leakscope.model.frames import FrameName
from leakscope.model.heapdump import PathStep, ThreadFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.java.dump import HeapDump

__all__ = ["CLASS", "LOCAL", "is_thread", "key_of", "label", "static_name", "steps", "thread_facts"]

CLASS, LOCAL = "<class>", "<local variable>"
_ROOTS = {0x01: "JNI global", 0x02: "JNI local", 0x03: "local variable", 0x04: "native stack"}
_ROOTS |= {0x05: "class of the system", 0x06: "thread", 0x07: "monitor", 0x08: "thread"}
_ROOTS |= {0x89: "interned string", 0x8A: "being finalized", 0x8B: "debugger"}
_ROOTS |= {0x8D: "virtual machine", 0x8E: "JNI monitor"}
_LONGEST = 400  # steps that are named
_FEWEST = 8  # objects of one class in a row that are a chain
_MOST_FRAMES = 64


def label(dump: HeapDump, holder: int, held: int) -> str:
    """Return by which field or element `holder` refers to `held`."""
    address = int(dump.objects["id"][held])
    for value in dump.values(holder):
        if value.is_reference and value.value == address:
            static = dump.kinds[holder] == 0 and not value.name.startswith("<")
            return f"static {value.name}" if static else value.name
    index = int(dump.class_of[holder])
    if index != NONE and int(dump.classes["number"][index]) == held:
        return CLASS
    if is_thread(dump, holder):
        return LOCAL
    return "[…]" if dump.kinds[holder] == 2 else "?"


def steps(dump: HeapDump, number: int) -> tuple[PathStep, ...]:
    """Return the way to an object, from a root, a static field or a thread; long chains shortened."""
    path = dump.path(number)
    if len(path) > _LONGEST:
        path = path[: _LONGEST // 2] + path[-_LONGEST // 2 :]
    start = _start(dump, path)
    found: list[PathStep] = []
    for at in range(start, len(path)):
        here = path[at]
        if at > start:
            reference = label(dump, path[at - 1], here)
        else:
            reference = "" if at else root_words(dump, here)
        found.append(_step(dump, here, reference))
    return tuple(found)


def _start(dump: HeapDump, path: Sequence[int]) -> int:
    """Where the way begins to tell something: at the last class whose static field it goes through.

    How the class itself is held (by its loader) says nothing, unless it is what leaks.
    """
    for at in range(len(path) - 2, -1, -1):
        if dump.kinds[path[at]] == 0 and label(dump, path[at], path[at + 1]).startswith("static "):
            return at
    return 0


def _step(dump: HeapDump, number: int, reference: str) -> PathStep:
    index = dump.class_index_of_object(number)
    name = dump.class_name(number) if index == NONE else dump.names.class_name(index)
    address = int(dump.objects["id"][number])
    return PathStep(reference, name, address, index != NONE, dump.retained(number))


def root_words(dump: HeapDump, number: int) -> str:
    """Say what makes an object a root."""
    tags = [int(root["tag"]) for root in dump.roots_of(number)]
    return next((_ROOTS[tag] for tag in tags if tag in _ROOTS), "root")


def static_name(path: Sequence[PathStep]) -> str:
    """Name what a static field leads to: "Shop.CACHE", "Shop.INSTANCE.listeners"."""
    words = [path[0].class_name, path[1].reference.removeprefix("static ")]
    for above, step in pairwise(path[1:]):
        own = not above.class_name.startswith(("java.", "javax.", "jdk.", "kotlin."))
        if not own or "[]" in above.class_name or step.reference.startswith(("[", "<", "?")):
            break
        words.append(step.reference)
        if len(words) >= 6:
            break
    return ".".join(words)


def key_of(path: Sequence[PathStep]) -> tuple[str, ...]:
    """Return what names a place in every dump of a program: classes and fields, no numbers.

    Chains of one class (a linked list, a map of maps) are folded: their length is what grows.
    """
    found: list[str] = []
    for step in path:
        reference = "[]" if step.reference.startswith("[") else step.reference
        word = f"{reference} {step.class_name}".strip()
        if step.is_class:
            word = f"class {step.class_name}"
        if len(found) > 1 and found[-1] == word:
            continue
        found.append(word)
    return tuple(found)


def is_thread(dump: HeapDump, number: int) -> bool:
    """Whether an object is a thread that ran when the dump was taken."""
    return any(int(root["tag"]) == 0x08 for root in dump.roots_of(number))


def thread_facts(dump: HeapDump, number: int, held: int = NONE) -> ThreadFacts | None:
    """Return the name and the stack of a thread; None for another object.

    `held` is an object on the way below it: where a frame's variable holds that, the frame is told.
    """
    root = next((r for r in dump.roots_of(number) if int(r["tag"]) == 0x08), None)
    if root is None:
        return None
    name = dump.target(number, "name")
    text = None if name == NONE else dump.string(name)
    stack = _stack(dump, int(root["frame"]))
    frame = None
    for each in () if held == NONE else dump.roots_of(held):
        if int(each["tag"]) == 0x03 and int(each["thread"]) == int(root["thread"]):
            at = int(each["frame"])
            frame = stack[at] if at < len(stack) else None
            break
    return ThreadFacts(text or "(without a name)", stack, frame)


def _stack(dump: HeapDump, serial: int) -> tuple[FrameName, ...]:
    traces = dump.core.table(HeapTable.TRACES)
    trace = next((one for one in traces if int(one["serial"]) == serial), None)
    if trace is None:
        return ()
    first = int(trace["first"])
    ids = dump.core.table(HeapTable.TRACE_FRAMES)[
        first : first + min(int(trace["count"]), _MOST_FRAMES)
    ]
    frames = dump.core.table(HeapTable.FRAMES)
    loads = {int(one["serial"]): int(one["name_id"]) for one in dump.core.table(HeapTable.LOADS)}
    by_id = {int(one["id"]): one for one in frames}
    found = []
    for id_ in ids.tolist():
        one = by_id.get(id_)
        if one is None:
            continue
        text = dump.names.text
        owner = (text(loads.get(int(one["class_serial"]), 0)) or "?").replace("/", ".")
        method = text(int(one["method"])) or "?"
        line = int(one["line"])
        file = text(int(one["file"]))
        found.append(FrameName(f"{owner}.{method}", file, line if line > 0 else None))
    return tuple(found)
