# SPDX-License-Identifier: Apache-2.0
"""Workflow commands of GitHub Actions: an annotation beside the line of each leak.

They work on the standard output of a step; GitHub shows ten errors and ten warnings of a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.report.export._places import leaks, over_budget, undecided
from leakscope.report.export._samples import encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported

__all__ = ["write"]


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return a line for each leak, heaviest first, and for what could not be decided."""
    lines = [
        _command("error", leak.title, leak.message, leak.file, leak.line)
        for leak in leaks(every, root)
    ]
    for one in every:
        lines += [
            _command("error", "Wrong free", error.sentence) for error in one.findings.free_errors
        ]
    lines += [_command("error", "Over budget", text) for text in over_budget(every)]
    lines += [
        _command("warning", "Undecided", f"{label}: {findings.headline}")
        for label, findings in undecided(every)
    ]
    return encoded("".join(f"{line}\n" for line in lines))


def _command(
    level: str, title: str, message: str, file: str | None = None, line: int | None = None
) -> str:
    properties = {"title": title}
    if file is not None:
        properties = {"file": file, "line": str(line or 1), "title": title}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {told}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
