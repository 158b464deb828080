# SPDX-License-Identifier: Apache-2.0
"""What the functions return: values with the same JSON document and the same report as the commands."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from leakscope._paths import as_typed, current
from leakscope.model import findings as model
from leakscope.model import watched
from leakscope.report import watch as watch_report
from leakscope.trace import launch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from leakscope._analysis import Analyser
    from leakscope.model.findings import Finding
    from leakscope.model.heap import HeapScan
    from leakscope.model.recordings import Recording
    from leakscope.model.series import Cause, Trend
    from leakscope.report.ink import Ink

__all__ = ["Findings", "Look", "Result", "Run", "Scan", "Watched", "fields_of"]

_Judged = list[tuple[str, model.Findings]]


@dataclass(frozen=True, slots=True)
class Look:
    """How a report is to look: the options of `Result.report`."""

    width: int
    colour: bool
    unicode: bool
    limit: int
    all: bool
    verbose: bool
    source: bool

    @property
    def ink(self) -> Ink:
        """The same for reports of gauges, which leave nothing out."""
        from leakscope.report.ink import Ink

        return Ink(self.width, self.colour, self.unicode)


class Result(ABC):
    """What every result can do."""

    __slots__ = ()

    @abstractmethod
    def to_json(self) -> str:
        """Return the document that the command writes with --json; it has a published schema."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same as a dictionary."""
        found: dict[str, Any] = json.loads(self.to_json())
        return found

    def report(
        self,
        *,
        width: int = 80,
        colour: bool = False,
        unicode: bool = True,
        limit: int = 10,
        all: bool = False,  # noqa: A002 - as the option of the command
        verbose: bool = False,
        source: bool = True,
    ) -> str:
        """Return the text that the command shows, ending in a newline.

        `width` is in characters; `limit` is the number of findings shown in full, `all` also shows
        what is quiet by default, `verbose` whole stacks and all evidence, `source` the lines of the
        program around each place. What a kind of result does not have, the options for it change
        nothing about.
        """
        return self._text(Look(width, colour, unicode, limit, all, verbose, source))

    @abstractmethod
    def _text(self, look: Look) -> str:
        """Return the text of the command, ending in a newline."""

    def __str__(self) -> str:
        """Return the report, so that `print(result)` shows what the command shows."""
        return self.report().rstrip("\n")

    def _repr_html_(self) -> str:
        """Show the report where a notebook shows a value."""
        return f"<pre>{escape(self.report(width=100))}</pre>"


def _findings_text(judged: _Judged, look: Look) -> str:
    from leakscope.report.processes import render_processes
    from leakscope.symbols import source_context

    return render_processes(
        judged,
        width=look.width,
        colour=look.colour,
        unicode=look.unicode,
        source_context=source_context if look.source else None,
        limit=look.limit,
        show_all=look.all,
        verbose=look.verbose,
        base=current(),
    )


def _json(judged: _Judged) -> str:
    from leakscope.report.json_ import to_json

    return to_json(*(each for _, each in judged), labels=[label for label, _ in judged])


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name: for a class with more that it can do."""
    return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}


@dataclass(frozen=True, slots=True)
class Findings(model.Findings, Result):
    """All findings about one recording, heaviest first; `leaks` are those that make a run fail."""

    label: str | None = None
    """The name of the recording in reports on several, and in the document."""

    @classmethod
    def of(cls, findings: model.Findings, label: str | None = None) -> Self:
        """Return what the engine found, with what a result can do."""
        return cls(**fields_of(findings) | {"label": label})

    def to_json(self) -> str:
        """Return the document that `leakscope report --json` writes; it has a published schema."""
        from leakscope.report.json_ import to_json

        return to_json(self, labels=None if self.label is None else [self.label])

    def _text(self, look: Look) -> str:
        """Return the text that `leakscope report` shows, ending in a newline."""
        return _findings_text([(self.label or "", self)], look)


@dataclass(frozen=True, slots=True)
class Run(launch.Run, Result):
    """What came of one run. `recordings` and `files` belong together, the program's own first."""

    _analyser: Analyser | None = field(default=None, repr=False, compare=False)
    _judged: list[tuple[Findings, ...]] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(cls, run: launch.Run, analyser: Analyser) -> Self:
        """Return what came of a run, to be judged by `analyser` when somebody asks."""
        return cls(**fields_of(run), _analyser=analyser)

    @property
    def findings(self) -> tuple[Findings, ...]:
        """The findings about each of `recordings`, judged when first asked for."""
        if not self._judged:
            assert self._analyser is not None
            self._judged.append(
                tuple(
                    Findings.of(self._analyser.analyse(recording), as_typed(path))
                    for recording, path in zip(self.recordings, self.files, strict=True)
                )
            )
        return self._judged[0]

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings about all processes that make a run fail."""
        return tuple(leak for each in self.findings for leak in each.leaks)

    def to_json(self) -> str:
        """Return the document that `leakscope run --json` writes; it has a published schema."""
        return _json([(each.label or "", each) for each in self.findings])

    def _text(self, look: Look) -> str:
        """Return the report of `leakscope run` on all processes, ending in a newline."""
        return _findings_text([(each.label or "", each) for each in self.findings], look)


@dataclass(frozen=True, slots=True)
class Scan(Result):
    """What a search for pointers found in one process or core file.

    A process that leakscope traces has `recording` and `findings` with call stacks; any other has
    `heap`, with lost blocks by size. The rest is None.
    """

    pid: int
    program: str
    recording: Recording | None = field(default=None, repr=False)
    findings: Findings | None = None
    heap: HeapScan | None = None

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that make a run fail; empty for a process that is not traced."""
        return self.findings.leaks if self.findings is not None else ()

    @property
    def lost_count(self) -> int:
        """Blocks that nothing points to, or only other lost blocks."""
        if self.findings is not None:
            return sum(each.lost_count or 0 for each in self._not_known())
        return sum(self.heap.counts[kind] for kind in _lost()) if self.heap is not None else 0

    @property
    def lost_bytes(self) -> int:
        """The bytes of those blocks."""
        if self.findings is not None:
            return sum(each.lost_bytes or 0 for each in self._not_known())
        return sum(self.heap.bytes[kind] for kind in _lost()) if self.heap is not None else 0

    def _not_known(self) -> list[Finding]:
        found = self.findings.findings if self.findings is not None else ()
        return [each for each in found if each.known is None]

    def to_json(self) -> str:
        """Return the document that `leakscope scan --json` writes; it has a published schema."""
        from leakscope.report import heap

        if self.findings is not None:
            return self.findings.to_json()
        assert self.heap is not None
        return heap.to_json(self.heap, self.program)

    def _text(self, look: Look) -> str:
        """Return the text that `leakscope scan` shows, ending in a newline."""
        from leakscope.report.heap import render_heap

        if self.findings is not None:
            return _findings_text([(self.findings.label or "", self.findings)], look)
        assert self.heap is not None
        return render_heap(self.heap, self.program)


def _lost() -> tuple[Any, ...]:
    from leakscope.model.reachability import Reachability

    return Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST


@dataclass(frozen=True, slots=True)
class Watched(watched.Watched, Result):
    """What a watch found: `leaks`, the fastest first, and `trends`, one for each gauge."""

    @property
    def leaks(self) -> Sequence[Cause]:
        """What leaks, with the gauge that tells it best and those that follow."""
        return self.causes

    @property
    def growing(self) -> Sequence[Trend]:
        """What grows fast and is not known to leak: a fact, and no verdict yet."""
        from leakscope.judge.growing import fast_growers

        return fast_growers(self.trends)

    def to_json(self) -> str:
        """Return the document that `leakscope watch --json` writes; it has a published schema."""
        return watch_report.to_json(self)

    def _text(self, look: Look) -> str:
        """Return the text that `leakscope watch` shows at its end, ending in a newline."""
        return watch_report.render_watch(self, look.ink)
