# SPDX-License-Identifier: Apache-2.0
"""DHAT's files, version 2 (valgrind --tool=dhat, dhat-rs), as recordings.

JSON with mode (heap, rust-heap; copy and ad-hoc hold no heap), bklt (whether lifetimes and the end
are told), tu (time unit: instrs or us), te (time at the end), pid, cmd, ftbl (texts of frames) and
pps, a program point each: tb, tbk (bytes and blocks in all), mb (its own peak), gb, gbk (at the
peak of all), eb, ebk (at the end), fs (frames, innermost first, as indices of ftbl).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, NO_CHECK
from leakscope.formats._frame_text import frame_of
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import FrameName
from leakscope.model.recordings import Coverage, Process

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_HEAD = re.compile(rb'\s*\{\s*"dhatFileVersion"\s*:')
_MOST = 64 << 20  # bytes: all of it is in memory
_MOST_VALUE = 1 << 60
_OTHERS = "Make it with: valgrind --tool=dhat PROGRAM (mode heap), or run: leakscope run -- PROGRAM"


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is DHAT's."""
    return _HEAD.match(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    try:
        document = json.loads(b"".join(file.pieces(_MOST)))
    except (ValueError, RecursionError):
        why = file.cut or "it is cut, or damaged"
        raise RecordingError(f"{file.path} is no whole file of DHAT: {why}") from None
    points, texts = document.get("pps"), document.get("ftbl")
    if not isinstance(points, list) or not isinstance(texts, list):
        raise RecordingError(f"{file.path} is no whole file of DHAT: it has no program points")
    if document["dhatFileVersion"] != 2:
        raise RecordingError(
            f"{file.path} is of DHAT's file version {str(document['dhatFileVersion'])[:20]}, and 2 is read"
        )
    mode = str(document.get("mode"))[:40]
    if document.get("bklt") is not True or mode in {"copy", "ad-hoc"}:
        raise RecordingError(
            f"{file.path} is of DHAT's mode {mode!r}, which does not tell what the heap holds",
            hint=_OTHERS,
        )
    return (_recording(document, points, texts, mode),)


def _recording(
    document: dict[str, Any], points: list[Any], texts: list[Any], mode: str
) -> Recording:
    command = document.get("cmd")
    ns = {"\u00b5s": 1_000, "us": 1_000}.get(str(document.get("tu")))
    end = _value(document, "te")
    build = RecordingBuilder(
        Process(
            pid=_value(document, "pid") or None,
            exe=command.split(" ")[0] or None if isinstance(command, str) else None,
        ),
        duration_ns=end * ns if ns and end is not None and end < 1 << 50 else None,
    )
    frames = [_frame(text) for text in texts]
    peak = bad = 0
    for point in points:
        told = _numbers(point)
        if told is None:
            bad += 1
            continue
        size, count, held, blocks, most = told
        peak += most
        node = build.stack(_stack(point.get("fs"), frames))
        build.site(
            node,
            allocs=count,
            alloc_bytes=size,
            frees=count - blocks,
            freed_bytes=size - held,
            live_count=blocks,
            live_bytes=held,
        )
    if not points:
        build.site(0, allocs=0, frees=0, live_count=0, live_bytes=0)
    notes = ["DHAT tells what was held at the end, not whether it was in use"]
    if peak:
        notes.append(f"at most {peak:,} bytes were held at once")
    if bad:
        notes.append(f"{bad:,} program points contradict themselves, and were not read")
    build.coverage = Coverage(
        mode=f"DHAT, mode {mode}", troubles=(NO_CHECK,) if bad else (), notes=tuple(notes)
    )
    return build.build()


def _value(table: dict[str, Any], name: str) -> int | None:
    value = table.get(name)
    return value if type(value) is int and 0 <= value < _MOST_VALUE else None


def _numbers(point: object) -> tuple[int, int, int, int, int] | None:
    """Return tb, tbk, eb, ebk, gb; None where the point cannot be so."""
    if not isinstance(point, dict):
        return None
    size, count, held, blocks = (_value(point, name) for name in ("tb", "tbk", "eb", "ebk"))
    if size is None or count is None or held is None or blocks is None:
        return None
    # A block that grew is counted once, with all its sizes: no more is held than was allocated.
    return (
        (size, count, held, blocks, _value(point, "gb") or 0)
        if blocks <= count and held <= size
        else None
    )


def _frame(text: object) -> BuiltFrame | None:
    if not isinstance(text, str) or text == "[root]":
        return None
    return frame_of(text) or BuiltFrame(name=FrameName(function=text[:4096] or "?"))


def _stack(numbers: object, frames: list[BuiltFrame | None]) -> list[BuiltFrame]:
    """Return the frames, without those of the tool itself at the inner end."""
    if not isinstance(numbers, list):
        return []
    found = [
        frame
        for number in numbers[:MOST_FRAMES]
        if type(number) is int
        and 0 <= number < len(frames)
        and (frame := frames[number]) is not None
    ]
    inner = 0
    while inner < len(found) and _is_tools(found[inner]):
        inner += 1
    return found[inner:] or found


def _is_tools(frame: BuiltFrame) -> bool:
    name = frame.name
    if name is None:
        return False
    module = (name.module_path or "").rsplit("/", 1)[-1]
    function = name.function or ""
    return module.startswith("vgpreload_") or function.startswith(("dhat::", "<dhat::"))
