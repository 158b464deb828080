# SPDX-License-Identifier: Apache-2.0
"""GitLab's code quality report: an issue for each leaking place, for the merge request's widget.

GitLab compares fingerprints between branches; these survive a rebuild.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from leakscope.report.export._places import leaks
from leakscope.report.export._samples import base_name, encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported
    from leakscope.report.export._places import Leak

__all__ = ["write"]


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the document."""
    issues = [
        {
            "type": "issue",
            "check_name": f"leakscope-{leak.finding.verdict.value}",
            "description": f"{leak.title}. {leak.message}",
            "categories": ["Bug Risk"],
            "severity": "critical" if leak.finding.rate else "major",
            "fingerprint": hashlib.sha256(leak.fingerprint.encode()).hexdigest(),
            "location": {"path": _path(leak), "lines": {"begin": leak.line}},
        }
        for leak in leaks(every, root)
    ]
    return encoded(json.dumps(issues, indent=1)) + b"\n"


def _path(leak: Leak) -> str:
    if leak.file is not None:
        return leak.file
    frame = leak.finding.source or next(iter(leak.stack), None)
    return base_name((frame.module_path if frame is not None else None) or "unknown") or "unknown"
