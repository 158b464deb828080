# SPDX-License-Identifier: Apache-2.0
"""Scan one process and print what it took as JSON. run.py starts it in a process of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from leakscope.model.reachability import Reachability
from leakscope.scan import scan_untraced
from leakscope.scan.mark import Marker

if TYPE_CHECKING:
    from collections.abc import Callable

spent = 0.0


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add up the time that a part of the marking takes."""

    def wrapper(*arguments: Any, **options: Any) -> Any:
        global spent  # noqa: PLW0603
        began = time.monotonic()
        try:
            return function(*arguments, **options)
        finally:
            spent += time.monotonic() - began

    return wrapper


for name in ("__init__", "mark", "mark_words", "sweep"):
    setattr(Marker, name, timed(getattr(Marker, name)))

found = scan_untraced(int(sys.argv[1]), max_pause_s=float(sys.argv[2]))
print(
    json.dumps(
        {
            "pause": found.facts.pause_ms / 1e3,
            "seconds": found.facts.seconds,
            "marking": spent,
            "scanned": found.facts.scanned_bytes,
            "blocks": found.blocks,
            "lost": found.counts[Reachability.DEFINITELY_LOST],
            "heap": found.account.heap_mapped,
            "method": found.facts.method,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    )
)
