# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel`: what the kernel itself holds, and which of its code leaks.

A table of verbs of its own, each in a module `_kernel_NAME` with `HELP`, `configure` and `run`
as a command has them.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SUBVERBS", "Subverb"]

HELP = """\
Say what the kernel itself holds, and which of its code leaks.

Without a verb: what this kernel can tell, what it says now, and what to enable for more.
"""


class Subverb(NamedTuple):
    """One verb below `kernel`: its name, its line in the help, the module that does it."""

    name: str
    line: str
    module: str


SUBVERBS = (
    Subverb(
        "state",
        "what this kernel can tell, what it says now, what to enable for more",
        "leakscope.cli._kernel_state",
    ),
    Subverb(
        "watch",
        "which caches, buffers, pages and source lines grow, and which of them leak",
        "leakscope.cli._kernel_watch",
    ),
    Subverb(
        "scan",
        "which objects of the kernel nothing points to (kmemleak), with their stacks",
        "leakscope.cli._kernel_scan",
    ),
    Subverb(
        "trace",
        "which allocations of the kernel stay, with their stacks, from its tracepoints",
        "leakscope.cli._kernel_trace",
    ),
)
_ALONE = "state"  # what `leakscope kernel` means


class _Module(Protocol):
    HELP: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs, and the options of the one that is meant without a verb."""
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", title="verbs", help="state is meant where none is named"
    )
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
