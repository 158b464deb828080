# SPDX-License-Identifier: Apache-2.0
"""Other tools, set up as their manuals say: what `leakscope run --with TOOL` knows of each.

A tool is one module with `PACKAGE` and `set_up`, and its line in `_TOOLS`. Nothing here starts
anything (`workflow.driving` does) or reads a format (`formats` does).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

from leakscope.errors import UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Setup, Target

__all__ = ["TOOLS", "Tool", "tool"]

# Name on the command line and module.
_TOOLS = {
    "valgrind": "valgrind",
    "massif": "massif",
    "dhat": "dhat",
    "lsan": "lsan",
    "mtrace": "mtrace",
    "heaptrack": "heaptrack",
    "jemalloc": "jemalloc",
    "gperftools": "gperftools",
    "dmalloc": "dmalloc",
    "efence": "efence",
    "leaktracer": "leaktracer",
    "memwatch": "memwatch",
    "ccmalloc": "ccmalloc",
    "libleak": "libleak",
    "memleax": "memleax",
    "bcc": "bcc",
}
TOOLS = tuple(_TOOLS)
"""The names of all tools."""


class Tool(Protocol):
    """What a module of this package offers."""

    PACKAGE: str | None
    """The Debian package that has it."""

    def set_up(self, target: Target) -> Setup:
        """Return how the program is run under the tool.

        Raises `TargetError` where the tool is missing or cannot see into the program, and
        `UsageError` for what it cannot be asked.
        """


def tool(name: str) -> Tool:
    """Return the tool of that name. Raises `UsageError` for one that is not known."""
    if name not in _TOOLS:
        raise UsageError(
            f"there is no tool {name!r} to run with", hint=f"One of: {', '.join(TOOLS)}"
        )
    return cast("Tool", importlib.import_module(f"{__name__}.{_TOOLS[name]}"))
