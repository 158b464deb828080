# SPDX-License-Identifier: Apache-2.0
"""Files and lines of kernel frames, from vmlinux or a module's debug information where it is.

As the kernel's own faddr2line does: `name+0xOFF/0xSIZE` is the function of that name and size, and
the place before the offset, which is where the call returns to. Nothing is guessed: an image of
another build, or a name that several functions of one size have, gives no line.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import SymbolError
from leakscope.kernel.linked import build_id_of, link_module, read_image
from leakscope.model.frames import Address, Module
from leakscope.symbols import Symbolizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from leakscope.kernel.linked import KernelImage
    from leakscope.proc.kernel_frames import KernelFrame

__all__ = ["KernelLines"]

_MOST_NOTES = 1 << 16
_MOST_FOLDERS = 20_000  # that are looked through for a module's file


class KernelLines:
    """Looks up lines. `folders` are searched first, `vmlinux` names the kernel's own image."""

    def __init__(
        self, folders: Sequence[str] = (), vmlinux: str | None = None, *, debuginfod: bool = True
    ) -> None:
        self._folders = tuple(folders)
        self._vmlinux = vmlinux
        self._debuginfod = debuginfod
        self.notes: list[str] = []
        """What could not be had, in sentences."""

    def resolve(self, frames: Iterable[KernelFrame]) -> dict[KernelFrame, tuple[KernelFrame, ...]]:
        """Return what each frame stands for, inlined functions first; itself where nothing is known."""
        wanted: dict[str | None, set[KernelFrame]] = defaultdict(set)
        for frame in frames:
            if frame.function is not None and frame.offset is not None and frame.line is None:
                wanted[frame.module].add(frame)
        found: dict[KernelFrame, tuple[KernelFrame, ...]] = {}
        without: list[str] = []
        for module, own in wanted.items():
            known = self._of_image(module, own)
            if not known:
                without.append(module or "the kernel itself")
            found |= known
        if without:
            names = ", ".join(sorted(without)[:4]) + (", …" if len(without) > 4 else "")
            self.notes.append(
                f"no lines for {names}: install the kernel's debug package"
                f" (linux-image-{os.uname().release}-dbg), or name the files with --vmlinux and"
                " --debug-dir"
            )
        return found

    def _of_image(
        self, module: str | None, frames: set[KernelFrame]
    ) -> dict[KernelFrame, tuple[KernelFrame, ...]]:
        names = {frame.function for frame in frames if frame.function is not None}
        running = _running_build_id(module)
        for path in self._vmlinuxes() if module is None else self._modules(module):
            try:
                image = read_image(path, names)
            except SymbolError as error:
                if path == self._vmlinux:
                    self.notes.append(str(error))
                continue
            if running is not None and image.build_id not in (None, running):
                self.notes.append(f"{path} is of another build than what runs: not used")
                continue
            found = self._look_up(path, image, frames)
            if found:
                return found
        return {}

    def _look_up(
        self, path: str, image: KernelImage, frames: set[KernelFrame]
    ) -> dict[KernelFrame, tuple[KernelFrame, ...]]:
        places = {}
        for frame in frames:
            start = image.find(frame.function or "", frame.size)
            if start is not None:
                places[frame] = Address(0, start + (frame.offset or 0))
        if not places:
            return {}
        with tempfile.TemporaryDirectory(prefix="leakscope-kernel-") as folder:
            readable = path
            if image.relocatable:
                readable = str(Path(folder) / Path(path).name)
                try:
                    link_module(path, readable)
                except (SymbolError, OSError) as error:
                    self.notes.append(f"{path}: {error}")
                    return {}
            module = Module(readable, image.build_id, 0, 1 << 64, 0)
            with Symbolizer(
                [module],
                debug_dirs=() if image.relocatable else self._folders,
                debuginfod=self._debuginfod,
                cache_dir="" if image.relocatable else None,
            ) as symbolizer:
                resolved = symbolizer.resolve(places.values())
        found = {}
        for frame, address in places.items():
            chain = resolved[address]
            if chain and chain[-1].line is not None:
                found[frame] = tuple(
                    frame._replace(
                        function=one.function or frame.function,
                        file=_source(one.file),
                        line=one.line,
                        inlined=number < len(chain) - 1,
                    )
                    for number, one in enumerate(chain)
                )
        return found

    def _vmlinuxes(self) -> Iterator[str]:
        release = os.uname().release
        if self._vmlinux is not None:
            yield self._vmlinux
            return
        places = [f"{folder}/vmlinux" for folder in self._folders]
        places += [f"{folder}/vmlinux-{release}" for folder in self._folders]
        places += [
            f"/usr/lib/debug/boot/vmlinux-{release}",
            f"/usr/lib/debug/lib/modules/{release}/vmlinux",
            f"/lib/modules/{release}/build/vmlinux",
            f"/boot/vmlinux-{release}",
        ]
        yield from (place for place in places if os.path.isfile(place))

    def _modules(self, name: str) -> Iterator[str]:
        """Yield files of a module: `-` and `_` are the same in their names."""
        release = os.uname().release
        debug, own = f"/usr/lib/debug/lib/modules/{release}", f"/lib/modules/{release}"
        wanted = {f"{name}.ko", f"{name}.ko.debug"}
        for folder in (*self._folders, debug, own):
            for number, (place, _, files) in enumerate(os.walk(folder)):
                if number > _MOST_FOLDERS:
                    break
                yield from (f"{place}/{f}" for f in files if f.replace("-", "_") in wanted)


def _running_build_id(module: str | None) -> str | None:
    """Return the build-id of what runs; None where the kernel does not tell it."""
    path = "/sys/kernel/notes"
    if module is not None:
        path = f"/sys/module/{module}/notes/.note.gnu.build-id"
    try:
        with open(path, "rb") as file:
            return build_id_of(file.read(_MOST_NOTES))
    except OSError:
        return None


def _source(path: str | None) -> str | None:
    """Return a path as the kernel's developers write it, below the top of the sources."""
    if path is None:
        return None
    for folder in ("/mm/", "/kernel/", "/drivers/", "/fs/", "/net/", "/arch/", "/lib/", "/block/"):
        head, found, rest = path.partition(folder)
        if found and ("linux" in head or "kernel" in head) and head.startswith("/"):
            return folder[1:] + rest
    return path.removeprefix("./")
