# SPDX-License-Identifier: Apache-2.0
"""The line that says what to do next. A command in it stands as it is typed, so it can be pasted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.report.ink import STEP
from leakscope.report.text import cells, printable

if TYPE_CHECKING:
    from leakscope.report.ink import Ink

__all__ = ["command_of", "step_lines"]

# A step is a sentence, or a command, or words, a colon and a command, which goes to the end.
_COMMAND = re.compile(r"(?:^|: )((?:sudo )?(?:leakscope|strace|gdb|journalctl|jcmd) \S.*)$")


def command_of(step: str) -> str | None:
    """Return the command that a step ends in; None for a mere sentence."""
    found = _COMMAND.search(step)
    return found[1] if found is not None else None


def step_lines(step: str, ink: Ink, indent: str = "", *, label: str = "Next: ") -> list[str]:
    """Return the lines for `step` behind `label`; a command is never broken, however wide it is."""
    step = " ".join(printable(step).split())
    command = command_of(step)
    first = f"{indent}{label}"
    if command is None or cells(first + step) <= ink.width:
        lines = ink.wrap(step, first, " " * len(first)) if command is None else [first + step]
    elif command == step:
        lines = [first + step]
    else:
        words = step.removesuffix(command).rstrip()
        lines = [*ink.wrap(words, first, " " * len(first)), f"{indent}  {command}"]
    return ink.paint_all(STEP, lines)
