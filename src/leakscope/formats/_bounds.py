# SPDX-License-Identifier: Apache-2.0
"""What all readers keep to, whatever a file says."""

from __future__ import annotations

__all__ = ["MOST_FRAMES", "MOST_RECORDS", "NO_CHECK"]

MOST_FRAMES = 512
"""Frames of one stack."""
MOST_RECORDS = 1 << 20
"""Records, or distinct stacks, of one process."""
NO_CHECK = "no_leak_check"
"""The trouble of a file that proves nothing about leaks."""
