# SPDX-License-Identifier: Apache-2.0
"""How much a recording saw and did not see, as sentences.

`summary` is the one line that stands under every verdict; `problems` are the losses that
can make a verdict wrong and have to be said loudly; `remarks` are the limits that were
asked for or that are harmless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.report.text import printable
from leakscope.words import (
    bytes_text,
    count_text,
    duration_text,
    percent_text,
    plural,
)

if TYPE_CHECKING:
    from leakscope.model.findings import Findings
    from leakscope.model.reachability import ScanFacts

__all__ = ["problems", "remarks", "scan_text", "summary"]

# Losses that can hide or invent a leak, by name of the counter.
_LOSSES = {
    "table_full": (
        "block was",
        "blocks were",
        "not recorded: the table of live blocks could not grow",
    ),
    "no_space": ("event was", "events were", "lost: no room left where the recording is kept"),
    "reentrant": ("event was", "events were", "missed inside signal handlers"),
    "sites_full": (
        "allocation has",
        "allocations have",
        "no call stack: the table of sites is full",
    ),
    "nodes_full": (
        "allocation has",
        "allocations have",
        "no call stack: the table of stacks is full",
    ),
    "ranges_full": ("mapping was", "mappings were", "not recorded: the table of mappings is full"),
    "modules_full": ("module was", "modules were", "not recorded: their frames have no symbols"),
    "duplicate": ("address was", "addresses were", "allocated twice without a free that we saw"),
}

# What a recording leaves out by design or by request, by name of the counter.
_LIMITS = {
    "early": ("event", "before recording was ready"),
    "filtered": ("allocation", "outside the requested sizes"),
    "paused": ("event", "while recording was paused"),
    "unknown_free": ("free", "of blocks from before the recording"),
    "nested_event": ("event", "of the kernel that came while another was recorded"),
    "failed_allocation": ("allocation", "failed in the program itself"),
}

ATTACHED = "attached"
"""The recording began in a process that ran already: no loss, but to be said."""

_STACKS = {
    "stack_truncated": "truncated at the depth limit",
    "stack_broken": "incomplete",
    "foreign_stack": "from a stack the program switched to itself",
}

_TROUBLES = {
    "own_malloc": "the program defines malloc itself: what it allocates through it was not seen",
    "no_proc": "/proc was not readable: modules may be missing, so some frames have no symbols",
    "no_grow": "the kernel is too old to grow tables on demand: they were of fixed size",
    "left": (
        "recording ended before the program did: it unmapped or protected memory that was the"
        " recording's, or a signal handler jumped out of the middle of an allocation. What was freed"
        " later counts as held, what was allocated later is not seen"
    ),
    "namespace": (
        "objects were loaded into a namespace of their own (dlmopen), with a C library of their own:"
        " what they allocate through it was not seen"
    ),
    "incomplete": (
        "a table was full or an event was lost: what is not there may have been missed, and what is"
        " there may be free; ask for less (one process, cgroup, cache or size) or for larger tables"
    ),
    "brief": (
        "before 20 s nothing is called a leak of the kernel's: what was started meanwhile grows as"
        " well"
    ),
    "no_leak_check": "it holds no result of a leak check: whether something leaked is not known",
    "sealed": (
        "the program is under a system call filter (seccomp), and no call was made that it does not"
        " allow: stacks may be short, and what found no room in the memory set aside before is missing"
    ),
}


def summary(findings: Findings) -> str:
    """Return the coverage line: mode, events seen, dropped, stacks and symbols."""
    coverage = findings.coverage
    parts = []
    seen = []
    if coverage.alloc_events is not None:
        seen.append(plural(coverage.alloc_events, "allocation"))
    if coverage.free_events is not None:
        seen.append(plural(coverage.free_events, "free"))
    if seen:
        parts.append(" and ".join(seen) + " seen")
    dropped = sum(count for name, count in coverage.dropped.items() if _is_loss(name))
    if dropped or _is_ours(findings):
        parts.append(f"{count_text(dropped)} dropped")
    for name, text in _STACKS.items():
        count = coverage.dropped.get(name, 0)
        if count:
            parts.append(f"{plural(count, 'stack')} {text}")
    unresolved, frames = _unresolved(findings)
    if unresolved:
        parts.append(f"{percent_text(unresolved, frames)} of frames without symbols")
    return "; ".join([_mode(findings), *parts])


def scan_text(scan: ScanFacts) -> str:
    """Return how long the search for pointers took, and how much it looked at."""
    took = duration_text(round(scan.seconds * 1e9))
    text = f"took {took} for {bytes_text(scan.scanned_bytes)}"
    pause = duration_text(round(scan.pause_ms * 1e6)) if scan.pause_ms >= 0.5 else "less than 1 ms"
    return f"{text}; stopped for {pause}"


def problems(findings: Findings) -> list[str]:
    """Return one sentence for each thing that can make the verdicts wrong."""
    coverage = findings.coverage
    found = [
        _TROUBLES.get(trouble, printable(trouble))
        for trouble in coverage.troubles
        if trouble != ATTACHED
    ]
    for name, count in coverage.dropped.items():
        if not count or not _is_loss(name):
            continue
        one, many, text = _LOSSES.get(
            name, ("event was", "events were", f"lost ({printable(name).replace('_', ' ')})")
        )
        found.append(f"{plural(count, one, many)} {text}")
    return found


def remarks(findings: Findings) -> list[str]:
    """Return one sentence for each harmless or requested limit of the recording."""
    coverage = findings.coverage
    wrong = sum(each.count for each in findings.free_errors if each.kind != "mismatched free")
    counts = {**coverage.dropped}
    counts["unknown_free"] = max(counts.get("unknown_free", 0) - wrong, 0)
    left_out = [
        f"{plural(counts[name], noun)} {text}"
        for name, (noun, text) in _LIMITS.items()
        if counts.get(name)
    ]
    found = ["not recorded: " + "; ".join(left_out)] if left_out else []
    if ATTACHED in coverage.troubles:
        before = "what it had allocated before is unknown, and not judged"
        if findings.scan is not None:
            before = "of what it had allocated before no stacks are known, and only lost blocks are judged"
        found.insert(0, f"attached while it ran: {before}")
    sizes = []
    if coverage.min_size:
        sizes.append(f"from {bytes_text(coverage.min_size)}")
    if coverage.max_size:
        sizes.append(f"up to {bytes_text(coverage.max_size)}")
    if sizes:
        found.append(f"only blocks {' '.join(sizes)} were recorded, as asked")
    if findings.absent:
        missing = dict.fromkeys(column.meaning for column in findings.absent)
        found.append(f"not known from this source, and not judged: {', '.join(missing)}")
    found.extend(printable(note) for note in coverage.notes)
    return found


def _is_loss(name: str) -> bool:
    # A counter we do not know yet is a loss until somebody says otherwise.
    return name not in _LIMITS and name not in _STACKS


def _is_ours(findings: Findings) -> bool:
    """Whether we recorded it, and not another tool."""
    return findings.coverage.mode in {"exact", "sampled"}


def _mode(findings: Findings) -> str:
    coverage = findings.coverage
    if coverage.mode == "sampled" and coverage.sample_bytes:
        return f"sampled mode, one sample in {bytes_text(coverage.sample_bytes)}"
    if not _is_ours(findings):
        return f"read from {printable(coverage.mode)}"
    return f"{printable(coverage.mode)} mode"


def _unresolved(findings: Findings) -> tuple[int, int]:
    frames = [f for finding in findings.findings for f in finding.stack if not f.artificial]
    return sum(1 for frame in frames if frame.function is None), len(frames)
