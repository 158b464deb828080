# SPDX-License-Identifier: Apache-2.0
"""heaptrack's preloaded half alone: its script would write into the program's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "heaptrack"
_LIBRARY = ("libheaptrack_preload.so",)
_FOLDERS = ("/usr/lib/heaptrack", "/usr/lib64/heaptrack", "/usr/local/lib/heaptrack")


def set_up(target: Target) -> Setup:
    """Have the raw data in a file."""
    if target.sample is not None or target.depth is not None:
        raise UsageError("heaptrack records every allocation whole: no --sample, no --depth")
    library = find_library(_LIBRARY, PACKAGE, folders=_FOLDERS, tool_path=target.tool_path)
    return Setup(
        r"heaptrack",
        preload=(library,),
        environment={"DUMP_HEAPTRACK_OUTPUT": str(target.folder / "heaptrack")},
        follows_children=False,
    )
