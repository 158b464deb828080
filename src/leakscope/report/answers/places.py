# SPDX-License-Identifier: Apache-2.0
"""Frames as people read them, for answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.judge.places import is_runtime
from leakscope.model.answers import FrameText, Stack
from leakscope.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame

__all__ = ["place_of", "stack_of"]


def place_of(frame: Frame) -> FrameText:
    """Return a frame as people read it."""
    name = frame.function or frame.symbol
    if name and frame.class_name:
        name = f"{frame.class_name}.{name}"
    module = printable(frame.module_path) if frame.module_path else None
    if frame.artificial:
        name = "(stack ends here)"
    elif not name:
        base = module.rsplit("/", 1)[-1] if module else "?"
        at = frame.address.offset if frame.address is not None else 0
        name = f"{base}+0x{frame.entry if frame.entry is not None else at:x}"
    return FrameText(
        printable(name),
        printable(frame.file) if frame.file else None,
        frame.line,
        module,
        own=not is_runtime(frame),
        inlined=frame.inlined,
    )


def stack_of(title: str, frames: Sequence[Frame], source: Frame | None = None) -> Stack:
    """Return a call stack; `source` is the frame to look at."""
    at = next((n for n, frame in enumerate(frames) if frame == source), None)
    return Stack(title, tuple(place_of(frame) for frame in frames), at)
