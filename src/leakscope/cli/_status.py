# SPDX-License-Identifier: Apache-2.0
"""Exit statuses, the same for every command (docs/reference/exit-status.md)."""

from __future__ import annotations

__all__ = ["CLEAN", "FAILED", "LEAKS", "UNDECIDED", "worst"]

CLEAN = 0
"""Looked at, and nothing leaks."""
LEAKS = 1
"""Something leaks (with a baseline: something new, or grown). `--exit-code` sets another."""
FAILED = 2
"""It could not be done: a wrong option, a file that cannot be read, a program not traced."""
UNDECIDED = 3
"""Done, but the evidence is too little to say either, or the source holds none on leaks."""


def worst(*, leaks: int, own: int = 0, failed: bool = False, undecided: int = 0) -> int:
    """Return the one status for what came together.

    `leaks` is the status for leaks, 0 where there are none; `own` that of the program that was
    run, 0 where it does not count; `undecided` is 0 where all was decided. A leak is a fact
    whatever else went wrong, and a test suite that failed is never called anything better.
    """
    return leaks or own or (FAILED if failed else 0) or undecided
