# SPDX-License-Identifier: Apache-2.0
"""A report of kmemleak kept as it is, before it is cleared."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import TargetError

if TYPE_CHECKING:
    from leakscope.kernel.kmemleak import Kmemleak

__all__ = ["save_report"]


def save_report(kmemleak: Kmemleak, folder: Path) -> tuple[Path | None, int]:
    """Write the report to a new file, which `leakscope report` reads; return it and its objects.

    None, 0 for an empty report. Raises `TargetError` when it cannot be kept whole.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = None
    count = 0
    try:
        fd, name = tempfile.mkstemp(prefix=f"kmemleak-{stamp}-", suffix=".txt", dir=folder)
        path = Path(name)
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            for line in kmemleak.lines():
                count += line.startswith("unreferenced")
                file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        if not count:
            path.unlink()
    except OSError as error:
        if path is not None:
            path.unlink(missing_ok=True)
        raise TargetError(
            f"the report cannot be saved in {folder}, so it is not cleared: {error.strerror}",
            hint="Make room there.",
        ) from error
    return (path if count else None), count
