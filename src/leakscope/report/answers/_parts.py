# SPDX-License-Identifier: Apache-2.0
"""Parts that answers of several kinds are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.model.answers import Result, Step, Tone
from leakscope.report.steps import command_of
from leakscope.report.text import printable

if TYPE_CHECKING:
    from leakscope.model.triage import Oddity

__all__ = ["oddity_result", "step_of"]


def step_of(text: str) -> Step:
    """Return a step of a report with the command that it ends in."""
    command = command_of(text)
    return Step(printable(text), None if command is None else printable(command))


def oddity_result(oddity: Oddity, number: int) -> Result:
    """Return what is odd about a machine as a result; `number` tells it from others."""
    return Result(
        key=f"odd-{number}",
        verdict="urgent" if oddity.urgent else "odd",
        tone=Tone.ALARM if oddity.urgent else Tone.WARNING,
        title=printable(oddity.sentence),
        where="",
        sentence=printable(oddity.sentence),
        step=step_of(oddity.next_step),
    )
