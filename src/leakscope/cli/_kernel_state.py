# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel` alone: what this kernel can tell, and what it says now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._writing import write_text

if TYPE_CHECKING:
    import argparse

HELP = """\
Say what this kernel can tell of its own memory, what it says now, and what to enable for more.

It looks twice, so what grows is seen. What the kernel cannot tell, as it was built or booted,
is listed with the step that would change it. Where debugfs is not mounted, root's look mounts
it for itself alone. Which modules are loaded is kept until the next boot, so that a later
`leakscope kernel scan` names code that is gone by then.
Exit status: 0, or 2 when /proc cannot be read. Odd things do not change it: two looks cannot
tell a leak.
"""

_APART_S = 1.5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="also write what each line, stack and cache holds as a recording, which can be compared",
    )
    add_html_option(parser)
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Look twice and print the screen."""
    from leakscope.cli._writing import check_outputs
    from leakscope.kernel.module_map import ModuleMap, state_folder
    from leakscope.kernel.state import look_at_kernel
    from leakscope.report.kernel import render_kernel, to_json

    check_outputs([args.output, args.html])
    state = look_at_kernel(_APART_S)
    folder = state_folder()
    if folder is not None:
        ModuleMap.now(folder).save(folder)
    if args.output is not None:
        from leakscope.kernel.held import record_held
        from leakscope.recording import packed

        packed.write(record_held(), args.output)
    if args.html is not None:  # first: the terminal may be gone
        from leakscope.report.answers.kernels import of_kernel

        write_page(args.html, [of_kernel(state)])
    ink = ink_for(sys.stdout, args.colour)
    write_text(sys.stdout, to_json(state) if args.json else render_kernel(state, ink))
    return 0
