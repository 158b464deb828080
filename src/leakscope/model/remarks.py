# SPDX-License-Identifier: Apache-2.0
"""What a recording of the kernel is known by, and remarks on kinds of allocations.

A remark stands in brackets behind the name of a kind: such memory grows without being a leak on
this evidence, and `leakscope.judge.kernel_kinds` says why.
"""

from __future__ import annotations

__all__ = ["FREES_UNSEEN", "KERNEL", "LEVEL", "OF_TASKS", "RECLAIMABLE"]

KERNEL = "[kernel]"
"""What stands for the program (`Process.exe`) in a recording of the kernel."""

RECLAIMABLE = " (reclaimable)"
LEVEL = " (level)"
FREES_UNSEEN = " (frees unseen)"
OF_TASKS = " (of tasks)"
