# SPDX-License-Identifier: Apache-2.0
"""A recording of a watch, put together again and judged as the watch was."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError, UsageError
from leakscope.observe.collect import Collection
from leakscope.observe.store_reader import StoreReader
from leakscope.workflow.watching import judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from leakscope.model.measures import Measure
    from leakscope.workflow.watching import Judgement

__all__ = ["Extract", "Replay"]

_REPLAYED = 1440  # looks of a long recording that are put together again …
_VALUES = 10_000_000  # … or as many as hold about so many values
_FEWEST = 120


@dataclass(frozen=True, slots=True)
class Extract:
    """What is asked for of a recording: one subject by its pid or name, seconds from its start."""

    of: str | None = None
    since_s: float = 0.0
    until_s: float | None = None

    def of_measures(self, measures: Iterable[Measure]) -> Iterator[Measure]:
        """Yield what belongs to the subject that is called `of`, or has that pid."""
        for measure in measures:
            subject = measure.subject
            names = {subject.name, (subject.exe or "").rpartition("/")[2], str(subject.pid)}
            if not self.of or self.of in names:
                yield measure


@dataclass(slots=True)
class Replay:
    """A recording in `path`: `read` it, then `judge`. Raises `RecordingError` and `UsageError`."""

    path: Path
    extract: Extract
    damage: RecordingError | None = None  # what was wrong with its end; all before it was read
    watched_s: float = 0.0
    _reader: StoreReader = field(init=False)
    _collection: Collection = field(init=False)
    _stride: int = field(init=False)  # the distance of looks that are taken
    _any: bool = False  # look was read

    def __post_init__(self) -> None:
        self._reader = reader = StoreReader(self.path)
        looks = min(_REPLAYED, max(_FEWEST, _VALUES // max(reader.gauges, 1)))
        self._stride = max(1, reader.frames // looks)
        interval = reader.about.get("interval_s")
        if not isinstance(interval, int | float) or not 0 < interval < 1e9:
            interval = 10.0
        self._collection = Collection(interval_s=interval * self._stride, keep_ended=True)

    @property
    def cost(self) -> str:
        """How much was recorded, and whether its end is missing, in a sentence."""
        text = f"Recorded: {self._reader.frames} looks."
        if self._reader.truncated:
            text += " The end was cut off, as by a crash; all before it was read."
        return text

    def rows(self) -> Iterator[tuple[float, Measure]]:
        """Yield every value with its time, in seconds since 1970."""
        wall = self._reader.about.get("started")
        start = float(wall) if isinstance(wall, int | float) and 0 < wall < 1e12 else 0.0
        since, until = self._bounds()
        for one, _ in self._reader.passes(since_ns=since, until_ns=until):
            seconds = start + (one.time_ns - self._reader.began_ns) / 1e9
            for measure in self.extract.of_measures(one.measures):
                yield seconds, measure

    def read(self) -> None:
        """Put the series together; damage at the end is kept in `damage`."""
        first = last = None
        values = 0
        since, until = self._bounds()
        passes = self._reader.passes(stride=self._stride, since_ns=since, until_ns=until)
        try:
            for one, asleep in passes:
                wanted = one.measures
                if self.extract.of:
                    wanted = tuple(self.extract.of_measures(wanted))
                self._collection.add(replace(one, measures=wanted), asleep_ns=asleep)
                first, last = one.time_ns if first is None else first, one.time_ns
                values += len(one.measures)
                if values > 3 * _VALUES:
                    raise UsageError(
                        f"{self.path} holds more gauges than can be judged at once",
                        hint="Ask for a part of it: --since and --until.",
                    )
        except RecordingError as error:  # all before the damage is as good as ever
            if first is None:
                raise
            self.damage = error
        self._any = first is not None
        self.watched_s = 0.0 if first is None or last is None else (last - first) / 1e9

    def judge(self) -> Judgement:
        """Judge what was read."""
        judgement = judge(self._collection)
        if self.extract.of and self._any and not judgement.trends:
            raise UsageError(
                f"nothing in {self.path} is called '{self.extract.of[:80]}'",
                hint="Without --of the report shows what was recorded.",
            )
        return judgement

    def _bounds(self) -> tuple[int, int | None]:
        began, until_s = self._reader.began_ns, self.extract.until_s
        since = began + int(self.extract.since_s * 1e9)
        return since, None if until_s is None else began + int(until_s * 1e9)
