# SPDX-License-Identifier: Apache-2.0
"""valgrind's massif: how much was held when, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.setup import Setup
from leakscope.drive.valgrind import PACKAGE, command

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]


def set_up(target: Target) -> Setup:
    """Have every snapshot detailed, so that the last one is."""
    options = [
        "--tool=massif",
        "--detailed-freq=1",
        "--threshold=0.1",
        f"--massif-out-file={target.folder}/massif.%p",
        f"--log-file={target.folder}/log.%p",
    ]
    return Setup(r"massif\.(\d+)", (*command(target), *options))
