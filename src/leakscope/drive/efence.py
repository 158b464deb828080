# SPDX-License-Identifier: Apache-2.0
"""Electric Fence: ends a program at its first access outside a block. It looks for no leaks."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup
from leakscope.errors import UsageError
from leakscope.formats import NO_CHECK
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Process

if TYPE_CHECKING:
    from leakscope.drive.setup import Exit, Target
    from leakscope.model.recordings import Recording

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "electric-fence"
_LIBRARY = ("libefence.so.0", "libefence.so")


def set_up(target: Target) -> Setup:
    """Have its guards, and no banner."""
    if target.sample is not None or target.depth is not None:
        raise UsageError("Electric Fence guards every block, and keeps no stacks")
    return Setup(
        r"(?!)",
        preload=(find_library(_LIBRARY, PACKAGE, tool_path=target.tool_path),),
        environment={"EF_DISABLE_BANNER": "1"},
        follows_children=False,
        without_file=_recording,
    )


def _recording(ending: Exit) -> tuple[Recording, ...]:
    notes = ["Electric Fence does not look for leaks"]
    if ending.killed_by in (signal.SIGSEGV, signal.SIGBUS):
        notes.append(
            "it ended the program at an access outside a block, or to one that was freed:"
            " a debugger shows where"
        )
    elif ending.killed_by == signal.SIGILL:
        notes.append("it ended the program for a wrong free or a failed allocation, which it named")
    elif ending.killed_by is None:
        notes.append("no access outside a block, and no wrong free, was met")
    build = RecordingBuilder(
        Process(), Coverage(mode="Electric Fence", troubles=(NO_CHECK,), notes=tuple(notes))
    )
    return (build.build(),)
