# SPDX-License-Identifier: Apache-2.0
"""`leakscope java`: virtual machines that run here, one of them closely, and dumps of their heaps.

A table of verbs of its own, each in a module `_java_NAME` with `HELP`, `configure` and `run` as a
command has them.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SUBVERBS", "JavaVerb"]

HELP = """\
Say which Java virtual machines run here, how their heaps do after each collection, and which leak.

`watch PID` says whose growth it is: the Java heap's, by class, or that of class data, threads,
direct buffers or native code. `dump PID -o FILE` takes a heap dump, for `leakscope report FILE`.
No JDK is needed. The list reads counters and asks nothing of a virtual machine; what stops one is
said before.
Exit status: 0 no leak, 1 a leak was found, 2 could not do it, 3 undecided.
"""


class JavaVerb(NamedTuple):
    """One verb below `java`: its name, its line in the help, the module that does it."""

    name: str
    line: str
    module: str


SUBVERBS = (
    JavaVerb("list", "which virtual machines run here, and which grow", "leakscope.cli._java_list"),
    JavaVerb(
        "watch", "whose growth it is, by class and kind of memory", "leakscope.cli._java_watch"
    ),
    JavaVerb("dump", "take a heap dump, and say first what it costs", "leakscope.cli._java_dump"),
)
_ALONE = "list"  # what `leakscope java` means


class _Module(Protocol):
    HELP: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs, and the options of the one that is meant without a verb."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for verb in SUBVERBS:
        module = _module(verb.module)
        below = verbs.add_parser(
            verb.name,
            help=verb.line,
            description=module.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.configure(below)
        if verb.name == _ALONE:
            module.configure(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    name = args.verb or _ALONE
    return _module(next(verb.module for verb in SUBVERBS if verb.name == name)).run(args)


def _module(name: str) -> _Module:
    return cast("_Module", import_module(name))
