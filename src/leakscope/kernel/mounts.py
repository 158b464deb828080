# SPDX-License-Identifier: Apache-2.0
"""The kernel's debug file system, mounted for us alone where nobody mounted it."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass

from leakscope.proc.text import read_lines, read_text

__all__ = ["DebugFiles", "lockdown", "open_debug_files"]

_USUAL = "/sys/kernel/debug"
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE, _MS_SLAVE = 0x4000, 1 << 18, 1 << 19
_MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class DebugFiles:
    """Where debugfs is. `root` is None where it cannot be had, and `why` says why."""

    root: str | None
    why: str = ""
    step: str = ""  # what to do about it
    own: bool = False  # mounted by us, in a mount namespace that ends with this process

    def path(self, name: str) -> str | None:
        """Return the path of a file below it that is there, else None."""
        if self.root is None:
            return None
        path = f"{self.root}/{name}"
        return path if os.access(path, os.F_OK) else None


def open_debug_files(*, mount: bool = True) -> DebugFiles:
    """Find debugfs; with `mount`, mount it where it is not.

    That is done in a mount namespace of this process alone: nobody else sees it, and it is gone
    when the process ends, however it ends.
    """
    found = _mounted()
    if found is not None:
        if os.access(found, os.R_OK | os.X_OK):
            return DebugFiles(found)
        return DebugFiles(None, "debugfs may be read by root alone", "sudo leakscope kernel")
    if not any(line.split()[-1:] == ["debugfs"] for line in read_lines("/proc/filesystems")):
        return DebugFiles(None, "this kernel has no debugfs", "build it with CONFIG_DEBUG_FS=y")
    if os.geteuid() != 0:
        return DebugFiles(
            None, "debugfs is not mounted, and root alone may mount it", "sudo leakscope kernel"
        )
    if not mount:
        return DebugFiles(None, "debugfs is not mounted", f"mount -t debugfs none {_USUAL}")
    why = _mount()
    if why is not None:
        return DebugFiles(
            None, f"debugfs is not mounted, and cannot be: {why}", f"mount -t debugfs none {_USUAL}"
        )
    return DebugFiles(_USUAL, own=True)


def lockdown() -> str | None:
    """Return the kernel's lockdown mode, "integrity" or "confidentiality"; None for none."""
    text = read_text("/sys/kernel/security/lockdown", 256) or ""
    mode = text.partition("[")[2].partition("]")[0]
    return mode if mode not in ("", "none") else None


def _mounted() -> str | None:
    """Return where debugfs is mounted, the usual place first."""
    places = []
    for line in read_lines("/proc/self/mountinfo"):
        words = line.split(" ")
        if "-" not in words[6:] or words[3] != "/":
            continue
        if words[words.index("-", 6) + 1 :][:1] == ["debugfs"]:
            places.append(words[4].encode().decode("unicode_escape", "replace"))
    return _USUAL if _USUAL in places else next(iter(places), None)


def _mount() -> str | None:
    """Mount debugfs in a namespace of our own; return why it cannot be done, None when it was."""
    if not os.path.isdir(_USUAL):
        return f"there is no {_USUAL}"
    if _libc.unshare(_CLONE_NEWNS) != 0:
        return _reason()
    # Nothing that we mount is to reach others; what they mount may reach us.
    if _libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None) != 0:
        _libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
        if _shared():
            return "mounts of ours would be seen by others"
    flags = ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC)
    if _libc.mount(b"debugfs", _USUAL.encode(), b"debugfs", flags, None) != 0:
        return _reason()
    return None


def _shared() -> bool:
    return any(" shared:" in line for line in read_lines("/proc/self/mountinfo"))


def _reason() -> str:
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.EACCES):
        mode = lockdown()
        if mode is not None:
            return f"the kernel is locked down ({mode})"
        return "this needs CAP_SYS_ADMIN, which a container does not have"
    return os.strerror(number)
