# SPDX-License-Identifier: Apache-2.0
"""The answer on a heap that was walked without a recording, for the commands that give it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.cli._page import write_page
from leakscope.cli._writing import write_report

if TYPE_CHECKING:
    import argparse

    from leakscope.model.heap import HeapScan

__all__ = ["report_core", "report_heap"]


def report_core(path: str, args: argparse.Namespace) -> int:
    """Walk the heap in a core file, report, and return the exit status."""
    from leakscope.scan import cancellable, scan_core

    scan, program = cancellable(lambda: scan_core(path))
    return report_heap(scan, program, args)


def report_heap(scan: HeapScan, name: str, args: argparse.Namespace) -> int:
    """Report what a walk found in the process `name`, and return the exit status."""
    from leakscope.model.reachability import Reachability
    from leakscope.report.heap import render_heap, to_json

    if args.html is not None:
        from leakscope.report.answers.heaps import of_heap

        write_page(args.html, [of_heap(scan, name)])
    write_report(to_json(scan, name) if args.json else render_heap(scan, name), args, sys.stdout)
    return int(args.exit_code) if scan.counts[Reachability.DEFINITELY_LOST] else 0
