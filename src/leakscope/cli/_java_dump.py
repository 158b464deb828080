# SPDX-License-Identifier: Apache-2.0
"""`leakscope java dump`: take a heap dump, and say first what it costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.words import bytes_text, seconds_text

if TYPE_CHECKING:
    import argparse

HELP = """\
Take a heap dump of one Java virtual machine, for `leakscope report`.

It says first what that costs: the program stands still while the dump is written, which takes
about as much room on the disk as its live objects in memory. Where that is not free, nothing is
done; the file appears when it is whole. All data of the program are in it: it is readable for
its owner alone.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("pid", metavar="PID|NAME", help="the virtual machine, or its program")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the new file (NAME.PID.hprof in this directory)"
    )
    parser.add_argument(
        "--all", action="store_true", help="with garbage that was not collected yet"
    )
    parser.add_argument("--gz", action="store_true", help="packed by the virtual machine (JDK 15)")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would cost")


def run(args: argparse.Namespace) -> int:
    """Say the cost, then take the dump."""
    from leakscope.cli._java_watch import machine_of
    from leakscope.java.dumping import check_target, cost_of, take_dump

    machine = machine_of(args.pid)
    ending = "hprof.gz" if args.gz else "hprof"
    words = machine.name.split(" ")[0].rpartition("/")[2]
    plain = "".join(c if c.isalnum() or c in "._-$" else "_" for c in words)[:64] or "java"
    output = Path(args.output or f"{plain}.{machine.pid}.{ending}")
    check_target(output)  # before anything stands still
    cost = cost_of(machine, live=not args.all)
    print(
        f"leakscope: process {machine.pid} will stand still for about"
        f" {seconds_text(cost.pause_s)}, and {output} will have about {bytes_text(cost.size)}"
        + (" or less, packed" if args.gz else ""),
        file=sys.stderr,
        flush=True,
    )
    if args.dry_run:
        return 0
    done = take_dump(machine, output, cost, live=not args.all, packed=args.gz)
    print(f"{done.path}: {bytes_text(done.size)}, in {seconds_text(done.took_s)}")
    print(f"Next: leakscope report {done.path}")
    return 0
