# SPDX-License-Identifier: Apache-2.0
"""A finding as a suppression, in the syntax of LeakSanitizer or of valgrind.

It names functions and no lines, so that it outlives a change of the source; and no more of the
stack than tells this leak from another one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.judge.identities import stable_names
from leakscope.judge.places import is_runtime
from leakscope.model.frames import plain_name
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.findings import Finding
    from leakscope.model.frames import Frame

__all__ = ["SYNTAXES", "suppression_text"]

SYNTAXES = ("lsan", "valgrind")

_CALLERS = 2  # frames beyond the line to look at
_ALLOCATORS = {"new": "_Znw*", "new[]": "_Zna*", "memalign": "*memalign*", "mmap": "mmap*"}
_CPLUSPLUS = (".cc", ".cpp", ".cxx", ".C", ".hh", ".hpp", ".hxx", ".ipp", ".tcc")
_SPECIAL = re.compile(r"[*?]")


def suppression_text(
    finding: Finding, syntax: str, until: str | None = None, why: str | None = None
) -> str | None:
    """Return a suppression with a comment on what it is for; None where nothing names the leak.

    `until` is the last day on which it hides anything, `why` what is said of it.
    """
    rules = _sanitizer(finding) if syntax == "lsan" else _valgrind(finding)
    if not rules:
        return None
    lines = [f"# {_one_line(_about(finding))}"]
    if why and until is None:
        lines.append(f"# {_one_line(why)}")
    for rule in rules:  # a last day is that of the next rule alone
        if until is not None:
            lines.append(f"# until: {until}{f' {_one_line(why)}' if why else ''}")
        lines.append(rule)
    return "\n".join(lines) + "\n"


def _about(finding: Finding) -> str:
    source = finding.source
    where = "" if source is None else f" in {source}"
    size = bytes_text(finding.leak_bytes)
    blocks = "" if finding.leak_count is None else f" in {plural(finding.leak_count, 'block')}"
    name = finding.stable_fingerprint or finding.fingerprint
    return f"{finding.verdict.value}: {size}{blocks}{where}, id {name}"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _sanitizer(finding: Finding) -> list[str]:
    frame = finding.source or next((f for f in finding.stack if not f.artificial), None)
    if frame is None:
        return []
    if not (frame.function or frame.symbol):
        module = (frame.module_path or "").rsplit("/", 1)[-1]
        return [f"leak:{module}"] if module and module == _one_line(module) else []
    name = next(iter(stable_names((frame,))), "")
    if name == "operator" or name.count("{") != name.count("}"):
        # A lambda, or what is called like a function: its name has brackets of its own.
        whole = frame.function or ""
        fits = "*" not in whole and whole == _one_line(whole)
        return [f"leak:^{whole}$"] if whole and fits else []
    star = "*" in name and not name.startswith("operator")  # it would stand for any text
    if not name or star or name != _one_line(name):
        return []
    if not _is_cplusplus(frame, finding.stack):
        return [f"leak:^{name}$"]
    # Debug information names some functions alone, others with scope and parameters.
    return [f"leak:^{name}$", f"leak:::{name}(", f"leak:^{name}("]


def _is_cplusplus(frame: Frame, stack: Sequence[Frame]) -> bool:
    text = frame.function or ""
    return (
        "::" in text
        or "(" in text
        or (frame.file or "").endswith(_CPLUSPLUS)
        or any((each.symbol or "").startswith("_Z") for each in stack if not is_runtime(each))
    )


def _valgrind(finding: Finding) -> list[str]:
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
        return []
    while lines[-1] == "...":
        lines.pop()
    shown = [finding.source] if finding.source is not None else frames
    name = next((f.function or f.symbol for f in shown if f.function or f.symbol), None)
    title = _one_line(plain_name(name or "")).strip("{} ") or "a leak"
    kinds = ["match-leak-kinds: definite,indirect"] if finding.verdict.value == "lost" else []
    body = [f"{title} ({finding.stable_fingerprint or finding.fingerprint})", "Memcheck:Leak"]
    return ["\n".join(["{", *(f"   {line}" for line in (*body, *kinds, *lines)), "}"])]


def _end(finding: Finding, frames: list[Frame]) -> int:
    """How many frames the block has: to the line to look at, and a few callers."""
    at = next((n for n, frame in enumerate(frames) if frame == finding.source), 0)
    return at + 1 + _CALLERS


def _frame_line(frame: Frame) -> str | None:
    """Return the line for one frame; valgrind compares mangled names."""
    if frame.inlined:  # valgrind reads inlined functions from the debug information as well
        inlined = next(iter(stable_names((frame,))), "")
        fits = inlined and inlined == _one_line(inlined) and not _SPECIAL.search(inlined)
        return f"fun:*{inlined}*" if fits else None
    name = frame.symbol or (frame.function and plain_name(frame.function))
    if name:
        if name == _one_line(name) and not _SPECIAL.search(name):
            mangled = frame.symbol is not None or "::" not in name
            return f"fun:{name}" if mangled else f"fun:*{name.rsplit('::', 1)[-1]}*"
        return None
    if frame.module_path and frame.module_path == _one_line(frame.module_path):
        return f"obj:*/{frame.module_path.rsplit('/', 1)[-1]}"
    return None
