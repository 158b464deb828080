# SPDX-License-Identifier: Apache-2.0
"""`dumpsys meminfo PACKAGE`: the app's summary, kind by kind, as series with verdicts."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.judge.trends import judge_series
from leakscope.model.series import Cut, Series, Subject, Trend

if TYPE_CHECKING:
    from leakscope.android.adb import Adb

__all__ = ["KINDS", "MeminfoWatch", "parse_meminfo_app"]

_PID = re.compile(r"\*\* MEMINFO in pid (\d{1,8}) \[([^\]]{0,200})\]")
_ROW = re.compile(
    r"^\s*(Java Heap|Native Heap|Code|Stack|Graphics|Private Other|System|Unknown):\s+(\d{1,10})",
    re.MULTILINE,
)
_TOTAL = re.compile(r"^\s*TOTAL(?: PSS)?:\s+(\d{1,10})", re.MULTILINE)
KINDS = {
    "Java Heap": "take two heap dumps of Java (adb shell am dumpheap PID FILE): leakscope report A B",
    "Native Heap": "leakscope android heap --app",
    "Graphics": "textures and buffers that are not released; see: adb shell dumpsys gfxinfo",
    "Code": "code and resources that are mapped; class loaders that are not let go",
    "Stack": "threads that do not end; see: adb shell ps -T -p PID",
    "Private Other": "memory by mmap, ashmem or dma-buf; see: adb shell showmap PID",
}


def parse_meminfo_app(text: str) -> tuple[int, str, dict[str, int]] | None:
    """Return pid, process and bytes by kind, "TOTAL" as well; None for what is no such answer."""
    head = _PID.search(text)
    at = text.find("App Summary")
    if head is None or at < 0:
        return None
    found = {name: int(size) * 1024 for name, size in _ROW.findall(text, at)}
    total = _TOTAL.search(text, at)
    if total is not None:
        found["TOTAL"] = int(total[1]) * 1024
    return (int(head[1]), head[2], found) if found else None


@dataclass(slots=True)
class MeminfoWatch:
    """Looks at one app of a device."""

    adb: Adb
    package: str
    looks: int = 0
    pid: int = 0
    _times: dict[str, list[int]] = field(default_factory=dict)
    _values: dict[str, list[float]] = field(default_factory=dict)
    _cuts: list[Cut] = field(default_factory=list)

    def look(self) -> dict[str, int]:
        """Look once and return bytes by kind. Raises `TargetError` when the app does not run."""
        said = self.adb.shell("dumpsys", "-t", "30", "meminfo", self.package)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if self.adb.dry_run:
            return {}
        found = parse_meminfo_app(said)
        if found is None:
            raise TargetError(
                f"{self.package} does not run on the device",
                hint="Start it there; adb shell pm list packages shows what is installed.",
            )
        pid, _, kinds = found
        if self.pid and pid != self.pid:
            self._cuts.append(Cut(now, "restart"))
        self.pid = pid
        self.looks += 1
        for name, size in kinds.items():
            self._times.setdefault(name, []).append(now)
            self._values.setdefault(name, []).append(float(size))
        return kinds

    def judge(self) -> list[Trend]:
        """Judge every kind of memory, as `leakscope watch` does."""
        subject = Subject("android", f"{self.package}@{self.pid}", self.package)
        series = [
            Series(
                subject,
                name,
                "bytes",
                np.array(times, np.int64),
                np.array(self._values[name], np.float64),
                tuple(self._cuts),
            )
            for name, times in self._times.items()
        ]
        return judge_series(series)
