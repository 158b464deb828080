# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel objects`: what fills a slab cache, and who refers to one object."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._progress import Progress
from leakscope.cli._reading import add_debug_dir_option
from leakscope.cli._values import address_value
from leakscope.cli._writing import write_text

if TYPE_CHECKING:
    import argparse

HELP = """\
Say which objects fill a slab cache, or who refers to one object.

It reads the memory of the running kernel (/proc/kcore), or of a dump of one, with the kernel's
debug information, by drgn. Objects of a cache are told by what they point to. For an address,
all of memory is searched for words that point to the object there; those in free memory, in
memory of programs and in kmemleak's notes do not count. It takes root, and changes nothing.
Exit status: 0 looked, and somebody refers to the object; 1 nobody does: it is lost; 2 could not
do it.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        "target",
        metavar="CACHE|ADDRESS",
        help="a cache of /proc/slabinfo, or the address of an object",
    )
    parser.add_argument(
        "--vmcore", metavar="FILE", help="a dump of a kernel, in place of the running one"
    )
    parser.add_argument(
        "--vmlinux", metavar="FILE", help="the kernel's image with debug information"
    )
    add_debug_dir_option(parser, "a folder with modules that have debug information; repeatable")
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Look and print the screen."""
    from leakscope.kernel.live import open_kernel_memory
    from leakscope.kernel.objects import read_cache
    from leakscope.kernel.referrers import read_object
    from leakscope.report.kernel_objects import render_cache, render_object

    is_address = args.target.lower().startswith("0x")
    address = address_value(args.target) if is_address else None
    ink = ink_for(sys.stdout, args.colour)
    with Progress() as progress:
        progress.stage("reading the kernel's debug information")
        memory = open_kernel_memory(args.vmcore, args.vmlinux, args.debug_dir)
        if address is None:
            progress.stage("looking at objects")
            cache = read_cache(memory, args.target)
        else:
            progress.stage("searching the kernel's memory")
            one = read_object(memory, address)
    if address is None:
        write_text(sys.stdout, render_cache(cache, ink, _again(args)))
        return 0
    write_text(sys.stdout, render_object(one, ink))
    return 1 if one.is_lost else 0


def _again(args: argparse.Namespace) -> str:
    import shlex

    words = ["leakscope", "kernel", "objects"]
    for name, value in (("--vmcore", args.vmcore), ("--vmlinux", args.vmlinux)):
        words += [name, value] if value is not None else []
    for folder in args.debug_dir:
        words += ["--debug-dir", folder]
    return ("" if args.vmcore else "sudo ") + shlex.join(words)
