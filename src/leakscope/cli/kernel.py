# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel`: what the kernel itself holds, and which of its code leaks.

A table of verbs of its own, each in a module `_kernel_NAME` with `HELP`, `configure` and `run`
as a command has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.cli._verbs import Command, configure_verbs, run_verb

if TYPE_CHECKING:
    import argparse

__all__ = ["SUBVERBS"]

HELP = """\
Say what the kernel itself holds, and which of its code leaks.

Without a verb: what this kernel can tell, what it says now, and what to enable for more.
"""


SUBVERBS = (
    Command(
        "state",
        "what this kernel can tell, what it says now, what to enable for more",
        "leakscope.cli._kernel_state",
    ),
    Command(
        "watch",
        "which caches, buffers, pages and source lines grow, and which of them leak",
        "leakscope.cli._kernel_watch",
    ),
    Command(
        "scan",
        "which objects of the kernel nothing points to (kmemleak), with their stacks",
        "leakscope.cli._kernel_scan",
    ),
    Command(
        "trace",
        "which allocations of the kernel stay, with their stacks, from its tracepoints",
        "leakscope.cli._kernel_trace",
    ),
    Command(
        "objects",
        "which objects fill a slab cache, and who refers to one (by drgn)",
        "leakscope.cli._kernel_objects",
    ),
)
_ALONE = "state"  # what `leakscope kernel` means


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs, and the options of the one that is meant without a verb."""
    configure_verbs(parser, SUBVERBS, _ALONE)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return run_verb(args, SUBVERBS, _ALONE)
