# SPDX-License-Identifier: Apache-2.0
"""Wrong frees: which of those that were recorded are certain, and what to say of each.

The agent notes what it sees; two things it cannot see are weighed here. Who calls itself
`operator new` or `operator delete` is one of them, whatever function it calls inside: its family
is read from the names of the stacks. And where memory went past the recording, what was recorded
of an address does not prove anything; the allocator's own marks still do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.judge.places import source_frame
from leakscope.model.free_errors import (
    FreeError,
    FreeErrorKind,
    FreeFunction,
    FreeProof,
    RecordedFreeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

__all__ = ["judge_free_errors"]

_NAMES = {
    FreeErrorKind.MISMATCHED: "mismatched free",
    FreeErrorKind.DOUBLE: "double free",
    FreeErrorKind.INTERIOR: "interior free",
    FreeErrorKind.INVALID: "invalid free",
}
_ALLOCATORS = {"malloc", "calloc", "realloc", "memalign", "new", "new[]"}  # kinds
_RIGHT = {"new": "delete", "new[]": "delete[]"}  # all others: free

# What makes an unknown address no evidence: something that was allocated is in no table.
_PAST = ("early", "reentrant", "table_full", "no_space", "paused", "filtered", "duplicate")


def judge_free_errors(
    recording: Recording,
    stack_of_site: Callable[[int], tuple[Frame, ...]],
    stack_of_node: Callable[[int], tuple[Frame, ...]],
    own_operators: Callable[[], bool] = lambda: False,
) -> tuple[tuple[FreeError, ...], tuple[str, ...]]:
    """Return the wrong frees of a recording, and notes about what could not be judged.

    `own_operators` tells whether the process has an `operator new` or `delete` beside those of
    the C++ library, which may have been called without leaving a frame.
    """
    found: list[FreeError] = []
    unjudged = 0
    whole = _is_whole(recording)
    for each in recording.free_errors:
        kind, via = FreeErrorKind(each.kind), FreeFunction(each.via)
        stack = stack_of_node(each.node)
        allocation = stack_of_site(each.site) if each.site else ()
        allocated_by = _allocated_by(recording, each, allocation)
        if kind is FreeErrorKind.MISMATCHED:
            judged = _is_mismatched(via, allocated_by, stack, allocation, own_operators)
            if _is_mislabelled(recording, each, allocation):
                judged = None
            certain = not recording.coverage.dropped.get("duplicate")
            if judged is False:
                continue
            if judged is None or not certain:
                unjudged += each.count
                continue
        elif each.proof == FreeProof.RECORDED and kind is not FreeErrorKind.INVALID and not whole:
            unjudged += each.count
            continue
        found.append(_free_error(recording, each, stack, allocation, allocated_by, stack_of_node))
    frees = "1 free" if unjudged == 1 else f"{unjudged:,} frees"
    note = (
        f"{frees} may have been wrong, and could not be judged: not all of this program's"
        " allocations and frees were seen"
    )
    return tuple(found), (note,) if unjudged else ()


def _is_whole(recording: Recording) -> bool:
    """Whether each block that the program had is known to have been recorded."""
    coverage = recording.coverage
    wrong = sum(
        each.count for each in recording.free_errors if each.kind != FreeErrorKind.MISMATCHED
    )
    return (
        coverage.mode == "exact"
        and not coverage.troubles
        and coverage.min_size is None
        and coverage.max_size is None
        and not any(coverage.dropped.get(name) for name in _PAST)
        and coverage.dropped.get("unknown_free", 0) <= wrong
    )


def _allocated_by(
    recording: Recording, error: RecordedFreeError, allocation: tuple[Frame, ...]
) -> str | None:
    if not error.site:
        return None
    kind = _kind(recording, error.site)
    operators = _operators(allocation, "operator new")
    if operators and kind not in _RIGHT:
        return "new[]" if any("new[]" in name for name in operators) else "new"
    return kind


def _kind(recording: Recording, site: int) -> str | None:
    """Return the kind of a site's blocks that free or delete takes; None for mappings and others."""
    kind = recording.kinds[int(recording.sites["kind"][site])]
    return kind if kind in _ALLOCATORS else None


def _is_mislabelled(
    recording: Recording, error: RecordedFreeError, allocation: tuple[Frame, ...]
) -> bool:
    """Whether the C library's malloc was called for an operator new, but not by one.

    Something else came between the two, such as a handler of signals.
    """
    kind = _kind(recording, error.site)
    allocator = (recording.process.allocator or "").rsplit("/", 1)[-1]
    return (
        kind in _RIGHT
        and allocator.startswith(("libc.", "libc-", "ld-musl"))
        and not _operators(allocation, "operator new")
    )


def _operators(stack: tuple[Frame, ...], name: str) -> list[str]:
    """The operators that the stack begins with."""
    found = []
    for frame in stack:
        if frame.function is None or not frame.function.startswith(name):
            break
        found.append(frame.function)
    return found


def _is_mismatched(
    via: FreeFunction,
    allocated_by: str | None,
    stack: tuple[Frame, ...],
    allocation: tuple[Frame, ...],
    own_operators: Callable[[], bool],
) -> bool | None:
    """None: cannot be told."""
    if allocated_by is None or not stack or not allocation:
        return None
    by_new = allocated_by in _RIGHT
    if via in (FreeFunction.FREE, FreeFunction.REALLOC):
        if not by_new or _operators(stack, "operator delete"):
            return False
        # An operator that ends in a jump to free() leaves no frame.
        return None if stack[0].function is None or own_operators() else True
    if by_new:
        return _RIGHT[allocated_by] != via.text
    return None if allocation[0].function is None or own_operators() else True


def _free_error(
    recording: Recording,
    error: RecordedFreeError,
    stack: tuple[Frame, ...],
    allocation: tuple[Frame, ...],
    allocated_by: str | None,
    stack_of_node: Callable[[int], tuple[Frame, ...]],
) -> FreeError:
    ended = recording.process.ended
    fatal = error.returned < error.count and (ended is None or ended.startswith("killed"))
    return FreeError(
        kind=_NAMES[FreeErrorKind(error.kind)],
        function=FreeFunction(error.via).text,
        allocated_by=allocated_by,
        count=error.count,
        fatal=fatal,
        size=error.size,
        offset=error.offset if error.kind == FreeErrorKind.INTERIOR else None,
        time_ns=error.time_ns,
        thread=error.tid,
        sentence=_sentence(error, allocated_by),
        stack=stack,
        source=source_frame(stack),
        first_free=stack_of_node(error.first_node) if error.first_node else (),
        allocation=allocation,
    )


def _sentence(error: RecordedFreeError, allocated_by: str | None) -> str:
    kind, via = FreeErrorKind(error.kind), FreeFunction(error.via).text
    if kind is FreeErrorKind.MISMATCHED:
        right = _RIGHT.get(allocated_by or "", "free")
        called = f"given to {via}" if via == "realloc" else f"freed with {via}"
        return f"A block allocated with {allocated_by} was {called}; it takes {right}."
    called = f"given to {via}" if via == "realloc" else f"freed with {via}"
    size = "1 byte" if error.size == 1 else f"{error.size or 0:,} bytes"
    if kind is FreeErrorKind.DOUBLE:
        text = f"A block{'' if error.size is None else f' of {size}'} that had been freed was"
        text += f" given to {via}" if via == "realloc" else f" freed again with {via}"
        return f"{text}." if error.first_node else f"{text}; where it was freed first is not known."
    if kind is FreeErrorKind.INTERIOR:
        return f"An address {error.offset:,} bytes into a block of {size} was {called}."
    return f"An address that no allocation returned was {called}."
