# SPDX-License-Identifier: Apache-2.0
"""Counts, in a process of its own, what the tested one holds: it stays free of us.

One word a line on standard input, one line of JSON in answer: `mark` remembers what is held now;
`grown` tells the native sites that hold more than at the mark; `stack N` describes a site.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope.errors import LeakscopeError
from leakscope.recording.tally import Tally
from leakscope.symbols import Symbolizer

if TYPE_CHECKING:
    from leakscope.model.frames import Frame
    from leakscope.recording.tally import Held

import numpy as np

_SYSTEM = re.compile(
    r"(?:ld-linux[\w.-]*|ld-musl[\w.-]*|libc|libc\.musl[\w.-]*|libm|libdl|libpthread|libstdc\+\+|libgcc_s"
    r"|libleakscope-agent)\.so[\d.]*$|ld-linux"
)
_PYTHON = re.compile(r"(?:lib)?python\d[\w.]*$")
_PYTHON_ALLOCATES = re.compile(r"_?Py(?:Mem|Object)_|_?PyObject_(?:Malloc|Realloc|Calloc)|_PyMem")
_NEAR = 6  # frames within which the interpreter's allocator is
_MOST = 200  # grown sites of a test that are told


class Watcher:
    """Answers what is asked on one live recording."""

    def __init__(self, path: str, program: str) -> None:
        self._tally = Tally(path)
        self._program = program
        self._mark: Held | None = None
        self._native: dict[int, bool] = {}
        self._symbols: Symbolizer | None = None
        self._modules = 0

    def answer(self, words: list[str]) -> dict[str, Any]:
        """Return the answer to one line."""
        if words[0] == "mark":
            self._mark = self._tally.count()
            return {"sites": len(self._mark.counts), "sampled": self._tally.sampled}
        if words[0] == "grown":
            return {"grown": self._grown()}
        if words[0] == "stack":
            return {"stack": self._stack(int(words[1]))}
        return {"error": f"{words[0]} is not known"}

    def _grown(self) -> list[list[int]]:
        now = self._tally.count()
        more = now.since(self._mark) if self._mark is not None else now
        sites = np.flatnonzero((more.counts > 0) & (more.sizes > 0))
        found = [
            [site, int(more.counts[site]), int(more.sizes[site])]
            for site in sites.tolist()
            if site and self._is_native(site)
        ]
        return sorted(found, key=lambda each: -each[2])[:_MOST]

    def _is_native(self, site: int) -> bool:
        """Whether code that is neither Python's own nor the C library's asked for the memory."""
        known = self._native.get(site)
        if known is None:
            known = self._native[site] = self._look(site)
        return known

    def _look(self, site: int) -> bool:
        stack = self._tally.stack(site)
        interpreter = 0
        for number, address in enumerate(stack):
            if address.module is None or number > _NEAR + interpreter:
                return False
            path = self._tally.modules[address.module].path
            name = PurePath(path).name
            if _SYSTEM.match(name):
                continue
            if path != self._program and not _PYTHON.match(name.removesuffix(".so.1.0")):
                return True
            # The interpreter's allocator, which extension modules call as well.
            interpreter += 1
            frames = self._resolver().resolve([address])[address]
            if not _PYTHON_ALLOCATES.match(frames[0].function or frames[0].symbol or ""):
                return False
        return False

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
    except LeakscopeError as error:
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
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
