# SPDX-License-Identifier: Apache-2.0
"""Two sides compared: what changed first, then what neither could tell; as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakscope.judge.places import is_runtime
from leakscope.model.changes import Change
from leakscope.report._places import function_text, location_text, stack_lines
from leakscope.report.ink import ALARM, CALM, WARNING
from leakscope.report.json_ import as_json, frame_fields
from leakscope.report.text import name_within, printable
from leakscope.words import bytes_text, interval_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.changes import Amount, Comparison, Side, StackChange
    from leakscope.report.ink import Ink

__all__ = ["SCHEMA", "change_text", "headline_text", "kept_texts", "render_diff", "side_text"]
__all__ += ["to_json"]

SCHEMA = "leakscope-diff/1"

_INDENT = "   "
_NAMED = 4  # functions of a stack in one line
_LIMITS = 6  # sentences on what a side cannot tell
_WORSE = (Change.NEW, Change.GROWN)
_ORDER = (Change.NEW, Change.GROWN, Change.SHRUNK, Change.GONE)


def render_diff(comparison: Comparison, ink: Ink, *, limit: int = 10, verbose: bool = False) -> str:
    """Return the text on a comparison, ending in a newline; `limit` changes of each kind."""
    lines = ink.wrap(headline_text(comparison), "leakscope: ", "  ")
    colour = ALARM if any(comparison.of(change) for change in _WORSE) else CALM
    lines = ink.paint_all(WARNING if comparison.undecided else colour, lines)
    for name, side in (("before", comparison.before), ("after", comparison.after)):
        lines += ink.wrap(side_text(side), f"  {name:6}  ", " " * 10)
    for name, side in (("before", comparison.before), ("after", comparison.after)):
        if side.blind is not None:
            text = f"{name}: {side.blind}"
            lines += ink.paint_all(WARNING, ink.wrap(text, "warning: ", "  "))
    for change in _ORDER:
        rows = comparison.of(change)
        for row in rows[:limit]:
            lines += ["", *_row(row, ink, verbose)]
        if rows[limit:]:
            rest = sum(row.bytes for row in rows[limit:])
            more = plural(len(rows) - limit, f"more {change} stack")
            lines += ["", f"{more}, {_signed(rest)}; --limit {len(rows)} shows all"]
    lines += ["", *_rest(comparison, ink)]
    for note in comparison.notes:
        lines += ink.wrap(note, "Note: ", "  ")
    for name, side in (("Before", comparison.before), ("After", comparison.after)):
        shown = side.limits if verbose else side.limits[:_LIMITS]
        for text in shown:
            lines += ink.wrap(text, f"{name}: ", "  ")
        if side.limits[len(shown) :]:
            lines.append(
                f"{name}: {len(side.limits) - len(shown)} more notes; --verbose shows them"
            )
    return "\n".join(lines) + "\n"


def headline_text(comparison: Comparison) -> str:
    """Return what changed, in a line."""
    if comparison.measure == "nothing":
        return "nothing can be compared: no number is known of both sides"
    if comparison.before.blind is not None or comparison.after.blind is not None:
        name = "before" if comparison.before.blind is not None else "after"
        return f"nothing can be compared: the side {name} says nothing"
    parts = []
    for change in _ORDER:
        rows = comparison.of(change)
        if rows:
            total = sum(row.bytes for row in rows)
            parts.append(f"{plural(len(rows), f'{change} stack')} ({_signed(total)})")
    if not parts:
        return "nothing new, nothing grown, nothing gone"
    if not any(comparison.of(change) for change in _WORSE):
        parts.insert(0, "nothing new or grown")
    return ", ".join(parts)


def _signed(size: int) -> str:
    return ("-" if size < 0 else "+") + bytes_text(abs(size))


def side_text(side: Side) -> str:
    """Return what a side is of, and what it holds."""
    labels = [printable(label) for label in side.labels]
    named = labels[0] if labels else "nothing"
    if labels[1:]:
        named += f" and {plural(len(labels) - 1, 'more')}".replace("mores", "more")
    about = "about " if side.sampled else ""
    held = "" if side.live_bytes is None else f", {about}{bytes_text(side.live_bytes)} held"
    blocks = "" if side.live_count is None else f" in {plural(side.live_count, 'block')}"
    return named + held + (blocks if held else "")


def change_text(row: StackChange) -> str:
    """Return what a stack held, or had lost, before and now."""
    then, now = _amount(row, row.before), _amount(row, row.after)
    what = "lost" if row.measure == "lost" else "held"
    if row.change is Change.NEW:
        return f"{now} {what}"
    if row.change is Change.GONE:
        return f"{then} {what} before"
    return f"{then} before, {now} now, {what} ({_signed(row.bytes)})"


def _row(row: StackChange, ink: Ink, verbose: bool) -> list[str]:
    text = f"{row.change.upper()}: {change_text(row)}"
    lines = [ink.bold(line) for line in ink.wrap(text, "", _INDENT)]
    verdicts = [each for each in (row.verdict_before, row.verdict_after) if each]
    frame = row.source or next(iter(row.stack), None)
    if frame is not None:
        name = function_text(frame)
        where = location_text(frame, ink)
        shown = name_within(name, max(ink.width - 8, 16), ink.ellipsis) if name else ""
        place = f"in {shown} at {where}" if shown and where else shown or where
        lines += [f"{_INDENT}{place}"]
    if verbose:
        lines += stack_lines(row, ink, whole=True)
    else:
        named = (function_text(each) for each in row.stack if not is_runtime(each))
        names = [name for name in named if name is not None]
        if names[1:]:
            more = f" {ink.ellipsis}" if names[_NAMED:] else ""
            lines += ink.wrap(f"stack: {' < '.join(names[:_NAMED])}{more}", _INDENT, _INDENT * 2)
    verdict = " -> ".join(dict.fromkeys(verdicts))
    lines.append(ink.dim(f"{_INDENT}{row.kind}, {verdict}, id {row.stable_fingerprint}"))
    return lines


def _amount(row: StackChange, amount: Amount | None) -> str:
    if amount is None:
        return "nothing"
    lost = row.measure == "lost"
    size = (amount.lost_bytes if lost else amount.held_bytes) or 0
    count = amount.lost_count if lost else amount.held_count
    text = bytes_text(size)
    if amount.low_bytes is not None and amount.high_bytes is not None and not lost:
        between = interval_text(bytes_text(amount.low_bytes), bytes_text(amount.high_bytes))
        return f"about {text} ({between})"
    if row.p_value is not None and amount.low_bytes is not None:
        return f"about {text}"
    return text if count is None else f"{text} in {plural(count, 'block')}"


def _rest(comparison: Comparison, ink: Ink) -> list[str]:
    lines = []
    for name, text in kept_texts(comparison):
        lines += ink.wrap(text, f"{name}: " if name else "  ", "  ")
    return lines


def kept_texts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what is the same and what was left out, each by its name; one may go on unnamed."""
    same = f"{plural(comparison.same_count, 'stack')} with {bytes_text(comparison.same_bytes)}"
    found = [("Unchanged", same)]
    if comparison.noise_count:
        text = f"{plural(comparison.noise_count, 'of them differs', 'of them differ')} by no more than sampling does"
        found.append(("", text))
    if comparison.quiet_count:
        text = f"{plural(comparison.quiet_count, 'stack that is', 'stacks that are')} known or suppressed"
        found.append(("Not compared", text))
    if comparison.measure != "nothing":
        found.append(("Compared", f"by what is {comparison.measure}"))
    return found


# -- JSON ---------------------------------------------------------------------


def to_json(comparison: Comparison, status: int) -> str:
    """Return the document, a change on each line; `status` is the exit status."""
    head = {
        "schema": SCHEMA,
        "status": status,
        "measure": comparison.measure,
        "undecided": comparison.undecided,
        **{f"{each}_count": len(comparison.of(each)) for each in _ORDER},
        "same_count": comparison.same_count,
        "same_bytes": comparison.same_bytes,
        "within_sampling_error_count": comparison.noise_count,
        "quiet_count": comparison.quiet_count,
        "before": _side_fields(comparison.before),
        "after": _side_fields(comparison.after),
        "notes": list(comparison.notes),
    }
    rows = ",".join(f"\n{as_json(_fields(row))}" for row in comparison.changes)
    return f'{as_json(head)[:-1]},\n"changes": [{rows}\n]}}\n'


def _side_fields(side: Side) -> dict[str, Any]:
    return {
        "recordings": list(side.labels),
        "live_bytes": side.live_bytes,
        "live_count": side.live_count,
        "duration_ns": side.duration_ns,
        "sampled": side.sampled,
        "cannot_tell": list(side.limits),
        "blind": side.blind,
    }


def _fields(row: StackChange) -> dict[str, Any]:
    return {
        "change": row.change.value,
        "measure": row.measure,
        "bytes_before": row.bytes_before,
        "bytes_after": row.bytes_after,
        "count_before": row.count_before,
        "count_after": row.count_after,
        "before": _amount_fields(row.before),
        "after": _amount_fields(row.after),
        "kind": row.kind,
        "verdict_before": row.verdict_before,
        "verdict_after": row.verdict_after,
        "stable_fingerprint": row.stable_fingerprint,
        "renamed": row.renamed,
        "p_value": row.p_value,
        "source": None if row.source is None else frame_fields(row.source),
        "stack": _stack_fields(row.stack),
    }


def _stack_fields(stack: Sequence[Any]) -> list[Any]:
    return [frame_fields(each) for each in stack]


def _amount_fields(amount: Amount | None) -> dict[str, Any] | None:
    if amount is None:
        return None
    return {
        "held_bytes": amount.held_bytes,
        "held_count": amount.held_count,
        "held_bytes_low": amount.low_bytes,
        "held_bytes_high": amount.high_bytes,
        "lost_bytes": amount.lost_bytes,
        "lost_count": amount.lost_count,
    }
