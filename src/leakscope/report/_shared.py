# SPDX-License-Identifier: Apache-2.0
"""Places that leak in several processes of a run, each told once, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.report._places import place_lines
from leakscope.report.text import printable
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.judge.together import Part, SharedPlace
    from leakscope.report.ink import Ink

__all__ = ["shared_lines"]

_INDENT = "   "
_NAMED = 3  # processes of a place that are named


def shared_lines(places: Sequence[SharedPlace], ink: Ink, limit: int) -> list[str]:
    """Return the lines on the places that leak in more than one process, `limit` at most."""
    shared = [place for place in places if len(place.parts) > 1]
    if not shared:
        return []
    title = plural(len(shared), "place leaks", "places leak")
    lines = ["", ink.bold(f"{title} in several processes")]
    for place in shared[:limit]:
        worst, verdict = place.worst, place.worst.finding.verdict
        blocks = plural(place.count, "block")
        text = f"{verdict.upper()}: {bytes_text(place.bytes)} in {blocks} of {len(place.parts)} processes"
        lines += ["", *(ink.bold(line) for line in ink.wrap(text, " - ", _INDENT))]
        lines += place_lines(worst.finding, ink)
        lines += ink.wrap(f"most in {_part(worst)}{_others(place)}", _INDENT)
        lines.append(ink.dim(f"{_INDENT}id {printable(worst.finding.fingerprint)}"))
    if shared[limit:]:
        more = len(shared) - limit
        lines += ["", f"{more} more in several processes; --limit {len(shared)} shows them"]
    return lines


def _others(place: SharedPlace) -> str:
    named, rest = place.parts[1:_NAMED], place.parts[_NAMED:]
    text = "".join(f"; {_part(part)}" for part in named)
    if rest:
        most = max(part.bytes for part in rest)
        text += f"; {len(rest)} more with at most {bytes_text(most)} each"
    return text


def _part(part: Part) -> str:
    blocks = plural(part.count, "block")
    return f"{printable(part.recording)}: {bytes_text(part.bytes)} in {blocks}"
