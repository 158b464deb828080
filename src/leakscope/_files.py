# SPDX-License-Identifier: Apache-2.0
"""Files that get their name when they are whole, and never that of another file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["publish"]


def publish(part: Path, target: Path) -> None:
    """Give `part` the name `target`, unless something came there meanwhile.

    Raises `RecordingError` when something has the name, `OSError` when it cannot be named so.
    """
    try:
        os.link(part, target)
    except FileExistsError as error:
        raise RecordingError(f"{target} is there already, and is not written over") from error
    except OSError:  # a file system without links
        part.rename(target)
