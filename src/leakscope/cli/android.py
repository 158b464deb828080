# SPDX-License-Identifier: Apache-2.0
"""`leakscope android`: what an app's memory does on a device, by adb.

A table of verbs of its own, each in a module `_android_NAME` with `HELP`, `configure` and `run`
as a command has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.cli._verbs import Command, configure_verbs, run_verb

if TYPE_CHECKING:
    import argparse

__all__ = ["SUBVERBS"]

HELP = """\
Look at the memory of apps and programs on an Android device, by adb.

`doctor` says what the device allows; `heap` switches malloc_debug on, takes a native heap dump,
reports it and puts back what was set; `watch` says which kind of an app's memory grows.
Exit status: 0 no leak, 1 a leak was found, 2 could not do it, 3 undecided.
"""


SUBVERBS = (
    Command(
        "doctor", "what this device allows, and what is missing", "leakscope.cli._android_doctor"
    ),
    Command("heap", "a native heap dump of an app or a program", "leakscope.cli._android_heap"),
    Command("watch", "which kind of an app's memory grows", "leakscope.cli._android_watch"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    configure_verbs(parser, SUBVERBS)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return run_verb(args, SUBVERBS)
