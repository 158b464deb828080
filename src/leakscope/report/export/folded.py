# SPDX-License-Identifier: Apache-2.0
"""Folded stacks: `main;handle;make 4096` on a line, outermost frame first, with bytes held."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from leakscope.report.export._samples import encoded, frame_name, samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported

__all__ = ["write"]


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the lines, sorted; `root` says nothing here."""
    del root
    held: Counter[str] = Counter()
    for _, sample in samples(every):
        names = (frame_name(frame).replace(";", ":") for frame in reversed(sample.stack))
        held[";".join(names)] += sample.held_bytes
    return encoded("".join(f"{stack} {size}\n" for stack, size in sorted(held.items()) if size))
