# SPDX-License-Identifier: Apache-2.0
"""`leakscope.diff` and `leakscope.export`: what changed, and what other programs read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope._library import values
from leakscope._library.analysing import analyser
from leakscope._library.results import Findings, Result, Run, Scan, fields_of
from leakscope._paths import current
from leakscope.errors import UsageError
from leakscope.model import changes
from leakscope.model import findings as model
from leakscope.model.recordings import Recording
from leakscope.workflow.judging import JudgedInput, judged_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from leakscope._analysis import Analyser
    from leakscope._library.results import Look
    from leakscope._library.values import PathLike, Size
    from leakscope.errors import LeakscopeError
    from leakscope.judge.diff import Looked

__all__ = ["Diff", "Judgeable", "diff", "export"]

Judgeable: TypeAlias = "Run | Scan | model.Findings | Recording | PathLike"
"""What can be judged, or was: a result, a recording, or the path of anything `leakscope report` opens."""


@dataclass(frozen=True, slots=True)
class Diff(changes.Comparison, Result):
    """What changed from one side to the other: `changes`, the largest first."""

    @property
    def worse(self) -> tuple[changes.StackChange, ...]:
        """The call stacks that are new or grown."""
        return tuple(
            each
            for each in self.changes
            if each.change in {changes.Change.NEW, changes.Change.GROWN}
        )

    def to_json(self) -> str:
        """Return the document that `leakscope diff --json` writes; it has a published schema."""
        from leakscope.report.diff import to_json

        return to_json(self, 1 if self.worse else 3 if self.undecided else 0)

    def _text(self, look: Look) -> str:
        """Return the text that `leakscope diff` shows, ending in a newline."""
        from leakscope.report.diff import render_diff

        return render_diff(self, look.ink, limit=look.limit, verbose=look.verbose)


def diff(
    before: Judgeable | Sequence[Judgeable],
    after: Judgeable | Sequence[Judgeable],
    *,
    tolerance: float | None = None,
    suppressions: PathLike | Sequence[PathLike] = (),
    debug_dirs: PathLike | Sequence[PathLike] = (),
    debuginfod: bool = True,
    min_bytes: Size = 0,
) -> Diff:
    """Compare two builds, two runs or two tools: which call stacks are new, grown, shrunk or gone.

    A side is a result, a recording, the path of a recording, of a file of another tool, of a
    report in JSON or of a baseline, or several of these, which are added up. `tolerance` is the
    share of growth that is no change, 0.1 for a tenth (None: 0 of lost blocks, 0.1 of what is
    held). Raises `UsageError` for what is no side, and what `load` raises for a file.
    """
    from leakscope.judge.diff import Tolerance, compare

    allowed = Tolerance()
    if tolerance is not None:
        share = values.number("tolerance", tolerance)
        if share < 0:
            raise UsageError(f"tolerance is {tolerance!r}; it must be a share from 0 on, as 0.1")
        allowed = Tolerance(share, share)
    judge = analyser(suppressions, debug_dirs, debuginfod, min_bytes)
    sides = [_looked(name, given, judge) for name, given in (("before", before), ("after", after))]
    return Diff(**fields_of(compare(sides[0], sides[1], allowed)))


def export(
    what: Judgeable | Sequence[Judgeable],
    to: str,
    *,
    leaks: bool = False,
    source_root: PathLike | None = None,
    suppressions: PathLike | Sequence[PathLike] = (),
    debug_dirs: PathLike | Sequence[PathLike] = (),
    debuginfod: bool = True,
    min_bytes: Size = 0,
) -> bytes:
    """Return what was found as a file that other programs open, as `leakscope export` writes it.

    `to` is the format: "pprof", "folded", "sarif" and so on, see the command. With `leaks`,
    profiles too hold only what leaks. `source_root` is where the sources lie (None: the current
    directory). Raises `UsageError` for another format, and what `load` raises for a file.
    """
    from leakscope.report.export import EXPORTS, Exported, exported

    if to not in EXPORTS:
        raise UsageError(f"to is {to!r}; it must be one of {', '.join(EXPORTS)}")
    judge = analyser(suppressions, debug_dirs, debuginfod, min_bytes)
    every = []
    for one in _judged("the first argument", what, judge):
        findings: model.Findings = one.findings
        timeline = None if one.recording is None else one.recording.timeline
        if leaks:
            findings, timeline = findings.only_leaks(), None
        every.append(Exported(one.label, findings, timeline))
    root = current() or "/" if source_root is None else values.path("source_root", source_root)
    return exported(to, every, root)


def _looked(name: str, given: Judgeable | Sequence[Judgeable], judge: Analyser) -> Looked:
    from leakscope.judge.diff import looked_at
    from leakscope.workflow.baselines import is_baseline, read_baseline

    if isinstance(given, (str, bytes)) or hasattr(given, "__fspath__"):
        path = values.path(name, given)
        if is_baseline(path):
            return read_baseline(path)
    judged = [(one.label, one.findings) for one in _judged(name, given, judge)]
    return looked_at(judged)


def _judged(
    name: str, given: Judgeable | Sequence[Judgeable], judge: Analyser
) -> Iterator[JudgedInput]:
    if isinstance(given, Run):
        for findings, recording in zip(given.findings, given.recordings, strict=True):
            yield JudgedInput(findings.label or "", findings, recording)
    elif isinstance(given, Scan):
        if given.findings is None:
            raise UsageError(
                f"{name} is a scan of a process that was not traced, which knows no call stacks",
                hint="Trace the program, or attach to it: leakscope attach PID",
            )
        yield JudgedInput(given.program, given.findings, given.recording)
    elif isinstance(given, model.Findings):
        yield JudgedInput(getattr(given, "label", None) or name, given, None)
    elif isinstance(given, Recording):
        yield JudgedInput(name, Findings.of(judge.analyse(given)), given)
    elif isinstance(given, (str, bytes)) or hasattr(given, "__fspath__"):
        yield from judged_inputs(values.path(name, given), judge, _raise)
    elif isinstance(given, Iterable):
        for each in given:
            yield from _judged(name, each, judge)
    else:
        raise UsageError(
            f"{name} is {type(given).__name__}; it must be a result, a recording, a path, or"
            " several of these"
        )


def _raise(error: LeakscopeError) -> None:
    raise error
