# SPDX-License-Identifier: Apache-2.0
"""A baseline as JSON: what is held now, by stacks that a rebuild leaves as they are.

One stack on each line, in an order that does not change with the amounts, without process numbers
and addresses: a file that is kept under version control, whose differences can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakscope.report.json_ import as_json

if TYPE_CHECKING:
    from leakscope.judge.diff import Looked
    from leakscope.judge.stands import Stand

__all__ = ["SCHEMA", "to_json"]

SCHEMA = "leakscope-baseline/1"


def to_json(looked: Looked) -> str:
    """Return the document. What is known or suppressed is no part of it."""
    knows = looked.knows
    head = {
        "schema": SCHEMA,
        "knows_held": knows.held,
        "knows_lost": knows.lost,
        "sample_period_bytes": knows.sample_bytes,
        "process_count": len(looked.side.labels),
        "cannot_tell": list(looked.side.limits),
    }
    stands = [stand for stand in looked.stands.values() if not stand.quiet]
    stands.sort(key=lambda stand: (stand.names, stand.kind, stand.stable))
    rows = ",".join(f"\n{as_json(_fields(stand))}" for stand in stands)
    return f'{as_json(head)[:-1]},\n"stacks": [{rows}\n]}}\n'


def _fields(stand: Stand) -> dict[str, Any]:
    return {
        "stable_fingerprint": stand.stable,
        "kind": stand.kind,
        "verdict": stand.verdict,
        "held_bytes": stand.held_bytes,
        "held_count": stand.held_count,
        "lost_bytes": stand.lost_bytes,
        "lost_count": stand.lost_count,
        "held_bytes_variance": stand.variance,
        "cut": stand.cut,
        "functions": [list(name) for name in stand.names],
    }
