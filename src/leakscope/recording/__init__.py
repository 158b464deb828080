# SPDX-License-Identifier: Apache-2.0
"""Recordings in files: the live one that the agent writes, and the packed one that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.recording import live, packed
from leakscope.recording._source import Source

if TYPE_CHECKING:
    import os

    from leakscope.model.recordings import Recording

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> Recording:
    """Return the recording in a file, packed or live; what it is, its first bytes tell.

    Raises `RecordingError` when it cannot be read, is no recording, is damaged, or was made by
    a newer leakscope.
    """
    with Source(path) as source:
        if source.read(0, len(packed.MAGIC)) == packed.MAGIC:
            return packed.read_source(source)
        return live.read_source(source)
