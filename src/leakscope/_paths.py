# SPDX-License-Identifier: Apache-2.0
"""Questions about paths that have an answer in every place.

`pathlib` raises where a folder may not be read; here nothing is there that cannot be seen. Where
the current directory was removed, a relative path stays as it is.
"""

# ruff: noqa: PTH110, PTH111, PTH112, PTH113, PTH114 - that is what this file is for

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

__all__ = [
    "absolute",
    "as_typed",
    "current",
    "exists",
    "is_directory",
    "is_file",
    "is_link",
    "resolved",
    "users_home",
]

_Path: TypeAlias = str | os.PathLike[str]


def exists(path: _Path) -> bool:
    """Whether something is there."""
    return os.path.exists(path)


def is_file(path: _Path) -> bool:
    """Whether a regular file is there, or a link to one."""
    return os.path.isfile(path)


def is_directory(path: _Path) -> bool:
    """Whether a directory is there, or a link to one."""
    return os.path.isdir(path)


def is_link(path: _Path) -> bool:
    """Whether a symbolic link is there."""
    return os.path.islink(path)


def absolute(path: _Path) -> Path:
    """Return the path from the root on; unchanged when there is no current directory."""
    try:
        return Path(path).absolute()
    except OSError:
        return Path(path)


def as_typed(path: _Path) -> str:
    """Return the path as short as it can be typed in the current directory."""
    try:
        relative = os.path.relpath(path)
    except OSError:  # there is no here any more
        return str(path)
    return str(path) if relative.startswith("..") else relative


def current() -> str | None:
    """Return the current directory, None when it was removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def resolved(path: _Path) -> Path:
    """Return the path without symbolic links; unchanged when it cannot be followed."""
    try:
        return Path(os.path.realpath(path))
    except OSError:
        return Path(path)


def users_home() -> Path:
    """Return the user's home directory; the root directory when nothing says where it is."""
    home = os.path.expanduser("~")
    return Path(home if home.startswith("/") else "/")
