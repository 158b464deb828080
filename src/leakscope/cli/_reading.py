# SPDX-License-Identifier: Apache-2.0
"""What every command takes that reads and judges recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.cli._values import size_value

if TYPE_CHECKING:
    import argparse

    from leakscope._analysis import Analyser
    from leakscope.judge.gate import Gate

__all__ = ["add_debug_dir_option", "add_reading_options", "analyser_for"]


def add_reading_options(group: argparse._ActionsContainer) -> None:
    """Add the options that `analyser_for` takes."""
    group.add_argument(
        "--min-bytes",
        type=size_value,
        default=0,
        metavar="SIZE",
        help="leave out findings that hold less, for example 64KiB",
    )
    group.add_argument(
        "--suppressions",
        action="append",
        default=[],
        metavar="FILE",
        help="suppressions in LeakSanitizer's or valgrind's syntax; repeatable",
    )
    add_debug_dir_option(
        group,
        "look for programs, libraries and debug files here first: the root of another machine, or a"
        " folder of debug files; repeatable",
    )
    group.add_argument(
        "--no-debuginfod",
        action="store_true",
        help="do not ask the servers of DEBUGINFOD_URLS for debug information",
    )


def add_debug_dir_option(parser: argparse._ActionsContainer, text: str) -> None:
    """Add the option for where debug information is; `text` is its help."""
    parser.add_argument(
        "--debug-dir", "--sysroot", action="append", default=[], metavar="DIR", help=text
    )


def analyser_for(args: argparse.Namespace, gate: Gate | None = None) -> Analyser:
    """Return what judges recordings as `args` say."""
    from leakscope._analysis import Analyser

    return Analyser(
        suppressions=args.suppressions,
        debug_dirs=args.debug_dir,
        debuginfod=not args.no_debuginfod,
        min_bytes=args.min_bytes,
        gate=gate,
    )
