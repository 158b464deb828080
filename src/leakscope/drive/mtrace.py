# SPDX-License-Identifier: Apache-2.0
"""glibc's mtrace. Since glibc 2.34 its half in libc_malloc_debug.so.0 has to be preloaded.

A program that calls mtrace() itself is traced from there on, another one from its start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.naming import beside, by_file
from leakscope.drive.setup import Setup, read_file
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from leakscope.drive.setup import Exit, Target
    from leakscope.model.recordings import Recording

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "libc6"
_LIBRARY = ("libc_malloc_debug.so.0",)
_MOST_PROGRAM = 256 << 20
_PIECE = 1 << 20


def set_up(target: Target) -> Setup:
    """Preload what mtrace needs, and what calls it in programs that do not."""
    if target.sample is not None or target.depth is not None:
        raise UsageError("mtrace logs every allocation with one caller: no --sample, no --depth")
    library = find_library(_LIBRARY, PACKAGE, tool_path=target.tool_path)
    itself = _calls_mtrace(target.image)
    notes = ["what forked children of it do is not logged"]
    if itself:
        notes = ["it calls mtrace() itself: the log begins there"]
    return Setup(
        r"(\d+)\.mtrace",
        preload=(library, beside()),
        environment={
            "LEAKSCOPE_MTRACE": str(target.folder),
            "LEAKSCOPE_MTRACE_START": "0" if itself else "1",
            # Without leakscope's part, as in a process that could not load it, it leads nowhere.
            "MALLOC_TRACE": "/dev/null",
        },
        read=_read,
        notes=tuple(notes),
        silent="the program has mtrace() in it, and did not call it in this run"
        if itself
        else None,
    )


def _read(path: Path, ending: Exit) -> tuple[Recording, ...] | None:
    found = read_file(path, ending)
    return None if found is None else tuple(by_file(each) for each in found)


def _calls_mtrace(path: str) -> bool:
    """Whether the program has the name among its dynamic symbols."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path of another's, as text
            kept = b""
            for _ in range(_MOST_PROGRAM // _PIECE):
                piece = file.read(_PIECE)
                if not piece:
                    return False
                if b"\0mtrace\0" in kept + piece:
                    return True
                kept = piece[-16:]
    except OSError:
        return False
    return False
