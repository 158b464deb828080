# SPDX-License-Identifier: Apache-2.0
"""The answer on a kernel: who holds its memory, what is odd, what it can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.model.answers import AccountRow, AccountTable, Answer, Result, Tone
from leakscope.report.answers._parts import oddity_result, step_of
from leakscope.report.text import printable
from leakscope.words import bytes_text, count_text, signed_rate

if TYPE_CHECKING:
    from leakscope.model.kernel_state import KernelHolder, KernelSource, KernelState

__all__ = ["of_kernel"]

_KINDS = {
    "line": "source line",
    "cache": "cache of objects",
    "vmalloc": "large buffers by a function (vmalloc)",
    "pages": "pages by a stack",
}
_WORTH = 65_536.0  # bytes a second that are worth a word


def of_kernel(state: KernelState) -> Answer:
    """Return the answer of two looks at a kernel, which cannot tell a leak."""
    odd = [oddity_result(one, number) for number, one in enumerate(state.oddities, 1)]
    holders = [_holder(one, number) for number, one in enumerate(state.holders, 1)]
    # Two of its own counts, taken one after the other, may cross.
    rest = max(state.total - state.kernel - state.reclaimable, 0)
    rows = (
        AccountRow(
            "the kernel's own", state.kernel, f"{bytes_text(state.unexplained)} of it in no counter"
        ),
        AccountRow("caches of the kernel", state.reclaimable, "given back on demand"),
        AccountRow("programs, files and free memory", rest),
    )
    total = sum(row.amount for row in rows)
    return Answer(
        command="kernel",
        subject=printable(f"Linux {state.release}"),
        tone=Tone.WARNING if odd else Tone.CALM,
        headline=printable(state.verdict),
        about=(f"Two looks {state.apart_s:.1f} s apart cannot tell a leak.",),
        steps=(step_of(state.next_step),),
        accounts=(AccountTable("Where the memory is", "bytes", rows, total, "in all"),),
        results=(*odd, *holders),
        coverage=(
            *((printable(one.name), _source(one)) for one in state.sources),
            *(("Note", printable(note)) for note in state.notes),
        ),
    )


def _source(one: KernelSource) -> str:
    text = one.tells if one.works else f"{one.state}: {one.why}"
    return printable(text + (f"; to have it: {one.enable}" if one.enable else ""))


def _holder(one: KernelHolder, number: int) -> Result:
    kind = _KINDS.get(one.kind, printable(one.kind))
    parts = [kind]
    parts += [] if one.count is None else [f"{count_text(one.count)} objects"]
    parts += [signed_rate(one.growth)] if abs(one.growth) >= _WORTH else []
    parts += [one.note] if one.note else []
    return Result(
        key=printable(f"{one.kind}-{number}-{one.name}"),
        verdict="holds",
        tone=Tone.CALM,
        title=printable(one.name),
        where=kind,
        sentence=printable("; ".join(parts)),
        amount=one.bytes,
        amount_text=bytes_text(one.bytes),
        count=one.count,
        rate=one.growth or None,
    )
