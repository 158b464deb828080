# SPDX-License-Identifier: Apache-2.0
"""Who made the kernel allocate what still lives: a sentence and evidence for each finding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.kernel.trace_frames import plain
from leakscope.model.findings import Evidence
from leakscope.words import bytes_text, percent_text, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leakscope.kernel.trace_recording import Held
    from leakscope.model.findings import Finding, Findings

__all__ = ["with_holders"]

_OTHER_NAMESPACE = 0xFFFFFFFF
_MOST = 5
_NEARLY_ALL = 0.9


def with_holders(findings: Findings, held: Mapping[int, Held]) -> Findings:
    """Return the findings with the processes that asked for what lives."""
    return replace(
        findings,
        findings=tuple(
            finding
            if finding.site is None or finding.site not in held
            else _told(finding, held[finding.site])
            for finding in findings.findings
        ),
    )


def _told(finding: Finding, held: Held) -> Finding:
    whole = sum(held.by_process.values())
    if whole <= 0:
        return finding
    ordered = sorted(held.by_process.items(), key=lambda each: (-each[1], each[0]))
    first, most = ordered[0]
    who = _name(first, held)
    if most >= _NEARLY_ALL * whole:
        text = f"Asked for by {who}."
    else:
        share = percent_text(round(most), round(whole))
        text = f"Asked for by {plural(len(ordered), 'process', 'processes')}, {share} by {who}."
    if held.interrupt:
        text = f"Asked for in an interrupt, while {who} ran."
    evidence = tuple(
        Evidence("process", pid, f"{_name(pid, held)} asked for {bytes_text(round(size))}")
        for pid, size in ordered[:_MOST]
    )
    step = finding.next_step
    if finding.is_leak and not held.interrupt and most >= _NEARLY_ALL * whole:
        step = _step(first, held) or step
    return replace(
        finding,
        sentence=f"{finding.sentence} {text}",
        evidence=(*finding.evidence, *evidence),
        next_step=step,
    )


def _step(pid: int, held: Held) -> str | None:
    """Hand over to the process, where it is there to be asked."""
    if pid in (0, _OTHER_NAMESPACE):
        return None
    try:
        Path(f"/proc/{pid}/exe").readlink()  # kernel threads have none
    except OSError:
        return None
    return (
        f"see what {_name(pid, held)} keeps open (ls -l /proc/{pid}/fd, leakscope watch {pid}): the kernel"
        " keeps it for as long as the process does"
    )


def _name(pid: int, held: Held) -> str:
    if pid == 0:
        return "the idle task"
    if pid == _OTHER_NAMESPACE:
        return "a process of another PID namespace"
    comm = plain(held.comms.get(pid, ""))
    return f"pid {pid}" if not comm else f"{comm} (pid {pid})"
