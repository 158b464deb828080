# SPDX-License-Identifier: Apache-2.0
"""`leakscope android`: what an app's memory does on a device, by adb.

A table of verbs of its own, each in a module `_android_NAME` with `HELP`, `configure` and `run`
as a command has them.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SUBVERBS", "AndroidVerb"]

HELP = """\
Look at the memory of apps and programs on an Android device, by adb.

`doctor` says what the device allows; `heap` switches malloc_debug on, takes a native heap dump,
reports it and puts back what was set; `watch` says which kind of an app's memory grows.
Exit status: 0 no leak, 1 a leak was found, 2 could not do it, 3 undecided.
"""


class AndroidVerb(NamedTuple):
    """One verb below `android`: its name, its line in the help, the module that does it."""

    name: str
    line: str
    module: str


SUBVERBS = (
    AndroidVerb(
        "doctor", "what this device allows, and what is missing", "leakscope.cli._android_doctor"
    ),
    AndroidVerb("heap", "a native heap dump of an app or a program", "leakscope.cli._android_heap"),
    AndroidVerb("watch", "which kind of an app's memory grows", "leakscope.cli._android_watch"),
)


class _Module(Protocol):
    HELP: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
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


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return _module(next(v.module for v in SUBVERBS if v.name == args.verb)).run(args)


def _module(name: str) -> _Module:
    return cast("_Module", import_module(name))
