# SPDX-License-Identifier: Apache-2.0
"""The answer on a machine: whose its memory is, and what is odd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.model.answers import AccountRow, AccountTable, Answer, Result, Step, Tone
from leakscope.report.answers._parts import oddity_result, step_of
from leakscope.report.text import printable
from leakscope.report.triage import headline, programs_of
from leakscope.words import bytes_text, count_text, plural

if TYPE_CHECKING:
    from leakscope.model.triage import AccountLine, ProgramGroup, Triage

__all__ = ["of_triage"]


def of_triage(triage: Triage) -> Answer:
    """Return the answer of two looks at a machine."""
    urgent = any(oddity.urgent for oddity in triage.oddities)
    odd = [oddity_result(oddity, number) for number, oddity in enumerate(triage.oddities, 1)]
    programs = [_program(program) for program in programs_of(triage.processes)]
    lines = [line for line in triage.lines if line.bytes]
    total = sum(line.bytes for line in lines)
    apart = f"Two looks {triage.apart_s:.1f} s apart cannot tell a leak."
    return Answer(
        command="triage",
        subject="this machine",
        tone=Tone.ALARM if urgent else Tone.WARNING if odd else Tone.CALM,
        headline=printable(headline(triage)),
        about=(apart,),
        steps=(step_of(triage.next_step),),
        accounts=(
            AccountTable(
                "Where the memory is",
                "bytes",
                tuple(AccountRow(printable(x.name), x.bytes, printable(_what(x))) for x in lines),
                total,
                f"of {bytes_text(triage.total)} in all",
            ),
        ),
        results=(*odd, *programs),
        coverage=tuple(("Note", printable(note)) for note in triage.notes),
    )


def _what(line: AccountLine) -> str:
    if not line.owners:
        return line.what
    owners = ", ".join(f"{bytes_text(size)} {name}" for name, size in line.owners[:3])
    return owners + (f" and {len(line.owners) - 3} more" if len(line.owners) > 3 else "")


def _program(program: ProgramGroup) -> Result:
    facts = [f"{plural(program.threads, 'thread')}"]
    facts += [f"{count_text(program.fds)} descriptors"] if program.fds is not None else []
    many = f" and {program.processes - 1} more" if program.processes > 1 else ""
    shared = "PSS" if program.pss is not None else "anonymous memory"
    return Result(
        key=f"program-{program.pid}",
        verdict="program",
        tone=Tone.CALM,
        title=printable(program.name),
        where=f"pid {program.pid}{many}",
        sentence=f"{bytes_text(program.held)} of {shared}, {bytes_text(program.anon)} anonymous; "
        + ", ".join(facts)
        + ".",
        amount=program.held,
        amount_text=bytes_text(program.held),
        count=program.processes,
        rate=program.growth or None,
        step=Step("whether it leaks", f"leakscope find {program.pid}"),
    )
