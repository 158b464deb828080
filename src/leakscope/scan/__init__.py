# SPDX-License-Identifier: Apache-2.0
"""Reachability: mark and sweep over the memory of a process that stands still.

Outstanding is not leaked. The proof of a leak is that nothing points to the block any more.
"""

from leakscope.scan.cancel import cancellable
from leakscope.scan.process import scan_holders, scan_process
from leakscope.scan.untraced import scan_core, scan_untraced

__all__ = ["cancellable", "scan_core", "scan_holders", "scan_process", "scan_untraced"]
