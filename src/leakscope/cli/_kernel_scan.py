# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel scan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.errors import UsageError

if TYPE_CHECKING:
    import argparse

HELP = "To come."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Not there yet."""
    raise UsageError("this verb is not there yet")
