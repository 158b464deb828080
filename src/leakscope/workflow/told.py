# SPDX-License-Identifier: Apache-2.0
"""A report that leakscope wrote as JSON, as findings again: to compare, suppress or export them.

What the document does not carry is not known. It is untrusted: its size is bounded, and a value
of another type than it should have is an error in one sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO

from leakscope.errors import LeakscopeError, RecordingError
from leakscope.model.columns import Column
from leakscope.model.findings import Finding, Findings, Pattern, Verdict
from leakscope.model.frames import Address, Frame
from leakscope.model.recordings import Coverage, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FINDINGS_SCHEMA", "is_document", "read_document", "told_findings"]

FINDINGS_SCHEMA = "leakscope-findings/1"

_MOST_BYTES = 256 << 20
_MOST_NUMBER = 1 << 63
_HEAD_BYTES = 4096
_HEAD = b'{"schema":"leakscope-'


def is_document(path: str | os.PathLike[str]) -> bool:
    """Whether a regular file begins as the documents that leakscope writes do."""
    try:
        with _regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, LeakscopeError):
        return False
    return head.translate(None, b" \t\r\n").startswith(_HEAD)


@contextlib.contextmanager
def _regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file, and never wait for a pipe or a device. Raises `RecordingError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecordingError(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a document that leakscope wrote. Raises `RecordingError`."""
    try:
        with _regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise RecordingError(f"{path} is larger than a report of leakscope can be")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordingError(
            f"{path} is no whole JSON document", hint="Write it anew with --json --report-file."
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("schema"), str):
        raise RecordingError(
            f"{path} is JSON, and nothing that leakscope wrote",
            hint="Take what `leakscope report --json` or `leakscope baseline` writes.",
        )
    return document


def told_findings(path: str | os.PathLike[str]) -> list[tuple[str, Findings]]:
    """Return the labelled findings in a JSON report on recordings. Raises `RecordingError`."""
    document = read_document(path)
    if document["schema"] != FINDINGS_SCHEMA:
        raise RecordingError(
            f"{path} is {str(document['schema'])[:40]!r}, and not a report on recordings",
            hint="Take what `leakscope run` or `leakscope report` writes with --json.",
        )
    try:
        processes = _list(document, "processes")
        return [_process(os.fspath(path), each) for each in processes]
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise RecordingError(
            f"{path} is a damaged report: {str(error)[:80]}", hint="Write it anew with --json."
        ) from error


def _list(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = table[name]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise TypeError(f"{name} is no list of tables")
    return found


def _text(table: dict[str, Any], name: str) -> str | None:
    found = table.get(name)
    if found is not None and not isinstance(found, str):
        raise TypeError(f"{name} is no text")
    return found


def _number(table: dict[str, Any], name: str) -> int | None:
    found = table.get(name)
    if found is None:
        return None
    if type(found) is not int or not 0 <= found < _MOST_NUMBER:
        raise ValueError(f"{name} is no number that can be")
    return found


def _process(path: str, told: dict[str, Any]) -> tuple[str, Findings]:
    process, totals, coverage = (told.get(each) or {} for each in ("process", "totals", "coverage"))
    if not all(isinstance(each, dict) for each in (process, totals, coverage)):
        raise TypeError("process, totals or coverage is no table")
    dropped = coverage.get("dropped") or {}
    findings = Findings(
        process=Process(
            pid=_number(process, "pid"),
            exe=_text(process, "executable"),
            arch=_text(process, "architecture"),
            ended=_text(process, "ended"),
        ),
        coverage=Coverage(
            mode=_text(coverage, "mode") or "exact",
            sample_bytes=_number(coverage, "sample_period_bytes"),
            dropped={str(k): v for k, v in dropped.items() if type(v) is int and v >= 0},
            troubles=_texts(coverage.get("troubles")),
            min_size=_number(coverage, "min_size_bytes"),
            max_size=_number(coverage, "max_size_bytes"),
            notes=_texts(coverage.get("notes")),
        ),
        verdict=_verdict(_text(told, "verdict")),
        headline=_text(told, "headline") or "",
        findings=tuple(_finding(each) for each in _list(told, "findings")),
        live_bytes=_number(totals, "live_bytes"),
        live_count=_number(totals, "live_count"),
        peak_bytes=_number(totals, "peak_bytes"),
        total_allocs=_number(totals, "allocation_count"),
        total_frees=_number(totals, "free_count"),
        total_alloc_bytes=_number(totals, "allocated_bytes"),
        duration_ns=_number(totals, "duration_ns"),
        notes=_texts(told.get("notes")),
        absent=tuple(each for each in Column if each in _texts(coverage.get("absent"))),
        too_few_samples=told.get("too_few_samples") is True,
    )
    return _text(told, "recording") or path, findings


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


def _verdict(name: str | None) -> Verdict | None:
    return None if name is None else Verdict(name)


def _finding(told: dict[str, Any]) -> Finding:
    number: Callable[[str], int | None] = lambda name: _number(told, name)  # noqa: E731
    pattern = _text(told, "pattern")
    source = told.get("source")
    return Finding(
        subject=_text(told, "subject") or "site",
        site=number("site"),
        kind=_text(told, "kind") or "malloc",
        verdict=Verdict(told["verdict"]),
        pattern=None if pattern is None else Pattern(pattern),
        confidence=_share(told.get("confidence")),
        live_bytes=number("live_bytes") or 0,
        live_count=number("live_count"),
        allocs=number("allocation_count"),
        frees=number("free_count"),
        rate=None,
        rate_low=None,
        rate_high=None,
        sentence=_text(told, "sentence") or "",
        next_step=_text(told, "next_step"),
        evidence=(),
        stack=tuple(_frame(each) for each in _list(told, "stack")),
        source=_frame(source) if isinstance(source, dict) else None,
        fingerprint=_text(told, "fingerprint") or "",
        known=_text(told, "known"),
        live_bytes_low=number("live_bytes_low"),
        live_bytes_high=number("live_bytes_high"),
        peak_bytes=number("peak_bytes"),
        lost_count=number("lost_count"),
        lost_bytes=number("lost_bytes"),
        unexamined_count=number("unexamined_count"),
        unexamined_bytes=number("unexamined_bytes"),
        stable_fingerprint=_text(told, "stable_fingerprint"),
    )


def _share(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("a confidence is no number from 0 to 1")
    return float(value)


def _frame(told: dict[str, Any]) -> Frame:
    return Frame(
        address=_address(_text(told, "address"), exact=told.get("address_is_exact") is True),
        module_path=_text(told, "module_path"),
        build_id=_text(told, "build_id"),
        function=_text(told, "function"),
        symbol=_text(told, "symbol"),
        file=_text(told, "file"),
        line=_number(told, "line"),
        column=_number(told, "column"),
        inlined=told.get("inlined") is True,
        artificial=told.get("artificial") is True,
        entry=None if (entry := _address(_text(told, "entry"))) is None else entry.offset,
        class_name=_text(told, "class_name"),
        interpreter=_text(told, "interpreter"),
    )


def _address(text: str | None, *, exact: bool = False) -> Address | None:
    if text is None:
        return None
    value = int(text, 16)
    if not text.startswith("0x") or not 0 <= value < 1 << 64:
        raise ValueError("an address is no number that can be")
    return Address(None, value, exact)
