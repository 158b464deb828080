# SPDX-License-Identifier: Apache-2.0
"""`leakscope header`: the header for programs into which nothing can be preloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.cli._streams import require_output
from leakscope.cli._writing import write_text

if TYPE_CHECKING:
    import argparse

HELP = """\
Print leakscope.h, which logs what a program allocates, with file and line: for static programs
and small machines, where nothing can be preloaded. The file itself says how it is used.

    leakscope header > leakscope.h
    gcc -include leakscope.h -D_GNU_SOURCE *.c -static -o app
    ./app
    leakscope report leakscope.PID.log
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--path", action="store_true", help="print the folder that it is in, for -I, instead"
    )


def run(args: argparse.Namespace) -> int:
    """Print the header, or where it is."""
    require_output()
    folder = Path(__file__).parents[1] / "include"
    if args.path:
        write_text(sys.stdout, f"{folder}\n")
    else:
        write_text(sys.stdout, (folder / "leakscope.h").read_text(encoding="utf-8"))
    return 0
