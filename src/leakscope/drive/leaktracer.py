# SPDX-License-Identifier: Apache-2.0
"""LeakTracer: blocks of C++ that were not deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

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
        preload=(library,),
        environment={"LEAKTRACE_FILE": str(target.folder / "leaktracer")},
    )
