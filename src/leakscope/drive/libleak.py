# SPDX-License-Identifier: Apache-2.0
"""libleak: stacks with memory that is older than its limit. Its log is /tmp/libleak.PID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup
from leakscope.errors import TargetError, UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]

PACKAGE: str | None = None


def set_up(target: Target) -> Setup:
    """Preload it; LEAK_EXPIRE and its like stay the user's."""
    if target.sample is not None or target.depth is not None:
        raise UsageError("libleak takes every allocation: no --sample, no --depth")
    try:
        library = find_library(("libleak.so",), PACKAGE, tool_path=target.tool_path)
    except TargetError as error:
        raise TargetError(
            f"{error}",
            hint="Build it (github.com/WuBingzheng/libleak) and name it: --tool-path libleak.so; by"
            " hand: LD_PRELOAD=libleak.so PROGRAM, then leakscope report /tmp/libleak.PID",
        ) from error
    return Setup(
        r"(?!)",
        preload=(library,),
        elsewhere="/tmp/libleak.{pid}",  # noqa: S108 - libleak's own choice
        follows_children=False,
    )
