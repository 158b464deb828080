# SPDX-License-Identifier: Apache-2.0
"""memleax, which attaches to a running process by its number and writes to its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_command
from leakscope.drive.setup import COMPANION, Setup
from leakscope.errors import TargetError, UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]

PACKAGE: str | None = None


def set_up(target: Target) -> Setup:
    """Attach it right after the start."""
    if target.sample is not None or target.depth is not None:
        raise UsageError("memleax takes every allocation: no --sample, no --depth")
    try:
        command = find_command("memleax", PACKAGE, tool_path=target.tool_path)
    except TargetError as error:
        raise TargetError(
            f"{error}",
            hint="Build it (github.com/WuBingzheng/memleax) and name it: --tool-path memleax; by"
            " hand: memleax PID > FILE, then leakscope report FILE",
        ) from error
    return Setup(
        COMPANION,
        companion=(command, "{pid}"),
        log=COMPANION,
        notes=("memleax came after the start: what the program did until then was not seen",),
        follows_children=False,
    )
