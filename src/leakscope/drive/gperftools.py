# SPDX-License-Identifier: Apache-2.0
"""gperftools' heap profiler, without the checker that its newer releases have no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "libgoogle-perftools4 (since Debian 13 libgoogle-perftools4t64)"
_LIBRARY = ("libtcmalloc.so.4",)


def set_up(target: Target) -> Setup:
    """Have one profile, when the program ends, and nothing said on its standard error."""
    if target.sample is not None or target.depth is not None:
        raise UsageError(
            "gperftools' heap profiler records every allocation: no --sample, no --depth"
        )
    linked = any(name.startswith("libtcmalloc.so") for name in target.needed)
    library = "" if linked else find_library(_LIBRARY, PACKAGE, tool_path=target.tool_path)
    return Setup(
        r"gperftools(?:_(\d+))?\.\d+\.heap",
        preload=(library,) if library else (),
        environment={
            "HEAPPROFILE": str(target.folder / "gperftools"),
            "HEAP_PROFILE_ALLOCATION_INTERVAL": "0",
            "HEAP_PROFILE_INUSE_INTERVAL": "0",
            "PERFTOOLS_VERBOSE": "-4",
        },
        notes=("forked children of it write no profile of their own",),
    )
