# SPDX-License-Identifier: Apache-2.0
"""What of the heap before an attach, as a file tells it, can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakscope.model.earlier import MOST_CONTENTS, Earlier
from leakscope.recording._facts import FactError, from_json

if TYPE_CHECKING:
    from leakscope.model.census import Tally

__all__ = ["read_earlier"]


def read_earlier(value: Any) -> Earlier | None:
    """Return it from what `json.loads` found, None where it has none. Raises `FactError`."""
    if value is None:
        return None
    found = from_json(Earlier, value)
    tallies = [found.then, found.there, found.freed, found.newly_lost]
    tallies += [each.tally for each in found.contents]
    sizes = [each.size for each in found.contents]
    if len(sizes) > MOST_CONTENTS or not all(0 <= size < 1 << 63 for size in sizes):
        raise FactError("its earlier heap is not what it should be")
    if not all(_is_sound(tally) for tally in tallies if tally is not None):
        raise FactError("its earlier heap has counts that cannot be")
    return found


def _is_sound(tally: Tally) -> bool:
    blocks, lost = (tally.blocks, tally.bytes), (tally.lost_blocks, tally.lost_bytes)
    return all(0 <= part <= whole < 1 << 63 for part, whole in zip(lost, blocks, strict=True))
