# SPDX-License-Identifier: Apache-2.0
"""Findings as JSON for programs: everything, in raw numbers, with the unit in each name.

The document follows `schema.json` beside this file (JSON Schema 2020-12) and carries its
name in `schema`; fields may be added under the same name, never removed or changed in
meaning. A value that nobody knows is null. The text is pure ASCII.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from leakscope.judge.together import leaking_places
from leakscope.report.earlier import earlier_fields
from leakscope.words import confidence_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.judge.together import SharedPlace
    from leakscope.model.findings import Evidence, Finding, Findings
    from leakscope.model.frames import Frame
    from leakscope.model.free_errors import FreeError
    from leakscope.model.tool_errors import FoundError

__all__ = ["SCHEMA", "as_json", "frame_fields", "to_json"]

SCHEMA = "leakscope-findings/1"


def to_json(*findings: Findings, labels: Sequence[str] | None = None) -> str:
    """Return one document with an entry in `processes` for each of `findings`.

    `labels` names the recordings, in the same order. Raises ValueError when there are not
    as many of them as findings.
    """
    names: Sequence[str | None] = labels if labels is not None else [None] * len(findings)
    frames: dict[int, Any] = {}
    processes = [
        _process_text(name, each, frames) for name, each in zip(names, findings, strict=True)
    ]
    leaks = sum(len(each.leaks) for each in findings)
    places = leaking_places(
        [(name or "", each) for name, each in zip(names, findings, strict=True)]
    )
    return (
        f'{{"schema": {json.dumps(SCHEMA)},\n"leak_count": {leaks},\n"processes": ['
        + ",".join(f"\n{process}" for process in processes)
        + '\n],\n"places": ['
        + ",".join(f"\n{_dump(_clean(_place(each)))}" for each in places)
        + "\n]}\n"
    )


def _process_text(label: str | None, findings: Findings, frames: dict[int, Any]) -> str:
    """One process with a finding on each line: quick to write, and to look at with grep."""
    head = _dump(_clean(_process(label, findings)))
    members = ",".join(f"\n{_dump(_finding(each, frames))}" for each in findings.findings)
    wrong = ",".join(f"\n{_dump(_free_error(each, frames))}" for each in findings.free_errors)
    told = ",".join(f"\n{_dump(_error(each, frames))}" for each in findings.errors)
    lists = f'"findings": [{members}],\n"free_errors": [{wrong}],\n"errors": [{told}]'
    return f"{head[:-1]},\n{lists}}}"


def _place(place: SharedPlace) -> dict[str, Any]:
    """One leaking place over all processes; the fingerprint is that of its heaviest finding."""
    finding = place.worst.finding
    return {
        "place": _clean(":".join(finding.place)),
        "fingerprint": finding.fingerprint,
        "stable_fingerprint": finding.stable_fingerprint,
        "verdict": finding.verdict,
        "kind": finding.kind,
        "leak_bytes": place.bytes,
        "leak_block_count": place.count,
        "processes": [
            {
                "recording": part.recording or None,
                "pid": part.process.process.pid,
                "leak_bytes": part.bytes,
                "leak_block_count": part.count,
            }
            for part in place.parts
        ],
    }


def as_json(value: Any) -> str:
    """Return a value of a document as one line of ASCII that every JSON reader takes."""
    return _dump(_clean(value))


def frame_fields(frame: Frame) -> dict[str, Any]:
    """Return a frame as every document has it."""
    return _frame(frame)


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _process(label: str | None, findings: Findings) -> dict[str, Any]:
    process, coverage, scan = findings.process, findings.coverage, findings.scan
    return {
        "recording": label,
        "process": {
            "pid": process.pid,
            "parent_pid": process.ppid,
            "forked_from_pid": process.forked_from,
            "executable": process.exe,
            "architecture": process.arch,
            "uid": process.uid,
            "boot_id": process.boot_id,
            "started_unix_ns": process.started_unix_ns,
            "ended": process.ended,
            "exit_status": process.exit_status,
            "allocator": process.allocator,
        },
        "verdict": findings.verdict,
        "headline": findings.headline,
        "runtimes": findings.runtimes,
        "leak_count": len(findings.leaks),
        "leak_place_count": findings.leak_places,
        "undecided": findings.undecided,
        "too_few_samples": findings.too_few_samples,
        "totals": {
            "duration_ns": findings.duration_ns,
            "live_bytes": findings.live_bytes,
            "live_count": findings.live_count,
            "peak_bytes": findings.peak_bytes,
            "allocation_count": findings.total_allocs,
            "allocated_bytes": findings.total_alloc_bytes,
            "free_count": findings.total_frees,
        },
        "coverage": {
            "mode": coverage.mode,
            "sample_period_bytes": coverage.sample_bytes,
            "allocation_events": coverage.alloc_events,
            "free_events": coverage.free_events,
            "dropped": coverage.dropped,
            "troubles": coverage.troubles,
            "min_size_bytes": coverage.min_size,
            "max_size_bytes": coverage.max_size,
            "max_depth_frames": coverage.max_depth,
            "absent": findings.absent,
            "notes": coverage.notes,
        },
        "scan": None
        if scan is None
        else {
            "method": scan.method,
            "seconds": scan.seconds,
            "stopped_ms": scan.pause_ms,
            "scanned_bytes": scan.scanned_bytes,
            "thread_count": scan.threads,
            "notes": scan.notes,
        },
        "earlier": earlier_fields(findings.earlier),
        "suppressions": [
            {
                "name": use.name,
                "source": use.source,
                "site_count": use.sites,
                "block_count": use.blocks,
                "hidden_bytes": 0 if use.expired else use.bytes,
                "matched_bytes": use.bytes,
                "until": use.until,
                "why": use.why,
                "expired": use.expired,
            }
            for use in findings.suppressions
        ],
        "budgets": [
            {
                "pattern": use.pattern,
                "limit_bytes": use.limit_bytes,
                "held_bytes": use.bytes,
                "site_count": use.sites,
                "exceeded": use.exceeded,
            }
            for use in findings.budgets
        ],
        "notes": findings.notes,
    }


def _finding(finding: Finding, frames: dict[int, Any]) -> dict[str, Any]:
    """`frames` keeps what was made of each frame, by identity: most stacks share theirs."""
    found: dict[str, Any] = {
        "fingerprint": finding.fingerprint,
        "stable_fingerprint": finding.stable_fingerprint,
        "subject": finding.subject,
        "site": finding.site,
        "kind": finding.kind,
        "verdict": finding.verdict,
        "is_leak": finding.is_leak,
        "known": finding.known,
        "change": finding.change,
        "pattern": finding.pattern,
        "confidence": finding.confidence,
        "confidence_words": confidence_words(finding.confidence),
        "live_bytes": finding.live_bytes,
        "live_bytes_low": finding.live_bytes_low,
        "live_bytes_high": finding.live_bytes_high,
        "live_count": finding.live_count,
        "lost_count": finding.lost_count,
        "lost_bytes": finding.lost_bytes,
        "unexamined_count": finding.unexamined_count,
        "unexamined_bytes": finding.unexamined_bytes,
        "leak_bytes": finding.leak_bytes if finding.verdict.is_leak else 0,
        "peak_bytes": finding.peak_bytes,
        "allocation_count": finding.allocs,
        "free_count": finding.frees,
        "growth_bytes_per_s": finding.rate,
        "growth_bytes_per_s_low": finding.rate_low,
        "growth_bytes_per_s_high": finding.rate_high,
        "sentence": finding.sentence,
        "next_step": finding.next_step,
        "evidence": [_evidence(each) for each in finding.evidence],
    }
    found = _clean(found)
    source = finding.source
    found["source"] = _shared(source, frames) if source is not None else None
    found["place"] = _clean(":".join(finding.place))
    found["through"] = [_shared(each, frames) for each in finding.through]
    found["stack"] = [_shared(each, frames) for each in finding.stack]
    return found


def _free_error(error: FreeError, frames: dict[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": error.kind,
        "function": error.function,
        "allocated_by": error.allocated_by,
        "count": error.count,
        "fatal": error.fatal,
        "block_bytes": error.size,
        "offset_bytes": error.offset,
        "time_ns": error.time_ns,
        "thread_id": error.thread,
        "sentence": error.sentence,
    }
    cleaned: dict[str, Any] = _clean(found)
    cleaned["source"] = _shared(error.source, frames) if error.source is not None else None
    for name in ("stack", "first_free", "allocation"):
        cleaned[f"{name}_stack" if name != "stack" else name] = [
            _shared(each, frames) for each in getattr(error, name)
        ]
    return cleaned


def _error(error: FoundError, frames: dict[int, Any]) -> dict[str, Any]:
    found = {"kind": error.kind, "text": error.text, "count": error.count}
    cleaned: dict[str, Any] = _clean(found)
    cleaned["stack"] = [_shared(each, frames) for each in error.stack]
    return cleaned


def _shared(frame: Frame, frames: dict[int, Any]) -> Any:
    made = frames.get(id(frame))
    if made is None:
        made = frames[id(frame)] = _clean(_frame(frame))
    return made


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "name": evidence.name,
        "value": evidence.value,
        "text": evidence.text,
        "supports": evidence.supports,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "module_path": frame.module_path,
        "build_id": frame.build_id,
        # A string: a 64-bit address does not survive readers that keep numbers as doubles.
        "address": None if frame.address is None else f"0x{frame.address.offset:x}",
        "address_is_exact": None if frame.address is None else frame.address.exact,
        "entry": None if frame.entry is None else f"0x{frame.entry:x}",
        "function": frame.function,
        "class_name": frame.class_name,
        "interpreter": frame.interpreter,
        "symbol": frame.symbol,
        "file": frame.file,
        "line": frame.line,
        "column": frame.column,
        "inlined": frame.inlined,
        "artificial": frame.artificial,
    }


def _clean(value: Any) -> Any:
    """Make the value fit for every JSON reader: no NaN, no half surrogate pairs."""
    if isinstance(value, dict):
        return {_clean(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, str):
        # Names of files need not be UTF-8: undecodable bytes arrive as lone surrogates.
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    return _clean(value.item())  # a numpy scalar that slipped through
