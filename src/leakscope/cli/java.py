# SPDX-License-Identifier: Apache-2.0
"""`leakscope java`: virtual machines that run here, one of them closely, and dumps of their heaps.

A table of verbs of its own, each in a module `_java_NAME` with `HELP`, `configure` and `run` as a
command has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.cli._verbs import Command, configure_verbs, run_verb

if TYPE_CHECKING:
    import argparse

__all__ = ["SUBVERBS"]

HELP = """\
Say which Java virtual machines run here, how their heaps do after each collection, and which leak.

`watch PID` says whose growth it is: the Java heap's, by class, or that of class data, threads,
direct buffers or native code. `dump PID -o FILE` takes a heap dump, for `leakscope report FILE`.
No JDK is needed. The list reads counters and asks nothing of a virtual machine; what stops one is
said before.
Exit status: 0 no leak, 1 a leak was found, 2 could not do it, 3 undecided.
"""


SUBVERBS = (
    Command("list", "which virtual machines run here, and which grow", "leakscope.cli._java_list"),
    Command(
        "watch", "whose growth it is, by class and kind of memory", "leakscope.cli._java_watch"
    ),
    Command("dump", "take a heap dump, and say first what it costs", "leakscope.cli._java_dump"),
)
_ALONE = "list"  # what `leakscope java` means


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs, and the options of the one that is meant without a verb."""
    configure_verbs(parser, SUBVERBS, _ALONE)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return run_verb(args, SUBVERBS, _ALONE)
