# SPDX-License-Identifier: Apache-2.0
"""What is held as samples: a stack and its numbers, for the formats that show profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from leakscope.model.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from leakscope.model.findings import Finding
    from leakscope.report.export import Exported

__all__ = ["Sample", "base_name", "command_of", "encoded", "frame_name", "one_line", "samples"]
__all__ += ["version"]

_REST = "[stacks that are not described]"


class Sample(NamedTuple):
    """One stack, innermost frame first. `finding` is None for what stands for the rest."""

    stack: tuple[Frame, ...]
    held_bytes: int
    held_count: int
    lost_bytes: int
    lost_count: int
    peak_bytes: int
    finding: Finding | None


def samples(every: Sequence[Exported]) -> Iterator[tuple[Exported, Sample]]:
    """Yield all that is held; of several processes, the process is the outermost frame.

    What has no finding of its own is one sample, so that the sum is right.
    """
    for one in every:
        findings = one.findings
        outer = () if len(every) == 1 else (Frame(None, function=_process(one)),)
        described = 0
        for finding in findings.findings:
            described += finding.live_bytes
            if not finding.live_bytes and not finding.live_count:
                continue
            stack = tuple(frame for frame in finding.stack if not frame.artificial)
            yield (
                one,
                Sample(
                    (stack or (Frame(None, function="[no call stack]"),)) + outer,
                    finding.live_bytes,
                    finding.live_count or 0,
                    finding.lost_bytes or 0,
                    finding.lost_count or 0,
                    max(finding.peak_bytes or 0, finding.live_bytes),
                    finding,
                ),
            )
        rest = (findings.live_bytes or 0) - described
        if rest > 0:
            yield one, Sample((Frame(None, function=_REST), *outer), rest, 0, 0, 0, rest, None)


def _process(one: Exported) -> str:
    process = one.findings.process
    name = base_name(process.exe or one.label)
    return name if process.pid is None else f"{name} ({process.pid})"


def command_of(every: Sequence[Exported]) -> str:
    """Return what was run, in one line."""
    names = [one.findings.process.exe or one.label for one in every]
    return one_line(names[0] if names else "?")


def frame_name(frame: Frame) -> str:
    """Return a function's name, or its place in the module, in one line."""
    name = frame.function or frame.symbol
    if name:
        return one_line(f"{frame.class_name}.{name}" if frame.class_name else name)
    offset = frame.entry
    if offset is None and frame.address is not None:
        offset = frame.address.offset
    module = base_name(frame.module_path or "")
    place = "" if offset is None else f"+{offset:#x}" if module else f"{offset:#x}"
    return one_line(module + place) or "?"


def base_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rsplit("/", 1)[-1]


def one_line(text: str) -> str:
    """Return `text` without what would begin a new line, or move a cursor."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def encoded(text: str) -> bytes:
    """Return UTF-8, whatever bytes the names of files have."""
    return text.encode("utf-8", "backslashreplace")


def version() -> str:
    """Return the version of leakscope, "" where it is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("leakscope")
    except PackageNotFoundError:
        return ""
