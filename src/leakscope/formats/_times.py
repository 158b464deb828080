# SPDX-License-Identifier: Apache-2.0
"""Times that people put between saved outputs: what `date` prints, ISO 8601, seconds since 1970.

Zones are not looked at: only the time between two of them counts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["stamp_time", "time_in", "time_line"]

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_ISO = re.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)[T ,_]+(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?")
_DATE = re.compile(
    r"\b([A-Z][a-z]{2})\s+(\d{1,2}),?\s+(\d\d):(\d\d):(\d\d)(?:\s+[AP]M)?(?:\s+[A-Z+:\d-]{1,6})?\s+(\d{4})\b"
)
_OTHER = re.compile(
    r"\b(\d{1,2})\s+([A-Z][a-z]{2})\w{0,6}\s+(\d{4}),?\s+(\d{1,2}):(\d\d):(\d\d)(?:\s+([AP]M))?"
)
_EPOCH = re.compile(r"(?:^|[\s#=:@-])(1\d{9})(?:[.,](\d{1,9}))?(?=$|[\s#=:@-])")
_CLOCK = re.compile(
    r"(?:^|[\s#=@-])([01]?\d|2[0-3]):([0-5]\d):([0-5]\d)(?:[.,]\d{1,9})?(?=$|[\s#=@-])"
)
_SYSLOG = re.compile(r"\b([A-Z][a-z]{2})\s{1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)\b")
_SINCE = re.compile(r"\[ {0,8}(\d{1,9})\.(\d{1,9})s?\]")
_YEAR = 2000  # of stamps that tell none: a leap year
_YEAR_NS = 366 * 86_400 * 1_000_000_000
_DAY_NS = 86_400 * 1_000_000_000
_LATE_NS = 60 * 1_000_000_000  # by which a line may come behind one that is later
_MAYBE = re.compile(r"\d:\d\d:\d\d|(?<!\d)1\d{9}(?!\d)")  # quick to exclude
_MOST = 120  # characters of a line that is a time and nothing else


def time_in(text: str) -> int | None:
    """Return the date and time in a text, ns since 1970; None where there is none."""
    if (found := _ISO.search(text)) is not None:
        whole = _moment(*(int(each) for each in found.groups()[:6]))
        return None if whole is None else whole + _fraction(found[7])
    if (found := _DATE.search(text)) is not None and found[1] in _MONTHS:
        month = _MONTHS.index(found[1]) + 1
        return _moment(int(found[6]), month, *(int(found[n]) for n in range(2, 6)))
    if (found := _OTHER.search(text)) is not None and found[2] in _MONTHS:
        hour = int(found[4])
        if found[7] is not None:
            hour = hour % 12 + 12 * (found[7] == "PM")
        month = _MONTHS.index(found[2]) + 1
        return _moment(int(found[3]), month, int(found[1]), hour, int(found[5]), int(found[6]))
    return None


def time_line(text: str, before: int | None = None) -> int | None:
    """Return the time on a line that has hardly anything else on it.

    A time of day alone is taken to be the next one of that hour after `before`.
    """
    if len(text) > _MOST or _MAYBE.search(text) is None:
        return None
    if (found := time_in(text)) is not None:
        return found
    if (epoch := _EPOCH.search(text)) is not None:
        return int(epoch[1]) * 1_000_000_000 + _fraction(epoch[2])
    if (clock := _CLOCK.search(text)) is not None and len(text) < 40:
        at = (int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3])) * 1_000_000_000
        if before is not None:
            at += before // _DAY_NS * _DAY_NS
            at += _DAY_NS * (at < before)
        return at
    return None


def stamp_time(stamp: str, before: int | None = None) -> int | None:
    """Return the time in what stands before a line of a log; `before` is that of an earlier one.

    Lines of several writers need not be in order: what is less than a minute early is as late.
    """
    text = stamp[:_MOST]
    found = time_in(text)
    if found is not None:
        return found
    if (since := _SINCE.search(text)) is not None:
        return int(since[1]) * 1_000_000_000 + _fraction(since[2])
    if (named := _SYSLOG.search(text)) is not None and named[1] in _MONTHS:
        month = _MONTHS.index(named[1]) + 1
        found = _moment(_YEAR, month, *(int(named[n]) for n in range(2, 6)))
        if found is not None and before is not None and found < before - _YEAR_NS // 2:
            found += _YEAR_NS
        return found
    text = text.replace("[", " ").replace("]", " ")
    found = time_line(text)
    if found is not None and before is not None and _EPOCH.search(text) is None:
        if 0 < before % _DAY_NS - found < _LATE_NS:
            return before
        return time_line(text, before)
    return found


def _moment(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    try:
        at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return int(at.timestamp()) * 1_000_000_000


def _fraction(digits: str | None) -> int:
    return 0 if not digits else int(digits[:9].ljust(9, "0"))
