# SPDX-License-Identifier: Apache-2.0
"""A finding as a suppression, in the syntax of LeakSanitizer or of valgrind.

It names functions and no lines, so that it outlives a change of the source; and no more of the
stack than tells this leak from another one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.judge.places import is_runtime
from leakscope.model.frames import plain_name
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from leakscope.model.findings import Finding
    from leakscope.model.frames import Frame

__all__ = ["SYNTAXES", "suppression_text"]

SYNTAXES = ("lsan", "valgrind")

_CALLERS = 2  # frames beyond the line to look at
_ALLOCATORS = {"new": "_Znw*", "new[]": "_Zna*", "memalign": "*memalign*", "mmap": "mmap*"}
_SPECIAL = re.compile(r"[*?]")


def suppression_text(
    finding: Finding, syntax: str, until: str | None = None, why: str | None = None
) -> str | None:
    """Return a suppression with a comment on what it is for; None where nothing names the leak.

    `until` is the last day on which it hides anything, `why` what is said of it.
    """
    rule = _sanitizer(finding) if syntax == "lsan" else _valgrind(finding)
    if rule is None:
        return None
    lines = [f"# {_one_line(_about(finding))}"]
    if until is not None:
        lines.append(f"# until: {until}{f' {_one_line(why)}' if why else ''}")
    elif why:
        lines.append(f"# {_one_line(why)}")
    return "\n".join([*lines, rule]) + "\n"


def _about(finding: Finding) -> str:
    source = finding.source
    where = "" if source is None else f" in {source}"
    size = bytes_text(finding.leak_bytes)
    blocks = "" if finding.leak_count is None else f" in {plural(finding.leak_count, 'block')}"
    name = finding.stable_fingerprint or finding.fingerprint
    return f"{finding.verdict.value}: {size}{blocks}{where}, id {name}"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _sanitizer(finding: Finding) -> str | None:
    frame = finding.source or next((f for f in finding.stack if not f.artificial), None)
    if frame is None:
        return None
    name = frame.function or frame.symbol
    if name is None:
        module = (frame.module_path or "").rsplit("/", 1)[-1]
        return f"leak:{module}" if module else None
    plain = plain_name(name)
    if not plain or "*" in plain or plain != _one_line(plain):
        return None
    if plain == name and "::" not in name:
        return f"leak:^{plain}$"
    # LeakSanitizer prints C++ functions with their parameters, other tools without.
    return f"leak:^{plain}(" if name.startswith(f"{plain}(") else f"leak:{plain}"


def _valgrind(finding: Finding) -> str | None:
    lines = [f"fun:{_ALLOCATORS.get(finding.kind, '*alloc*')}"]
    frames = [frame for frame in finding.stack if not frame.artificial]
    end = _end(finding, frames)
    named = 0
    for frame in frames[:end]:
        text = None if is_runtime(frame) else _frame_line(frame)
        if text is None:
            if lines[-1] != "...":
                lines.append("...")
        else:
            lines.append(text)
            named += 1
    if not named:
        return None
    while lines[-1] == "...":
        lines.pop()
    name = next((f.function or f.symbol for f in frames if f.function or f.symbol), "a leak")
    title = _one_line(plain_name(name)).strip("{} ") or "a leak"
    kinds = ["match-leak-kinds: definite,indirect"] if finding.verdict.value == "lost" else []
    body = [f"{title} ({finding.stable_fingerprint or finding.fingerprint})", "Memcheck:Leak"]
    return "\n".join(["{", *(f"   {line}" for line in (*body, *kinds, *lines)), "}"])


def _end(finding: Finding, frames: list[Frame]) -> int:
    """How many frames the block has: to the line to look at, and a few callers."""
    at = next((n for n, frame in enumerate(frames) if frame == finding.source), 0)
    return at + 1 + _CALLERS


def _frame_line(frame: Frame) -> str | None:
    """Return the line for one frame; valgrind compares mangled names."""
    # An inlined function is a frame of its own only where valgrind was asked for it.
    if frame.inlined:
        return None
    name = frame.symbol or (frame.function and plain_name(frame.function))
    if name:
        if name == _one_line(name) and not _SPECIAL.search(name):
            mangled = frame.symbol is not None or "::" not in name
            return f"fun:{name}" if mangled else f"fun:*{name.rsplit('::', 1)[-1]}*"
        return None
    if frame.module_path and frame.module_path == _one_line(frame.module_path):
        return f"obj:*/{frame.module_path.rsplit('/', 1)[-1]}"
    return None
