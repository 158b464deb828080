# SPDX-License-Identifier: Apache-2.0
"""Baselines: what stood somewhere before, read from a file that is untrusted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from leakscope.errors import LeakscopeError, RecordingError
from leakscope.judge.diff import Looked, highest
from leakscope.judge.stands import Knows, Stand
from leakscope.model.changes import Side
from leakscope.model.frames import Frame
from leakscope.workflow.told import FINDINGS_SCHEMA, is_document, read_document, told_findings

if TYPE_CHECKING:
    import os

__all__ = ["is_baseline", "read_baseline"]

_SCHEMA = "leakscope-baseline/1"
_MOST_NUMBER = 1 << 63
_MOST_FRAMES = 4096


def is_baseline(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a baseline, rather than a report or a recording."""
    if not is_document(path):
        return False
    try:
        return bool(read_document(path)["schema"] == _SCHEMA)
    except LeakscopeError:
        return False


def read_baseline(path: str | os.PathLike[str]) -> Looked:
    """Return what a baseline, or a report as JSON, holds. Raises `RecordingError`.

    Of several processes in a report it is the most that one of them holds at each stack.
    """
    document = read_document(path)
    if document["schema"] == FINDINGS_SCHEMA:
        return highest(told_findings(path))
    if document["schema"] != _SCHEMA:
        raise RecordingError(
            f"{path} is {str(document['schema'])[:40]!r}, and no baseline",
            hint="Make one with: leakscope baseline RECORDING -o leaks.json",
        )
    try:
        return _looked(str(path), document)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise RecordingError(
            f"{path} is a damaged baseline: {str(error)[:80]}",
            hint="Make it anew with: leakscope baseline RECORDING -o FILE",
        ) from error


def _looked(path: str, document: dict[str, Any]) -> Looked:
    stands: dict[str, Stand] = {}
    for told in document["stacks"]:
        stand = _stand(told)
        if stand.stable in stands:  # merged by hand: the higher of both
            other = stands[stand.stable]
            stand = max(stand, other, key=lambda each: each.held_bytes)
        stands[stand.stable] = stand
    period = document.get("sample_period_bytes")
    if period is not None and not 0 < _number(period) < _MOST_NUMBER:
        raise ValueError("the period of samples is no number that can be")
    knows = Knows(document["knows_held"] is True, document["knows_lost"] is True, period)
    counts = [stand.held_count for stand in stands.values()]
    limits = document.get("cannot_tell")
    side = Side(
        labels=(path,),
        live_bytes=sum(stand.held_bytes for stand in stands.values()),
        live_count=None if None in counts else sum(count or 0 for count in counts),
        duration_ns=None,
        sampled=period is not None,
        limits=tuple(str(each) for each in limits) if isinstance(limits, list) else (),
    )
    return Looked(stands, knows, side)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST_NUMBER:
        raise ValueError(f"{str(value)[:20]!r} is no number that can be")
    return value


def _optional(told: dict[str, Any], name: str) -> int | None:
    return None if told.get(name) is None else _number(told[name])


def _stand(told: dict[str, Any]) -> Stand:
    functions = told["functions"]
    if not isinstance(functions, list) or len(functions) > _MOST_FRAMES:
        raise TypeError("functions is no list of frames")
    names = tuple((str(name), str(file)) for name, file in functions)
    stack = tuple(Frame(None, function=name, file=file or None) for name, file in names)
    variance = float(told.get("held_bytes_variance") or 0)
    if not math.isfinite(variance) or variance < 0:
        raise ValueError("a variance is no number that can be")
    return Stand(
        stable=str(told["stable_fingerprint"]),
        kind=str(told["kind"]),
        names=names,
        cut=told.get("cut") is True,
        held_bytes=_number(told["held_bytes"]),
        held_count=_optional(told, "held_count"),
        lost_bytes=_optional(told, "lost_bytes"),
        lost_count=_optional(told, "lost_count"),
        variance=variance,
        quiet=False,
        verdict=str(told.get("verdict")),
        stack=stack,
        source=stack[0] if stack else None,
    )
