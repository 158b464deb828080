# SPDX-License-Identifier: Apache-2.0
"""Snapshots that Python's `tracemalloc.Snapshot.dump` writes: a pickle, read without running it.

A pickle is a program: loading one from elsewhere can do anything. Here its instructions are read by
`pickletools`, which executes none, and only those that build plain data are followed; classes and
functions that it names are remembered by name and never looked up. What is built is

    Snapshot.__dict__ = {"traces": _Traces {"_traces": [(domain, size, ((file, line), …)[, frames])]},
                         "traceback_limit": 1}

The frames of a trace are innermost first, whatever `Traceback` makes of them later.
"""

from __future__ import annotations

import pickletools
import re
from typing import TYPE_CHECKING, Any

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import FrameName
from leakscope.model.recordings import Coverage, Recording

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"^(?:\x80[\x02-\x05])?.{0,40}tracemalloc.{0,12}Snapshot", re.DOTALL)
_MOST = 128 << 20  # bytes: it is read as a whole
_MOST_STEPS = 60_000_000


class _Thing:
    """Stands for an object of a class, or a function, that nobody looks up."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None


_MARK = _Thing("mark")


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a snapshot of tracemalloc."""
    return _KNOWN.match(head[:128]) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the snapshot. Raises `RecordingError`."""
    data = b"".join(file.pieces(_MOST))
    try:
        root = _built(data)
        state = root.state
        traces = state["traces"]
        listed = traces.state["_traces"] if isinstance(traces, _Thing) else traces
        limit = state.get("traceback_limit")
    except (
        RecursionError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
    ) as error:
        why = f"; {file.cut}" if file.cut else ""
        raise RecordingError(
            f"{file.path} is a snapshot of tracemalloc that is damaged or cut: {error}{why}"
        ) from error
    if not isinstance(listed, list | tuple):
        raise RecordingError(f"{file.path} is a snapshot of tracemalloc without traces")
    return (_recording(listed, limit),)


def _built(data: bytes) -> _Thing:
    """Follow the instructions that build plain data. Raises ValueError for all others."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for steps, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if steps > _MOST_STEPS:
            raise ValueError("it is too long")
        name = opcode.name
        if name in _PUSHED:
            stack.append(argument)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in {"BINPUT", "LONG_BINPUT", "PUT"}:
            memo[int(argument)] = stack[-1]  # type: ignore[arg-type]
        elif name in {"BINGET", "LONG_BINGET", "GET"}:
            stack.append(memo[int(argument)])  # type: ignore[arg-type]
        elif name == "STOP":
            if isinstance(stack[-1], _Thing):
                return stack[-1]
            raise ValueError("it holds no object")
        elif name not in {"PROTO", "FRAME"}:
            _step(name, argument, stack)
    raise ValueError("it has no end")


_PUSHED = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"]
) | frozenset(["UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING"])
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def _step(name: str, argument: Any, stack: list[Any]) -> None:
    if name == "MARK":
        stack.append(_MARK)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name == "EMPTY_TUPLE":
        stack.append(())
    elif name == "EMPTY_LIST":
        stack.append([])
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name in {"TUPLE1", "TUPLE2", "TUPLE3"}:
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in {"TUPLE", "LIST"}:
        items = _marked(stack)
        stack.append(tuple(items) if name == "TUPLE" else items)
    elif name == "APPEND":
        item = stack.pop()
        stack[-1].append(item)
    elif name == "APPENDS":
        items = _marked(stack)
        stack[-1].extend(items)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][_text(key)] = value
    elif name in {"SETITEMS", "DICT"}:
        items = _marked(stack)
        pairs = {_text(k): v for k, v in zip(items[::2], items[1::2], strict=True)}
        if name == "DICT":
            stack.append(pairs)
        else:
            stack[-1].update(pairs)
    elif name == "GLOBAL":
        stack.append(_Thing(str(argument).replace(" ", ".")))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_Thing(f"{module}.{attribute}"))
    elif name in {"NEWOBJ", "REDUCE"}:
        stack.pop()  # its arguments
        function = stack.pop()
        stack.append(_Thing(getattr(function, "name", "?")))
    elif name == "BUILD":
        state = stack.pop()
        if not isinstance(stack[-1], _Thing):
            raise ValueError("it builds what is no object")
        stack[-1].state = state
    else:
        raise ValueError(f"it has an instruction that no snapshot needs: {name}")


def _text(key: Any) -> str:
    """Return a key of a dictionary; those of snapshots are texts."""
    if not isinstance(key, str):
        raise TypeError("a key is no text")
    return key


def _marked(stack: list[Any]) -> list[Any]:
    """Take off what is above the newest mark, and the mark."""
    for at in range(len(stack) - 1, -1, -1):
        if stack[at] is _MARK:
            items = stack[at + 1 :]
            del stack[at:]
            return items
    raise ValueError("a mark is missing")


def _recording(traces: list[Any] | tuple[Any, ...], limit: Any) -> Recording:
    build = RecordingBuilder()
    sums: dict[tuple[int, tuple[tuple[str, int], ...]], list[int]] = {}
    known: dict[int, tuple[tuple[str, int], ...]] = {}  # by the number of the object
    wrong = domains = 0
    for trace in traces:
        if not isinstance(trace, tuple) or len(trace) < 3 or not _is_size(trace[1]):
            wrong += 1
            continue
        frames = known.get(id(trace[2]))
        if frames is None:
            frames = known[id(trace[2])] = _flat(trace[2])
        key = (trace[0] if isinstance(trace[0], int) else 0, frames)
        held = sums.get(key)
        if held is None:
            if len(sums) >= MOST_RECORDS:
                wrong += 1
                continue
            held = sums[key] = [0, 0]
        held[0] += trace[1]
        held[1] += 1
        domains += bool(key[0])
    for (domain, frames), (size, count) in sums.items():
        kind = "python" if not domain else f"python, domain {domain:x}"
        node = build.stack(_frames(frames), truncated=False)
        build.site(node, kind if domains < 16 else "python", live_bytes=size, live_count=count)
    if not sums:
        build.site(0, live_bytes=0, live_count=0)
    notes = ["it is what Python held then; nobody looked whether it was in use"]
    if isinstance(limit, int) and 0 < limit < 1 << 20:
        notes.append(
            f"at most {limit} frames of a stack were recorded (tracemalloc.start({limit}))"
        )
    if wrong:
        notes.append(f"not understood: {wrong:,} traces")
    build.coverage = Coverage(
        mode="tracemalloc",
        max_depth=limit if isinstance(limit, int) and 0 < limit < 1 << 16 else None,
        troubles=(NO_CHECK,),
        notes=tuple(notes),
    )
    return build.build()


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 48


def _flat(told: Any) -> tuple[tuple[str, int], ...]:
    """Return the frames that make sense, innermost first: nothing nested is ever hashed."""
    return tuple(
        (one[0][:4096], one[1])
        for one in (told[:MOST_FRAMES] if isinstance(told, tuple) else ())
        if isinstance(one, tuple)
        and len(one) == 2
        and isinstance(one[0], str)
        and isinstance(one[1], int)
    )


def _frames(told: tuple[tuple[str, int], ...]) -> list[BuiltFrame]:
    """Return the frames, innermost first."""
    return [
        BuiltFrame(
            None,
            FrameName(
                file=file or "?", line=line if 0 < line < 1 << 31 else None, interpreter="python"
            ),
        )
        for file, line in told
    ]
