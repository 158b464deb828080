# SPDX-License-Identifier: Apache-2.0
"""What to say of a place whose lost blocks are those of threads that nobody joined."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from leakscope.model.findings import Evidence, Finding
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from leakscope.model.reachability import UnjoinedThreads

__all__ = ["about_threads"]


def about_threads(finding: Finding, unjoined: UnjoinedThreads) -> Finding:
    """Return the finding as one about the stacks: they are the leak, and held as long as it is."""
    many = f"{unjoined.threads:,} threads that were started here have ended, and nobody joined them"
    held = finding.live_bytes + unjoined.resident_bytes
    return replace(
        finding,
        live_bytes=held,
        peak_bytes=max(finding.peak_bytes or 0, held),
        sentence=f"{many}: their stacks stay, {bytes_text(unjoined.mapped_bytes)} of address space, and nothing has their"
        " pthread_t any more.",
        next_step="Join each thread, or create it detached.",
        evidence=(
            Evidence(
                "unjoined threads",
                unjoined.threads,
                f"{unjoined.resident_bytes:,} bytes of {unjoined.threads:,} stacks are in memory",
            ),
            *finding.evidence,
        ),
    )
