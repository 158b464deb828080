# SPDX-License-Identifier: Apache-2.0
"""memwatch, which is compiled into a program: there is nothing to run it by but the program."""

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
        f"memwatch is compiled into a program and cannot be put into {target.name}",
        hint="Compile memwatch.c with your sources and -DMEMWATCH -DMEMWATCH_STDIO, with"
        ' #include "memwatch.h" in each; run it, then: leakscope report memwatch.log. Without'
        " its sources: leakscope.h does the same (`leakscope header`).",
    )
