# SPDX-License-Identifier: Apache-2.0
"""Counts, in a process of its own, what the tested one holds: it stays free of us.

One word a line on standard input, one line of JSON in answer: `mark` remembers what native sites hold
now; `grown` tells those that hold more than at the mark, which it moves, and
`left` what is left of that; `stack N` describes a site.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope.errors import LeakscopeError
from leakscope.model.frames import Address
from leakscope.recording.live_counts import LiveCounts
from leakscope.symbols import Symbolizer

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.model.frames import Frame
    from leakscope.recording.live_counts import SiteCounts

import numpy as np

_SYSTEM = re.compile(
    r"(?:ld-linux[\w.-]*|ld-musl[\w.-]*|libc|libc\.musl[\w.-]*|libm|libdl|libpthread|libstdc\+\+|libgcc_s"
    r"|libleakscope-agent)(?:-[\d.]+)?\.so[\d.]*$|ld-linux"
)
_PYTHON = re.compile(r"(?:lib)?python\d[\w.]*$")
_PYTHON_ALLOCATES = re.compile(r"_?Py(?:Mem|Object)_|_PyMem|PyObject_(?:Malloc|Realloc|Calloc)")
_NEAR = 10  # frames within which the interpreter's allocator and the C library are
_MOST = 200  # grown sites of a test that are told


class Watcher:
    """Answers what is asked on one live recording."""

    def __init__(self, path: str, program: str) -> None:
        self._tally = LiveCounts(path, self._native)
        self._program = program
        self._mark: SiteCounts | None = None
        self._before: SiteCounts | None = None  # the mark before this one
        self._symbols: Symbolizer | None = None
        self._modules = 0
        self._kinds: list[int] = []  # of modules: 0 the system's, 1 the interpreter, 2 native
        self._allocators: dict[tuple[int, int], bool] = {}

    def answer(self, words: list[str]) -> dict[str, Any]:
        """Return the answer to one line."""
        if words[0] == "mark":
            self._mark = self._tally.count()
            return {"sampled": self._tally.sampled}
        if words[0] == "grown":
            self._before, self._mark = self._mark, self._tally.count()
            return {"grown": self._grown()}
        if words[0] == "left":
            self._mark = self._tally.count()
            return {"grown": self._grown()}
        if words[0] == "stack":
            return {"stack": self._stack(int(words[1]))}
        return {"error": f"{words[0]} is not known"}

    def _grown(self) -> list[tuple[int, int, int]]:
        now, before = self._mark, self._before
        if now is None or before is None:
            return []
        counts, sizes = now.counts.copy(), now.sizes.copy()
        counts[: len(before.counts)] -= before.counts
        sizes[: len(before.sizes)] -= before.sizes
        sites = np.flatnonzero((counts > 0) & (sizes > 0)).tolist()
        found = [(site, int(counts[site]), int(sizes[site])) for site in sites]
        return sorted(found, key=lambda each: -each[2])[:_MOST]

    def _native(self, tally: LiveCounts, sites: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether code that is neither Python's own nor the C library's asked for the memory."""
        nodes, table = tally.nodes, tally.sites
        kinds = np.array([3, *self._kinds_of(tally)])  # 3: no module
        at = table["node"][sites].astype(np.int64)
        found = np.zeros(len(sites), np.bool_)
        open_ = (at > 0) & (at < len(nodes))
        for _ in range(_NEAR):
            rows = np.flatnonzero(open_)
            if not len(rows):
                break
            frames = nodes[at[rows]]
            kind = kinds[np.minimum(frames["module"], len(kinds) - 1)]
            found[rows[kind == 2]] = True
            passes = kind == 0
            python = np.flatnonzero(kind == 1)
            if len(python):
                # The interpreter's allocator, which extension modules call as well.
                passes[python] = self._allocate(frames[python])
            open_[rows] = passes
            at[rows] = np.where(passes, frames["parent"], 0)
            open_ &= at > 0
        return found

    def _kinds_of(self, tally: LiveCounts) -> list[int]:
        for module in tally.modules[len(self._kinds) :]:
            name = PurePath(module.path).name
            own = module.path == self._program or _PYTHON.match(name.partition(".so")[0])
            self._kinds.append(0 if _SYSTEM.match(name) else 1 if own else 2)
        return self._kinds

    def _allocate(self, frames: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        keys = list(zip(frames["module"].tolist(), frames["offset"].tolist(), strict=True))
        new = [key for key in dict.fromkeys(keys) if key not in self._allocators]
        if new:
            addresses = {key: Address(key[0] - 1, key[1]) for key in new}
            named = self._resolver().resolve(addresses.values())
            for key, address in addresses.items():
                frame = named[address][0]
                name = frame.function or frame.symbol or ""
                self._allocators[key] = _PYTHON_ALLOCATES.match(name) is not None
        return np.array([self._allocators[key] for key in keys], np.bool_)

    def _stack(self, site: int) -> list[str]:
        addresses = self._tally.stack(site)
        frames = self._resolver().resolve(addresses)
        return [_text(frame) for address in addresses for frame in frames[address]]

    def _resolver(self) -> Symbolizer:
        if self._symbols is None or self._modules != len(self._tally.modules):
            if self._symbols is not None:
                self._symbols.close()
            self._modules = len(self._tally.modules)
            self._symbols = Symbolizer(self._tally.modules, debuginfod=False)
        return self._symbols


def _text(frame: Frame) -> str:
    name = frame.function or frame.symbol
    module = PurePath(frame.module_path).name if frame.module_path else "?"
    if name is None:
        offset = f"+{frame.address.offset:#x}" if frame.address is not None else ""
        return f"{module}{offset}"
    where = f"{frame.file}:{frame.line}" if frame.file and frame.line else module
    return f"{name}  {where}"


def main(path: str, program: str) -> int:
    """Answer until the other end is closed."""
    try:
        watcher = Watcher(path, program)
    except (LeakscopeError, OSError, ValueError) as error:
        _say({"error": f"{error}"})
        return 2
    _say({"ready": True})
    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        try:
            _say(watcher.answer(words))
        except LeakscopeError as error:
            _say({"error": f"{error}"})
    return 0


def _say(document: dict[str, Any]) -> None:
    os.write(1, f"{json.dumps(document)}\n".encode())  # a few bytes to a pipe, at once


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2]))
