# SPDX-License-Identifier: Apache-2.0
"""Where modules were loaded, kept for when they are gone and the kernel prints bare addresses.

Kept until the next boot in /run/leakscope (a user: below XDG_STATE_HOME), for this user alone.
Functions are known by their addresses from /proc/kallsyms. Those of a module's `init`, which the
kernel forgets at once, are learnt from reports: the same object, once with names, later without.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import stat
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakscope.proc.kernel_frames import KernelFrame, parse_frame
from leakscope.proc.kernel_modules import read_module_symbols, read_modules
from leakscope.proc.text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.formats.kmemleak import KmemleakObject

__all__ = ["ModuleMap", "state_folder"]

_NAME = "kernel-modules.json"
_MOST_FILE = 64 << 20
_MOST_SYMBOLS = 400_000
_MOST_OBJECTS = 20_000
_FARTHEST = 1 << 16  # bytes behind the start of a function that still belong to it


@dataclass(slots=True)
class ModuleMap:
    """Modules by name with their functions, and the stacks of objects that were seen with names."""

    boot_id: str
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    stacks: dict[str, list[str]] = field(default_factory=dict)  # "ADDRESS/JIFFIES": frames
    learnt: dict[int, KernelFrame] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()
    _symbols: list[tuple[int, str, str]] | None = None  # of modules that are gone, ascending

    @classmethod
    def now(cls, folder: Path | None = None) -> ModuleMap:
        """Return what was kept since the boot, with what is loaded now added to it."""
        found = cls((read_text("/proc/sys/kernel/random/boot_id", 64) or "").strip())
        if folder is not None:
            found._read(folder / _NAME)
        found._add_loaded()
        return found

    def _read(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return
            try:
                kept = json.loads(file.read(_MOST_FILE))
                if kept["boot_id"] != self.boot_id:
                    return
                self.modules = {
                    str(name): {
                        "start": int(one["start"]),
                        "seen": float(one["seen"]),
                        "functions": [(int(at), str(text)) for at, text in one["functions"]],
                    }
                    for name, one in kept["modules"].items()
                }
                self.stacks = {
                    str(key): [str(text) for text in frames]
                    for key, frames in kept["stacks"].items()
                }
                for address, text in kept["learnt"].items():
                    frame = parse_frame(str(text))
                    if frame is not None:
                        self.learnt[int(address, 16)] = frame
            except (ValueError, KeyError, TypeError, AttributeError):
                self.modules, self.stacks, self.learnt = {}, {}, {}

    def _add_loaded(self) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        loaded = {module.name: module for module in read_modules()}
        self.loaded = frozenset(loaded)
        functions: dict[str, list[tuple[int, str]]] = {}
        count = 0
        for symbol in read_module_symbols():
            if symbol.module in loaded and count < _MOST_SYMBOLS:
                functions.setdefault(symbol.module, []).append((symbol.address, symbol.name))
                count += 1
        for name, module in loaded.items():
            if name in functions:
                self.modules[name] = {
                    "start": module.address,
                    "seen": now,
                    "functions": functions[name],
                }

    def save(self, folder: Path) -> bool:
        """Keep the map; whether that could be done."""
        document = {
            "boot_id": self.boot_id,
            "modules": self.modules,
            "stacks": self.stacks,
            "learnt": {f"{at:x}": _text(frame) for at, frame in self.learnt.items()},
        }
        temporary = None
        try:
            fd, temporary = tempfile.mkstemp(prefix=f".{_NAME}.", dir=folder)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(document, file, separators=(",", ":"))
            Path(temporary).replace(folder / _NAME)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
            return False
        return True

    def meet(self, one: KmemleakObject) -> tuple[KernelFrame, ...]:
        """Return the frames of an object, with names where something kept tells them."""
        bare = any(frame.function is None for frame in one.frames)
        if not bare and not any(frame.module for frame in one.frames):
            return tuple(one.frames)
        key = f"{one.address or 0:x}/{one.jiffies or 0}"
        if not bare:
            if len(self.stacks) < _MOST_OBJECTS or key in self.stacks:
                self.stacks[key] = [_text(frame) for frame in one.frames]
            return tuple(one.frames)
        before = self.stacks.get(key, ())
        if len(before) == len(one.frames):
            for text, frame in zip(before, one.frames, strict=True):
                then = parse_frame(text)
                if frame.function is None and frame.address and then is not None and then.function:
                    self.learnt[frame.address] = then
        return tuple(self.named(frame) for frame in one.frames)

    def named(self, frame: KernelFrame) -> KernelFrame:
        """Return a frame that has an address alone under its name, if one is kept."""
        if frame.function is not None or frame.address is None:
            return frame
        learnt = self.learnt.get(frame.address)
        if learnt is not None:
            return learnt
        symbols = self._gone()
        at = bisect.bisect_right(symbols, (frame.address, "\uffff", "")) - 1
        if at < 0:
            return frame
        start, name, module = symbols[at]
        if frame.address - start >= _FARTHEST:
            return frame
        return KernelFrame(name, frame.address - start, None, module)

    def _gone(self) -> list[tuple[int, str, str]]:
        """Return the functions of modules that are loaded no more.

        Another module may lie where one was: of two, the one that was there last counts.
        """
        if self._symbols is None:
            gone = sorted(
                (
                    (one["seen"], name)
                    for name, one in self.modules.items()
                    if name not in self.loaded
                ),
                reverse=True,
            )
            taken: list[tuple[int, int]] = []
            symbols: list[tuple[int, str, str]] = []
            for _, name in gone:
                own = self.modules[name]["functions"]
                if not own:
                    continue
                low, high = own[0][0], own[-1][0]
                if any(low <= end and start <= high for start, end in taken):
                    continue
                taken.append((low, high))
                symbols += [(at, text, name) for at, text in own]
            self._symbols = sorted(symbols)
        return self._symbols


def _text(frame: KernelFrame) -> str:
    """Return the frame as the kernel writes it."""
    if frame.function is None:
        return f"0x{frame.address or 0:x}"
    place = "" if frame.offset is None else f"+0x{frame.offset:x}/0x{frame.size or 0:x}"
    return f"{frame.function}{place}" + (f" [{frame.module}]" if frame.module else "")


def state_folder() -> Path | None:
    """Return the folder where this user's knowledge of this boot is kept; None where there is none."""
    candidates: Iterable[Path]
    if os.geteuid() == 0:
        candidates = (Path("/run/leakscope"),)
    else:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        candidates = (Path(home) / "leakscope",)
    for folder in candidates:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(folder)
        except OSError:
            continue
        private = not status.st_mode & 0o022
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and private:
            return folder
    return None
