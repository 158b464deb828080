# SPDX-License-Identifier: Apache-2.0
"""Leaks that many programs have, known by their looks: by name in a suspect, or all over the heap."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from leakscope.java._core import NONE, HeapTable, Level
from leakscope.java.paths import LOCAL
from leakscope.java.places import is_loader
from leakscope.model.heapdump import HeapOddity, JavaPattern
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.java.dump import HeapDump
    from leakscope.model.heapdump import HeapPlace, PathStep

__all__ = ["NEXT_STEPS", "find_oddities", "pattern_of"]

_LISTENER = re.compile(r"listener|observer|callback|handler|subscriber|watcher", re.IGNORECASE)
_COLLECTION = re.compile(
    r"^(java\.util\.(concurrent\.)?\w*(Map|Set|List|Deque|Queue|Vector|HeapTable|Stack|Array)\w*"
    r"|(com\.google\.common|it\.unimi\.dsi|org\.eclipse\.collections|gnu\.trove|kotlin\.collections"
    r"|scala\.collection|androidx?\.\w+)\..*"
    r"|.*\[\])(\$.*)?$"
)
_THREAD_LOCALS = ("threadLocals", "inheritableThreadLocals")

_FEW_LOADERS = 3
_FEW_STREAMS = 50
_FEW_FINALIZERS = 200
_SHARE = 0.05  # of the strongly held bytes
_LEAST = 256 << 10
_LEAST_DIRECT = 1 << 20
_MOST_ASKED = 20_000  # objects whose fields are read
_STREAMS = (
    "java.io.FileInputStream",
    "java.io.FileOutputStream",
    "java.io.RandomAccessFile",
    "java.net.Socket",
    "java.util.zip.ZipFile",
    "sun.nio.ch.FileChannelImpl",
    "sun.nio.ch.SocketChannelImpl",
)

NEXT_STEPS = {
    JavaPattern.STATIC_COLLECTION: "Remove entries when they are done with, or bound the collection"
    " (an LRU cache, WeakHashMap, Caffeine with a maximum size)",
    JavaPattern.LISTENERS: "Call the matching remove method when the owner goes, or hold listeners"
    " by weak references",
    JavaPattern.THREAD_LOCAL: "Call ThreadLocal.remove() in a finally block: threads of a pool never"
    " end",
    JavaPattern.CLASS_LOADER: "Look at the way to one of the loaders: what holds it has to be let go"
    " when the application is undeployed",
    JavaPattern.STREAMS: "Close them: try (var in = …) { … } does it in every case",
    JavaPattern.STRINGS: "Do not intern or pool what comes from outside, or bound the pool",
    JavaPattern.FINALIZER: "Look at the stack of the thread Finalizer (jcmd PID Thread.print), and"
    " replace finalize() by Cleaner or close()",
    JavaPattern.DIRECT: "Bound them with -XX:MaxDirectMemorySize and reuse buffers; each holds its"
    " memory until the garbage collector meets it",
    JavaPattern.LOCAL: "Look at the frame named: what its variables hold lives until it returns",
}


def pattern_of(dump: HeapDump, place: HeapPlace, way: Sequence[PathStep]) -> JavaPattern | None:
    """Return the pattern that the way to a place, and what is in it, show; None: none known."""
    references = [step.reference for step in way]
    if any(reference in _THREAD_LOCALS for reference in references):
        return JavaPattern.THREAD_LOCAL
    heaviest = [held.class_name for held in place.held[:3]]
    if any(_LISTENER.search(reference) for reference in references) or (
        heaviest and _LISTENER.search(heaviest[0].rpartition(".")[2])
    ):
        return JavaPattern.LISTENERS
    if _holds_loaders(dump, dump.number_of(place.address)):
        return JavaPattern.CLASS_LOADER
    if place.soft:
        return None
    collected = _COLLECTION.match(place.class_name) or any(
        _COLLECTION.match(step.class_name) for step in way[1:]
    )
    static = len(way) > 1 and way[0].is_class and way[1].reference.startswith("static ")
    if static and collected:
        return JavaPattern.STRINGS if _only_strings(place) else JavaPattern.STATIC_COLLECTION
    if LOCAL in references:
        return JavaPattern.LOCAL
    return None


def _holds_loaders(dump: HeapDump, number: int) -> bool:
    if number == NONE:
        return False
    children = dump.children(number)[:200].tolist()
    loaders = sum(is_loader(dump, each) for each in children)
    return loaders >= _FEW_LOADERS and 2 * loaders > len(children)


_SHARE_STRINGS = "Share equal strings, or run with -XX:+UseStringDeduplication"
_OF_STRINGS = ("java.lang.String", "byte[]", "char[]")


def _only_strings(place: HeapPlace) -> bool:
    """Whether what a place holds are strings, and what a collection needs to hold them."""
    total = sum(held.size for held in place.held)
    strings = sum(held.size for held in place.held if held.class_name in _OF_STRINGS)
    owners = sum(held.count for held in place.held if held.class_name == _OF_STRINGS[0])
    arrays = sum(held.count for held in place.held if held.class_name in _OF_STRINGS[1:])
    if arrays > 1.1 * owners:  # a string has one array at most: these are not of strings
        return False
    others = [
        held.class_name
        for held in place.held
        if held.class_name not in _OF_STRINGS and not held.class_name.startswith("java.util.")
    ]
    return bool(total) and not others and 2 * strings > total


def find_oddities(dump: HeapDump, strong_bytes: int) -> list[HeapOddity]:
    """Return what has a known name and is spread over the heap, heaviest first."""
    found: list[HeapOddity] = []
    floor = max(int(_SHARE * strong_bytes), _LEAST)
    for each in (_direct(dump), _finalizers(dump, floor), _streams(dump), _loaders(dump)):
        found += each
    found += _equal_strings(dump, floor)
    return sorted(found, key=lambda one: -one.size)


def _direct(dump: HeapDump) -> list[HeapOddity]:
    buffers = dump.instances("java.nio.DirectByteBuffer")
    buffers = buffers[dump.level[buffers] == Level.STRONG]
    total = count = 0
    for number in buffers[:_MOST_ASKED].tolist():
        fields = dump.fields_of(number)
        if fields.get("att"):  # a view of another one
            continue
        total += max(fields.get("capacity", 0), 0)
        count += 1
    if total < _LEAST_DIRECT:
        return []
    sentence = f"{plural(count, 'direct buffer')} of {bytes_text(total)} outside the Java heap"
    return [
        HeapOddity(
            JavaPattern.DIRECT,
            count,
            total,
            sentence,
            NEXT_STEPS[JavaPattern.DIRECT],
            "direct buffers",
            off_heap=True,
        )
    ]


def _finalizers(dump: HeapDump, floor: int) -> list[HeapOddity]:
    waiting = dump.level == Level.FINAL
    size = dump.bytes_of(waiting)
    finalizers = dump.instances("java.lang.ref.Finalizer")
    queued = _queue_length(dump)
    of = dump.core.table(HeapTable.REFERENCES)
    targets = of["to"][np.isin(of["from"], finalizers)]
    only = int((dump.level[targets] == Level.FINAL).sum())
    if max(only, queued) < _FEW_FINALIZERS and size < floor:
        return []
    names = Counter(
        dump.class_name(int(n)) for n in targets[dump.level[targets] == Level.FINAL][:_MOST_ASKED]
    )
    of_what = f", most of {names.most_common(1)[0][0]}" if names else ""
    sentence = (
        f"{plural(only, 'object')}{of_what}, with {bytes_text(size)}, held only until finalized"
    )
    if queued:
        sentence += f"; {plural(queued, 'of them is', 'of them are')} in the queue of the finalizer"
    step = NEXT_STEPS[JavaPattern.FINALIZER]
    return [
        HeapOddity(JavaPattern.FINALIZER, only, size, sentence, step, "objects to be finalized")
    ]


def _queue_length(dump: HeapDump) -> int:
    index = dump.names.class_index("java.lang.ref.Finalizer")
    if index == NONE:
        return 0
    number = int(dump.classes["number"][index])
    if number == NONE:
        return 0
    queue = dump.target(number, "queue")
    return 0 if queue == NONE else max(dump.whole(queue, "queueLength"), 0)


def _streams(dump: HeapDump) -> list[HeapOddity]:
    found = []
    for name in _STREAMS:
        numbers = dump.instances(name)
        numbers = numbers[dump.level[numbers] == Level.STRONG]  # the rest goes, and is closed
        if len(numbers) < _FEW_STREAMS:
            continue
        still = [number for number in numbers[:_MOST_ASKED].tolist() if _is_open(dump, number)]
        if len(still) < _FEW_STREAMS:
            continue
        size = sum(dump.size(number) for number in still)
        sentence = f"{plural(len(still), 'open object')} of {name}"
        step = NEXT_STEPS[JavaPattern.STREAMS]
        found.append(
            HeapOddity(JavaPattern.STREAMS, len(still), size, sentence, step, f"open {name}")
        )
    return found


def _is_open(dump: HeapDump, number: int) -> bool:
    fields = dump.fields_of(number)
    for name in ("closed", "isClosed", "closeRequested"):
        if name in fields:
            return not fields[name]
    descriptor = dump.number_of(fields.get("fd", 0))
    if descriptor != NONE:
        return dump.whole(descriptor, "fd") >= 0
    return bool(fields.get("open", True))


def _loaders(dump: HeapDump) -> list[HeapOddity]:
    """Several loaders of one class that loaded the same classes: generations of one application."""
    by_loader: dict[int, set[str]] = {}
    for index, loader in enumerate(dump.classes["loader"].tolist()):
        if loader:
            by_loader.setdefault(loader, set()).add(dump.names.class_name(index))
    by_kind: dict[tuple[str, frozenset[str]], list[int]] = {}
    for loader, names in by_loader.items():
        number = dump.number_of(loader)
        if number != NONE and dump.level[number] == Level.STRONG:
            # A few names tell one application from another.
            kind = (dump.class_name(number), frozenset(sorted(names)[:8]))
            by_kind.setdefault(kind, []).append(number)
    found = []
    for (name, classes), numbers in by_kind.items():
        if len(numbers) < _FEW_LOADERS or name.startswith(("jdk.internal.", "sun.reflect.")):
            continue
        inside = np.zeros(len(dump.objects), bool)
        for number in numbers[:64]:
            inside |= dump.dominated(number)
        size = dump.bytes_of(inside)
        sentence = (
            f"{len(numbers)} loaders {name} hold the same classes ({min(classes)}, …),"
            f" {bytes_text(size)} in all"
        )
        step = NEXT_STEPS[JavaPattern.CLASS_LOADER]
        found.append(
            HeapOddity(
                JavaPattern.CLASS_LOADER, len(numbers), size, sentence, step, f"loaders {name}"
            )
        )
    return found


def _equal_strings(dump: HeapDump, floor: int) -> list[HeapOddity]:
    """Strings of equal text, by a sample: what one of each would save."""
    strings = dump.instances("java.lang.String")
    strings = strings[dump.level[strings] == Level.STRONG]
    if len(strings) < 1000:
        return []
    sample = strings[:: max(1, len(strings) // 4000)][:4000].tolist()
    texts = Counter(text for n in sample if (text := dump.string(n)) is not None)
    more = sum(count - 1 for count in texts.values())
    if not texts or more < 0.5 * len(sample):
        return []
    each = sum(dump.retained(n) for n in sample) / len(sample)
    size = int(each * len(strings) * more / len(sample))
    if size < floor:
        return []
    text, count = texts.most_common(1)[0]
    sentence = (
        f"about {plural(int(len(strings) * more / len(sample)), 'string')} equal to another one, with"
        f" about {bytes_text(size)} (from a sample); most often {text[:40]!r}"
    )
    return [HeapOddity(JavaPattern.EQUAL, count, size, sentence, _SHARE_STRINGS, "equal strings")]
