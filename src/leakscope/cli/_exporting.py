# SPDX-License-Identifier: Apache-2.0
"""Files for other programs, written whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._paths import current
from leakscope.cli._streams import silence
from leakscope.cli._writing import open_private_bytes
from leakscope.errors import RecordingError, UsageError
from leakscope.report.export import exported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported

__all__ = ["write_export"]


def write_export(
    name: str, every: Sequence[Exported], path: str | None, root: str | None = None
) -> None:
    """Write a format to a file, or to the standard output where `path` is None or "-".

    `root` is where the sources lie, the current directory when it is None. Raises
    `LeakscopeError`.
    """
    data = exported(name, every, root or current() or "/")
    if path not in {None, "-"}:
        with open_private_bytes(Path(path or "")) as file:
            file.write(data)
        return
    stream = sys.stdout
    if stream.isatty() and not _is_text(data):
        raise UsageError(f"{name} is no text for a terminal", hint="Name a file with -o FILE.")
    try:
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
    except BrokenPipeError:
        silence(stream)
    except OSError as error:
        raise RecordingError(f"the export cannot be written: {error.strerror}") from error


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:4096] and not data.startswith(b"\x1f\x8b")
