# SPDX-License-Identifier: Apache-2.0
"""ccmalloc, which is linked into a program, and told where to report by a file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from leakscope.errors import TargetError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]

PACKAGE: str | None = None


def set_up(target: Target) -> NoReturn:
    """Say how it is done."""
    raise TargetError(
        f"ccmalloc is linked into a program and cannot be put into {target.name}",
        hint="Link it with `ccmalloc gcc -g …`, name a log file in .ccmalloc (set logfile FILE), run"
        " it, then: leakscope report FILE. Without linking again: leakscope run -- PROGRAM",
    )
