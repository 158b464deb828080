# SPDX-License-Identifier: Apache-2.0
"""valgrind's memcheck: which blocks nothing points to at the end.

Its text is read and not its XML: a process that forks writes both into one file of XML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_command
from leakscope.drive.setup import Setup
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "command", "set_up"]

PACKAGE = "valgrind"
_DEPTH, _MOST_DEPTH = 64, 500


def set_up(target: Target) -> Setup:
    """Have every kind listed, a log for each process."""
    options = [
        "--leak-check=full",
        "--show-leak-kinds=all",
        "--fullpath-after=",
        f"--log-file={target.folder}/memcheck.%p",
    ]
    return Setup(r"memcheck\.(\d+)", (*command(target), *options), log=r"memcheck\.(\d+)")


def command(target: Target) -> tuple[str, ...]:
    """Return how each of valgrind's tools is started."""
    if target.sample is not None:
        raise UsageError("valgrind sees every allocation: --sample is not for it")
    depth = _DEPTH if target.depth is None else min(target.depth, _MOST_DEPTH)
    found = [
        find_command("valgrind", PACKAGE, tool_path=target.tool_path),
        "--vgdb=no",  # its pipes would stay behind when the program is killed
        f"--num-callers={depth}",
        f"--trace-children={'yes' if target.children else 'no'}",
    ]
    return tuple(found)
