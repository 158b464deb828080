# SPDX-License-Identifier: Apache-2.0
"""`run --with TOOL`: which options go to another tool, and the run under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from leakscope.trace.launch import Run

__all__ = ["check_tool", "drive"]

# What the agent alone can do: attribute, and what it is without the option.
_OF_THE_AGENT: dict[str, object] = {
    "min_size": None,
    "max_size": None,
    "only": [],
    "exclude": [],
    "scan": True,
    "start_after": None,
    "start_signal": None,
    "stop_signal": None,
    "dump_signal": None,
}
_NEGATED = {"scan": "--no-scan"}


def check_tool(args: argparse.Namespace) -> None:
    """Refuse a tool that is not known, and options that no other tool has. Raises `UsageError`."""
    if args.with_tool is None:
        if args.tool_path is not None:
            raise UsageError(
                "--tool-path says where a tool is, and --with which one: it is missing"
            )
        return
    from leakscope.drive import tool

    tool(args.with_tool)
    for name, usual in _OF_THE_AGENT.items():
        if getattr(args, name) != usual:
            option = _NEGATED.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(
                f"{option} is for leakscope's own recording, and not for --with {args.with_tool}",
                hint=f"Leave out one of them; {args.with_tool}'s own options can be set as its"
                " manual says, in its environment variable.",
            )


def drive(command: Sequence[str], args: argparse.Namespace) -> Run:
    """Run the program under the tool that was named."""
    from leakscope.workflow.driving import drive as run

    return run(
        args.with_tool,
        command,
        output=args.output,
        children=args.children,
        sample=args.sample,
        depth=args.depth,
        tool_path=args.tool_path,
        wait_children=args.wait_children,
    )
