# SPDX-License-Identifier: Apache-2.0
"""What a file that no reader takes looks most like, and what is missing in it."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Guess", "nearest"]


class Guess(NamedTuple):
    """A sentence on what a file may be, and what to do."""

    text: str
    hint: str | None = None


_RUN = "Run it here: leakscope run -- PROGRAM"
_GO = "Get its heap: curl HOST/debug/pprof/heap"
# The beginning of a file, what it is, what to do.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"PERFILE2", "data of perf, which has no allocations", _RUN),
    (b"memray\0", "a file of memray", "Turn it into text: memray table, or memray transform csv"),
    (b"SQLite format 3\0", "a database", "Export what is in it."),
    (b"%PDF-", "a PDF document", "Save its text."),
    (b"PK\x03\x04", "a zip archive", "Unpack it first."),
    (b"BZh", "packed with bzip2", "Unpack it first: bunzip2"),
    (b"\x04\x22\x4d\x18", "packed with lz4", "Unpack it first: lz4 -d"),
    (b"\x89PNG", "a picture", "Save the text that it shows."),
    (b"goroutine profile: total ", "a list of Go's goroutines, which tells nothing of memory", _GO),
    (b"goroutine ", "stacks of Go's goroutines, which tell nothing of memory", _GO),
    (b"threadcreate profile: total ", "a list of Go's threads, which tells nothing of memory", _GO),
    (b"--- contention:", "a profile of Go's locks, which tells nothing of memory", _GO),
    (b"--- mutex:", "a profile of Go's locks, which tells nothing of memory", _GO),
    (b"FLR\0", "a recording of Java Flight Recorder", "Use: jfr print --events OldObjectSample"),
)
# A pattern that the lines of a format have, its name, and what a report needs beside.
_LINES: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"^\s*==\d{1,10}==\s", re.MULTILINE), "a log of valgrind",
     "the head of memcheck, a leak summary, or a record of a loss"),
    (re.compile(rb"\w+Sanitizer\b"), "a report of a sanitizer", "the ERROR or SUMMARY line of a report"),
    (re.compile(rb"<valgrindoutput|<leakedbytes>|<errorcounts>"), "valgrind's XML",
     "the beginning, <?xml and <valgrindoutput>"),
    (re.compile(rb"^\[<?[0-9a-f]{8,16}>?\] |unreferenced object", re.MULTILINE), "a list of kmemleak",
     "a line 'unreferenced object 0x… (size N):'"),
    (re.compile(rb"^[@+<>-] 0x[0-9a-f]+|\) \[0x[0-9a-f]+\]", re.MULTILINE), "a log of mtrace",
     "'= Start', or lines '@ CALLER + ADDRESS SIZE'"),
    (re.compile(rb"^heap profile:|^MAPPED_LIBRARIES|^heap_v2", re.MULTILINE), "a heap profile",
     "its first line, 'heap profile:' or 'heap_v2/N'"),
    (re.compile(rb"^(?:snapshot|mem_heap_B|time)=\d", re.MULTILINE), "massif's snapshots",
     "the first lines, 'desc:', 'cmd:' and 'time_unit:'"),
    (re.compile(rb"stacks with outstanding allocations|bytes in \d+ allocations from stack"),
     "output of memleak (bcc)", "a whole record"),
    (re.compile(rb'"(?:dhatFileVersion|pps|ftbl)"'), "DHAT's program points", '"dhatFileVersion": 2'),
    (re.compile(rb"^(?:Rss|Pss|VmRSS|Anonymous|Private_Dirty):\s+\d", re.MULTILINE),
     "memory of a process (smaps, status)", "the line of a mapping, or Name: and VmRSS:"),
    (re.compile(rb"#instances|GC\.class_histogram"), "a class histogram of a JVM", "a row with a class"),
    (re.compile(rb"slabdata|<active_objs>"), "/proc/slabinfo", "a whole line of a cache"),
    (re.compile(rb"^.{0,40}\b(?:malloc|calloc|realloc|free)\b.{0,20}0x[0-9a-f]+", re.MULTILINE),
     "a log of a malloc hook", "a form that is known: [+FILE:LINE]malloc --> addr: 0x…, size: N"),
    (re.compile(rb"^<jemalloc>: Leak approximation summary", re.MULTILINE), "what jemalloc prints at the end",
     "the places: report the file with .heap at its end, which it wrote beside"),
    (re.compile(rb"(?i)\bmemory leak|\bleaked\b|\bleak(?:s|ed)? of \d"), "text about leaks",
     "the form of a tool that is known"),
)  # fmt: skip


def nearest(head: bytes) -> Guess | None:
    """Return what a file that begins with `head` may be; None when nothing speaks for anything."""
    if not head.strip(b"\0 \t\r\n"):
        return Guess("it is empty" if not head else "there is nothing but blanks in it")
    for magic, what, hint in _BEGINNINGS:
        if head.startswith(magic):
            return Guess(f"it is {what}", hint)
    if re.match(rb"\s*<(?:!DOCTYPE )?html", head, re.IGNORECASE) is not None:
        return Guess("it is a web page", "Save the text of the report itself.")
    best: tuple[int, int, str, str] | None = None
    for pattern, what, needs in _LINES:
        found = pattern.search(head)
        if found is not None:
            line = head.count(b"\n", 0, found.start() + 1) + 1
            count = min(len(pattern.findall(head)), 1000)
            if best is None or count > best[0]:
                best = count, line, what, needs
    if best is None:
        return None
    return Guess(f"it is nearest to {best[2]} (line {best[1]:,}), but lacks {best[3]}")
