# SPDX-License-Identifier: Apache-2.0
"""What heaptrack_print and heaptrack_gui read: interpreted data, file version 3.

    v 10400 3    X COMMAND    s LENGTH TEXT    i IP MODULE [FUNCTION FILE LINE]    t IP PARENT
    a BYTES TRACE    + INFO    c MILLISECONDS

All numbers are hexadecimal, indices count from 1. Each block that is held is an allocation; of
more than `_MOST_BLOCKS` several are written as one, whose bytes are theirs together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.report.export._samples import command_of, encoded, frame_name, samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame
    from leakscope.report.export import Exported

__all__ = ["write"]

_MOST_BLOCKS = 1 << 20


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the file; `root` says nothing here."""
    del root
    held = [sample for _, sample in samples(every) if sample.held_bytes]
    blocks = sum(sample.held_count for sample in held)
    scale = -(-blocks // _MOST_BLOCKS) if blocks else 1
    data = _Data(command_of(every))
    infos: dict[tuple[int, int], int] = {}
    events: list[tuple[int, int]] = []
    for sample in held:
        trace = 0
        for frame in reversed(sample.stack):
            trace = data.trace(frame, trace)
        count = max(sample.held_count // scale, 1)
        size, rest = divmod(sample.held_bytes, count)
        # So many of one size and so many of one byte more: the sum is right.
        for each, number in ((size, count - rest), (size + 1, rest)):
            if number and each:
                events.append((infos.setdefault((each, trace), len(infos)), number))
    data.lines += [f"a {size:x} {trace:x}" for size, trace in infos]
    data.lines.append("c 0")
    for info, number in events:
        data.lines += [f"+ {info:x}"] * number
    end = max((one.findings.duration_ns or 0 for one in every), default=0) // 1_000_000
    data.lines.append(f"c {max(end, 1):x}")
    data.lines += [f"# strings: {len(data.texts)}", f"# ips: {len(data.ips)}"]
    return encoded("\n".join(data.lines) + "\n")


class _Data:
    """The tables of the file, written as they grow."""

    def __init__(self, command: str) -> None:
        self.lines = ["v 10400 3", f"X {command}", "I 1000 1"]
        self.texts: dict[str, int] = {}
        self.ips: dict[Frame, int] = {}
        self._traces: dict[tuple[int, int], int] = {}

    def _text(self, text: str) -> int:
        number = self.texts.get(text)
        if number is None:
            number = self.texts[text] = len(self.texts) + 1
            self.lines.append(f"s {len(encoded(text)):x} {text}")
        return number

    def _ip(self, frame: Frame) -> int:
        number = self.ips.get(frame)
        if number is None:
            module = self._text(_line(frame.module_path or "?"))
            name = self._text(frame_name(frame))
            file = f" {self._text(_line(frame.file)):x} {frame.line or 0:x}" if frame.file else ""
            number = self.ips[frame] = len(self.ips) + 1
            address = frame.address.offset if frame.address is not None else number
            self.lines.append(f"i {address or number:x} {module:x} {name:x}{file}")
        return number

    def trace(self, frame: Frame, parent: int) -> int:
        """Return the number of a frame in the context of its caller."""
        ip = self._ip(frame)
        number = self._traces.get((ip, parent))
        if number is None:
            number = self._traces[ip, parent] = len(self._traces) + 1
            self.lines.append(f"t {ip:x} {parent:x}")
        return number


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
