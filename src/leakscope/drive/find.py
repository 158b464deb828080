# SPDX-License-Identifier: Apache-2.0
"""Where a tool is on this machine; where it is not, which Debian package has it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

from leakscope._paths import absolute, is_directory, is_file
from leakscope.errors import TargetError, UsageError

__all__ = ["find_command", "find_library", "missing"]

_FOLDERS = (
    "/usr/local/lib",
    f"/usr/lib/{platform.machine()}-linux-gnu",
    f"/lib/{platform.machine()}-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/lib",
)
_UNUSABLE = frozenset(" :$\t\n;")  # in LD_PRELOAD


def find_command(name: str, package: str | None, *, tool_path: str | None = None) -> str:
    """Return the program `name`: of PATH, or what `tool_path` names (a file or its folder).

    Raises `TargetError` when it is not there, with the package to install.
    """
    if tool_path is not None:
        found = _given(tool_path, (name,))
        if not os.access(found, os.X_OK):
            raise UsageError(f"{found} may not be executed by this user")
        return found
    path = shutil.which(name)
    if path is None:
        raise missing(name, package)
    return path


def find_library(
    names: tuple[str, ...],
    package: str | None,
    *,
    folders: tuple[str, ...] = (),
    tool_path: str | None = None,
) -> str:
    """Return the path of the first of these libraries that is there, for LD_PRELOAD.

    `folders` are searched first. Raises `TargetError` when there is none.
    """
    if tool_path is not None:
        found = _given(tool_path, names)
        if _UNUSABLE.intersection(found):
            raise UsageError(
                f"the path {found} holds a character that LD_PRELOAD cannot",
                hint="Copy the library to a path without blanks, colons and dollar signs.",
            )
        return found
    listed = _listed()
    for name in names:
        for folder in (*folders, *os.environ.get("LD_LIBRARY_PATH", "").split(":"), *_FOLDERS):
            path = f"{folder}/{name}"
            if folder.startswith("/") and is_file(path) and not _UNUSABLE.intersection(path):
                return path
        if name in listed:
            return listed[name]
    raise missing(names[0], package)


def missing(name: str, package: str | None) -> TargetError:
    """Return the error for a tool that is not on this machine."""
    if package is None:
        return TargetError(
            f"{name} is not on this machine, and Debian has no package of it",
            hint="Build it, and say where it is: --tool-path PATH",
        )
    return TargetError(f"{name} is not on this machine", hint=f"Install it: apt install {package}")


def _given(path: str, names: tuple[str, ...]) -> str:
    for name in names if is_directory(path) else ():
        if is_file(f"{path}/{name}"):
            return str(absolute(f"{path}/{name}"))
    if is_directory(path):
        raise UsageError(f"there is no {' or '.join(names)} in {path}")
    if not is_file(path):
        raise UsageError(f"--tool-path {path}: there is no such file")
    return str(absolute(path))


def _listed() -> dict[str, str]:
    """Return the libraries of our machine that the loader knows, by name."""
    command = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if command is None:
        return {}
    try:
        done = subprocess.run(
            [command, "-p"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    wanted = {"x86_64": "x86-64", "aarch64": "AArch64"}.get(platform.machine(), "")
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow and wanted in name:
            found.setdefault(name.split()[0], path)
    return found
