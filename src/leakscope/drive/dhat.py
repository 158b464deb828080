# SPDX-License-Identifier: Apache-2.0
"""valgrind's DHAT: what each place allocated, freed, and held at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.setup import Setup
from leakscope.drive.valgrind import PACKAGE, command

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]


def set_up(target: Target) -> Setup:
    """Have a file for each process."""
    options = [
        "--tool=dhat",
        f"--dhat-out-file={target.folder}/dhat.%p",
        f"--log-file={target.folder}/log.%p",
    ]
    return Setup(r"dhat\.(\d+)", (*command(target), *options))
