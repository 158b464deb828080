# SPDX-License-Identifier: Apache-2.0
"""The memory of the running kernel, or of a dump of one, read by drgn with the kernel's own types."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakscope.errors import SymbolError, TargetError
from leakscope.kernel.mounts import lockdown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KernelMemory", "open_kernel_memory"]

_KCORE = "/proc/kcore"
_MOST_MODULES = 20_000
_DUMPS = "kdump and `virsh dump` make dumps of a kernel."


@dataclass(frozen=True, slots=True)
class KernelMemory:
    """A kernel that can be read. `program` is drgn's."""

    program: Any
    source: str
    live: bool

    @property
    def release(self) -> str:
        """Return the kernel's version, "6.12.117"."""
        text: bytes = self.program["init_uts_ns"].name.release.string_()
        return text.decode("ascii", "replace")


def open_kernel_memory(
    vmcore: str | None = None, vmlinux: str | None = None, folders: Sequence[str] = ()
) -> KernelMemory:
    """Open the running kernel, or the dump `vmcore`, with the types of `vmlinux`.

    Without `vmlinux` it is looked for where debug packages put it; `folders` may have modules.
    Raises `TargetError` where memory cannot be read, `SymbolError` where types are missing.
    """
    try:
        import drgn
    except ImportError as error:
        raise TargetError(
            "drgn is not installed, which reads the kernel's memory",
            hint="pip install drgn (it has wheels for x86-64).",
        ) from error
    logging.getLogger("drgn").setLevel(logging.CRITICAL)  # what it cannot find, we say
    program = drgn.Program()
    try:
        if vmcore is None:
            _check_kcore()
            program.set_kernel()
        else:
            _check_file(vmcore)
            program.set_core_dump(vmcore)
    except (OSError, ValueError, LookupError, drgn.FaultError) as error:
        raise TargetError(
            f"{vmcore or _KCORE} cannot be read as the memory of a kernel: {_first_line(error)}",
            hint=_DUMPS if vmcore else None,
        ) from error
    if not program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise TargetError(f"{vmcore} is no dump of a kernel", hint=_DUMPS)
    _load_types(program, vmlinux, folders)
    return KernelMemory(program, vmcore or _KCORE, vmcore is None)


def _check_kcore() -> None:
    """Raises `TargetError` with what is in the way of the running kernel's memory."""
    try:
        os.close(os.open(_KCORE, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise TargetError(
            f"this kernel does not show its memory: there is no {_KCORE}",
            hint="To have it: CONFIG_PROC_KCORE=y; or give a dump of a kernel: --vmcore FILE.",
        ) from None
    except OSError as error:
        mode = lockdown()
        if mode is not None and os.geteuid() == 0:
            raise TargetError(
                f"{_KCORE} cannot be read: the kernel is locked down ({mode})",
                hint="Boot without lockdown (it comes with Secure Boot), or give --vmcore FILE.",
            ) from error
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise TargetError(
            f"{_KCORE} cannot be read: {error.strerror}",
            hint="It takes root; in a container, CAP_SYS_RAWIO as well." if denied else None,
        ) from error


def _check_file(path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise TargetError(f"{path} cannot be read: {error.strerror}") from error


def _load_types(program: Any, vmlinux: str | None, folders: Sequence[str]) -> None:
    import drgn

    program.set_enabled_debug_info_finders(["standard"])  # nothing is fetched from elsewhere
    paths = []
    if vmlinux is not None:
        _check_file(vmlinux)
        paths.append(vmlinux)
    for folder in folders:
        found = (str(path) for path in Path(folder).rglob("*.ko*"))
        paths += [path for path, _ in zip(found, range(_MOST_MODULES), strict=False)]
    try:
        program.load_debug_info(paths, default=vmlinux is None, main=vmlinux is None)
    except drgn.MissingDebugInfoError:
        pass  # of a module, or told below
    except (OSError, ValueError, LookupError, drgn.FaultError) as error:
        raise SymbolError(f"debug information cannot be read: {_first_line(error)}") from error
    try:
        program.type("struct kmem_cache")
        program["init_uts_ns"]
    except (LookupError, drgn.FaultError) as error:
        name = vmlinux or "the kernel's debug information"
        what = "is of another build, or has no types" if vmlinux else "is not found"
        raise SymbolError(
            f"{name} {what}: without types the kernel's memory tells nothing",
            hint=f"Install linux-image-{os.uname().release}-dbg, or name the file: --vmlinux FILE.",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:300] or type(error).__name__
