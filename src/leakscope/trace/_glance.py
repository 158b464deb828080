# SPDX-License-Identifier: Apache-2.0
"""What the header of a live recording tells of an ended process, without reading its tables.

A build or a prefork server leaves hundreds of recordings of which most say that every block was
freed. To see that takes one read of the header and one of the counters of losses.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.recordings import MOMENT_NS
from leakscope.recording import layout

if TYPE_CHECKING:
    from leakscope.trace.live_files import LiveFile

__all__ = ["Glance"]

# Larger tables than a brief process has are not looked through: they may hold something.
_MOST_SLOTS = 1 << 14

_LOSSES = ("EARLY", "REENTRANT", "TABLE_FULL", "SITES_FULL", "NO_SPACE", "PAUSED", "RANGES_FULL")
_LOSS_NUMBERS = [getattr(layout, f"DROP_{name}") for name in _LOSSES]
_HEAD = layout.STRIPE_HEAD_BYTES
_RANGE = layout.RANGE_DTYPE


class Glance:
    """One look at the header. Raises `RecordingError` when the file cannot be opened."""

    def __init__(self, file: LiveFile) -> None:
        fd = file.open_for_reading()
        try:
            data = os.pread(fd, layout.HEADER_DTYPE.itemsize, 0)
            whole = len(data) == layout.HEADER_DTYPE.itemsize
            self._header = np.frombuffer(data, layout.HEADER_DTYPE)[0] if whole else None
            self.known = (
                self._header is not None
                and int(self._header["magic"]) == layout.MAGIC
                and int(self._header["version"]) == layout.VERSION
            )
            self._empty = self.known and self._no_block(fd)
            self._whole = self.known and self._lost_nothing(fd)
            self._mapped = self.known and self._has_mapping(fd)
        finally:
            os.close(fd)

    def __getitem__(self, name: str) -> int:
        return int(self._header[name]) if self._header is not None else 0

    @property
    def lived_ns(self) -> int:
        """How long the process lived, up to its last word."""
        return self["mono_last_ns"] - self["mono_start_ns"]

    @property
    def is_stub(self) -> bool:
        """Whether it is a fork that became another program."""
        return self.known and self["state"] == layout.STATE_EXECED and bool(self["forked_from"])

    @property
    def was_brief(self) -> bool:
        """Whether it ended at once by its own will, and all that it did was seen."""
        return self._whole and self["state"] == layout.STATE_EXITED and self._is_short

    @property
    def says_nothing(self) -> bool:
        """Whether it was brief and gave back all that it had, or soon became another program."""
        if self.known and self["state"] == layout.STATE_EXECED:
            return self._is_short
        return self.was_brief and self._empty and not self._mapped

    @property
    def _is_short(self) -> bool:
        odd = self["trouble"] or self["free_error_count"] or self["free_errors_lost"]
        exact = self["mode"] == layout.MODE_EXACT and not odd
        return exact and 0 <= self.lived_ns < MOMENT_NS

    @property
    def has_blocks(self) -> bool:
        """Whether it held memory that was recorded, as far as one look can tell."""
        return not self._empty

    def _no_block(self, fd: int) -> bool:
        assert self._header is not None
        shards = self._header["shards"]
        used = shards[shards["capacity"] > 0]
        if int(used["capacity"].sum(dtype=np.int64)) > _MOST_SLOTS:
            return False
        size = layout.BLOCK_DTYPE.itemsize
        for shard in used:
            data = os.pread(fd, int(shard["capacity"]) * size, int(shard["offset"]))
            if len(data) % size or np.frombuffer(data, layout.BLOCK_DTYPE)["where"].any():
                return False
        return True

    def _lost_nothing(self, fd: int) -> bool:
        assert self._header is not None
        heads = os.pread(fd, layout.STRIPES * _HEAD, int(self._header["stripes"]["offset"]))
        if len(heads) != layout.STRIPES * _HEAD:
            return False
        words = np.frombuffer(heads, np.uint64).reshape(layout.STRIPES, -1)
        return not words[:, _LOSS_NUMBERS].any()

    def _has_mapping(self, fd: int) -> bool:
        assert self._header is not None
        slots = min(self["range_slots"], layout.MAX_RANGES)
        if not slots:
            return False
        data = os.pread(fd, slots * _RANGE.itemsize, int(self._header["ranges"]["offset"]))
        whole = len(data) // _RANGE.itemsize * _RANGE.itemsize
        return whole != len(data) or bool(np.frombuffer(data, _RANGE)["length"].any())
