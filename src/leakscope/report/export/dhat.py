# SPDX-License-Identifier: Apache-2.0
"""A file of DHAT, version 2, which valgrind's dh_view.html shows: what is held at the end.

Only blocks that are held are told of, so totals are those of the end; lifetimes are not known.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from leakscope.report.export._samples import command_of, encoded, frame_name, one_line, samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame
    from leakscope.report.export import Exported

__all__ = ["write"]


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the document; `root` says nothing here."""
    del root
    frames: dict[str, int] = {"[root]": 0}
    held: dict[tuple[int, ...], tuple[int, int]] = {}
    for _, sample in samples(every):
        stack = tuple(frames.setdefault(_text(frame), len(frames)) for frame in sample.stack)
        # The viewer divides by the number of blocks, and takes each stack once.
        count = max(sample.held_count, 1)
        before = held.get(stack, (0, 0))
        held[stack] = (before[0] + sample.held_bytes, before[1] + count)
    points = [
        dict.fromkeys(("tb", "mb", "gb", "eb"), size)
        | dict.fromkeys(("tbk", "mbk", "gbk", "ebk"), count)
        | {"tl": 0, "fs": list(stack)}
        for stack, (size, count) in held.items()
    ]
    duration = max((one.findings.duration_ns or 0 for one in every), default=0)
    document = {
        "dhatFileVersion": 2,
        "mode": "heap",
        "verb": "Held",
        "bklt": True,
        "bkacc": False,
        "tu": "µs",
        "Mtu": "s",
        "tuth": 10,
        "cmd": command_of(every),
        "pid": (every[0].findings.process.pid if every else None) or 0,
        "te": duration // 1000,
        "tg": duration // 1000,
        "pps": points,
        "ftbl": list(frames),
    }
    return encoded(json.dumps(document)) + b"\n"


def _text(frame: Frame) -> str:
    address = frame.address.offset if frame.address is not None else 0
    if frame.file is not None:
        where = frame.file + (f":{frame.line}" if frame.line is not None else "")
    else:
        where = f"in {frame.module_path or '?'}"
    return f"0x{address:X}: {frame_name(frame)} ({one_line(where)})"
