# SPDX-License-Identifier: Apache-2.0
"""What was on the heap before an attach, in words, in JSON and as tables: never among findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakscope.model.answers import AccountRow, AccountTable, Tone
from leakscope.report.text import printable
from leakscope.words import bytes_text, count_text, plural

if TYPE_CHECKING:
    from leakscope.model.census import Tally
    from leakscope.model.earlier import Earlier

__all__ = ["TITLE", "earlier_fields", "earlier_tables", "earlier_texts", "fate_text", "heap_text"]

TITLE = "Before attach"
_SAID = 3  # of what it looks like


def earlier_texts(earlier: Earlier) -> tuple[str, str]:
    """Return what was there, and what became of it."""
    return heap_text(earlier), fate_text(earlier)


def heap_text(earlier: Earlier) -> str:
    """Say how much there was, how much of it was lost, and what most of it looks like."""
    then = earlier.then
    looks = [
        f"{count_text(each.tally.blocks)} of {bytes_text(each.size)} ({printable(each.what)})"
        for each in earlier.contents[:_SAID]
    ]
    lost = f"nothing points to {_amount(then.lost_bytes, then.lost_blocks)} of it"
    most = f"; most are {', '.join(looks)}" if looks else ""
    return f"{_amount(then.bytes, then.blocks)}; {lost}{most}; no stacks are known"


def fate_text(earlier: Earlier) -> str:
    """Say what became of it."""
    there, freed, newly = earlier.there, earlier.freed, earlier.newly_lost
    if there is None or freed is None or newly is None:
        return f"what became of it is not known: {printable(earlier.unknown)}"
    return (
        f"of that, {_amount(there.bytes, there.blocks)} are still there,"
        f" {_amount(freed.bytes, freed.blocks)} were freed, and nothing points any more to"
        f" {_amount(newly.bytes, newly.blocks)}"
    )


def _amount(size: int, blocks: int) -> str:
    return f"{bytes_text(size)} in {plural(blocks, 'block')}"


def earlier_fields(earlier: Earlier | None) -> dict[str, Any] | None:
    """Return it for JSON; None where nobody looked."""
    if earlier is None:
        return None
    fate = None
    if earlier.there is not None and earlier.freed is not None and earlier.newly_lost is not None:
        fate = {
            "still_there": _fields(earlier.there),
            "freed": _fields(earlier.freed),
            "newly_lost": _fields(earlier.newly_lost),
            "stopped_ms": earlier.stopped_after_ms,
        }
    return {
        "allocator": earlier.allocator,
        **_fields(earlier.then),
        "contents": [
            {"what": each.what, "usable_bytes": each.size, **_fields(each.tally)}
            for each in earlier.contents
        ],
        "stopped_ms": earlier.stopped_ms,
        "fate": fate,
        "fate_unknown": earlier.unknown or None if fate is None else None,
    }


def _fields(tally: Tally) -> dict[str, int]:
    return {
        "block_count": tally.blocks,
        "bytes": tally.bytes,
        "lost_block_count": tally.lost_blocks,
        "lost_bytes": tally.lost_bytes,
    }


def earlier_tables(earlier: Earlier | None) -> tuple[AccountTable, ...]:
    """Return tables of it that add up: by what became of it, and by what it looks like."""
    if earlier is None or not earlier.then.bytes:
        return ()
    then, there, freed = earlier.then, earlier.there, earlier.freed
    if there is not None and freed is not None:
        rows = [
            _row("still pointed to", there.bytes - there.lost_bytes,
                 there.blocks - there.lost_blocks),
            _row("lost by now", there.lost_bytes, there.lost_blocks, Tone.WARNING),
            _row("freed", freed.bytes, freed.blocks),
        ]  # fmt: skip
    else:
        rows = [
            _row("pointed to", then.bytes - then.lost_bytes, then.blocks - then.lost_blocks),
            _row("lost already", then.lost_bytes, then.lost_blocks, Tone.WARNING),
        ]
    looks = [
        _row(
            f"{bytes_text(each.size)}, {printable(each.what)}", each.tally.bytes, each.tally.blocks
        )
        for each in earlier.contents
    ]
    rest = then.bytes - sum(row.amount for row in looks)
    if rest > 0:
        looks.append(AccountRow("all others", rest))
    title = "The heap from before the attach, of which no stack is known"
    by_look = AccountTable(
        "The same, by size and content", "bytes", tuple(looks), then.bytes, "before the attach"
    )
    fate = AccountTable(title, "bytes", tuple(rows), then.bytes, "before the attach")
    return (fate, by_look) if by_look.adds_up else (fate,)


def _row(name: str, size: int, blocks: int, tone: Tone = Tone.CALM) -> AccountRow:
    return AccountRow(name, size, plural(blocks, "block"), tone if size else Tone.CALM)
