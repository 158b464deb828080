# SPDX-License-Identifier: Apache-2.0
"""LeakTracer: blocks of C++ that were not deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.naming import beside, by_maps
from leakscope.drive.setup import Setup, read_file
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from leakscope.drive.setup import Exit, Target
    from leakscope.model.recordings import Recording

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "leaktracer"
_LIBRARY = ("LeakTracer.so", "libleaktracer.so")


def set_up(target: Target) -> Setup:
    """Have the report in a file, as its LeakCheck does."""
    if target.sample is not None or target.depth is not None:
        raise UsageError("LeakTracer has one caller of each block: no --sample, no --depth")
    library = find_library(
        _LIBRARY, PACKAGE, folders=("/usr/lib/leaktracer",), tool_path=target.tool_path
    )
    return Setup(
        r"leaktracer(?:\.(\d+))?",
        # Its report has bare addresses: what was mapped where is written beside it.
        preload=(library, beside()),
        environment={
            "LEAKTRACE_FILE": str(target.folder / "leaktracer"),
            "LEAKSCOPE_MAPS": str(target.folder),
        },
        read=_read,
        notes=("LeakTracer 2 names the caller of the function that used new",),
    )


def _read(path: Path, ending: Exit) -> tuple[Recording, ...] | None:
    found = read_file(path, ending)
    if found is None:
        return None
    pid = path.suffix.removeprefix(".") or str(ending.pid)
    return tuple(by_maps(each, path.with_name(f"{pid}.maps")) for each in found)
