# SPDX-License-Identifier: Apache-2.0
"""Whether the freezer of control groups, version 1 or 2, holds a process where it is."""

from __future__ import annotations

from leakscope.proc.cgroup import mounted
from leakscope.proc.text import read_text

__all__ = ["freezing_cgroup"]

_MOST_BYTES = 1 << 16


def freezing_cgroup(pid: int) -> str | None:
    """Return the cgroup in which the process is frozen, as /proc/PID/cgroup names it.

    None: it is not frozen, or it cannot be told from here. The kernel reports a cgroup as frozen
    also where it is one above it that was told to freeze.
    """
    mounts = _mounts(read_text("/proc/self/mountinfo") or "")
    for line in (read_text(f"/proc/{pid}/cgroup", _MOST_BYTES) or "").split("\n"):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if "freezer" in controllers.split(","):
            state = _read(mounts, "freezer", path, "freezer.state")
            # FREEZING: some of its processes are still on their way.
            if state.strip() in {"FROZEN", "FREEZING"}:
                return path
        elif number == "0" and "frozen 1" in _read(mounts, "", path, "cgroup.events").split("\n"):
            return path
    return None


def _read(mounts: dict[str, str], controller: str, path: str, name: str) -> str:
    root = mounts.get(controller)
    if root is None:
        return ""
    return read_text(f"{root}{path.rstrip('/')}/{name}", _MOST_BYTES) or ""


def _mounts(mountinfo: str) -> dict[str, str]:
    """Return where the freezer of version 1 ("freezer") and version 2 ("") are mounted."""
    found: dict[str, str] = {}
    for version, controllers, mount in mounted(mountinfo):
        if version == 2:
            found.setdefault("", mount)
        elif "freezer" in controllers:
            found.setdefault("freezer", mount)
    return found
