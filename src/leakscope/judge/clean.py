# SPDX-License-Identifier: Apache-2.0
"""Whether the recording of a child has anything to tell, without looking up a single name.

A build leaves hundreds of recordings of compilers that hold what they need until they end. To find
the functions and lines of a thousand places of each takes far longer than the compiler ran.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.judge.options import Options
from leakscope.judge.rules import judge_sites
from leakscope.model.findings import Verdict
from leakscope.model.reachability import Reachability

if TYPE_CHECKING:
    from leakscope.model.recordings import Recording

__all__ = ["holds_no_leak"]

_QUIET = frozenset(
    {
        Verdict.BOUNDED,
        Verdict.WARM_UP,
        Verdict.ONE_OFF,
        Verdict.CHURN,
        Verdict.RETAINED,
        Verdict.UNKNOWN,  # of what was searched for pointers, and found
    }
)
_POINTED_TO = (Reachability.REACHABLE, Reachability.POSSIBLY_LOST)


def holds_no_leak(recording: Recording) -> bool:
    """Whether a process ended by itself, all was seen, no block is lost and no place grew.

    Nothing that names could change: what is known or suppressed only makes a verdict quieter.
    """
    coverage, kinds = recording.coverage, recording.reachability
    if recording.process.ended != "exited" or kinds is None or recording.scan is None:
        return False
    if coverage.mode != "exact" or coverage.dropped or coverage.troubles or coverage.notes:
        return False
    if recording.free_errors or recording.scan.notes or recording.scan.unjoined:
        return False
    if not coverage.alloc_events or not np.isin(kinds, _POINTED_TO).all():
        return False
    return _QUIET.issuperset(judge_sites(recording, Options()).verdicts)
