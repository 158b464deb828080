# SPDX-License-Identifier: Apache-2.0
"""The value of LD_PRELOAD: the agent first, whatever was there before behind it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope import _native
from leakscope._paths import is_file
from leakscope.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["agent_path", "preload_value", "safe_copy"]

# The loader splits LD_PRELOAD at blanks and colons and expands $ORIGIN and its like.
_SEPARATORS = frozenset(" :$\t\n;")


def agent_path() -> Path:
    """Return where the agent is, or raise `TargetError` when this installation has none."""
    path = _native.path(_native.AGENT)
    if not is_file(path):
        raise TargetError(
            f"the agent {path} is missing from this installation",
            hint="Install leakscope from a wheel, or build it; LEAKSCOPE_AGENT names another one.",
        )
    if not os.access(path, os.R_OK):
        raise TargetError(f"the agent {path} may not be read by this user")
    return path


def preload_value(agent: Path, environment: Mapping[str, str]) -> str:
    """Return LD_PRELOAD with the agent in front of what the user preloads himself."""
    kept = [
        word
        for word in environment.get("LD_PRELOAD", "").replace(":", " ").split()
        if Path(word).name != agent.name
    ]
    return ":".join([str(agent), *kept])


def safe_copy(agent: Path, directory: Path) -> Path:
    """Return a path of the agent that LD_PRELOAD can hold: itself, or a copy.

    For root it is one that every user may read.

    The copy is made in `directory` or, when that allows no execution, in a new private
    directory. Raises `TargetError` when there is no such place.
    """
    everybody = os.geteuid() == 0  # who root's program may become has to load it as well
    if not _SEPARATORS.intersection(str(agent)) and (not everybody or _is_for_all(agent)):
        return agent
    for place in (directory, Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - mkdtemp below
        try:
            if _SEPARATORS.intersection(str(place)) or os.statvfs(place).f_flag & os.ST_NOEXEC:
                continue
            folder = (
                directory
                if place == directory
                else Path(tempfile.mkdtemp(prefix=f"leakscope-{os.geteuid()}-", dir=place))
            )
            if everybody and place != directory:
                folder.chmod(0o711)
            copy = Path(shutil.copyfile(agent, folder / agent.name))
        except OSError:
            continue
        copy.chmod(0o755 if everybody else 0o700)
        return copy
    raise TargetError(
        f"the agent's path {agent} holds a character that LD_PRELOAD cannot, and there is no"
        f" place to copy it to",
        hint="Install leakscope in a directory without blanks, colons and dollar signs.",
    )


def _is_for_all(agent: Path) -> bool:
    """Whether every user may read the file and enter the folders that lead to it."""
    try:
        real = agent.resolve(strict=True)
        places = [*agent.absolute().parents, *real.parents]
        folders = all(place.stat().st_mode & 0o001 for place in places)
        return folders and bool(real.stat().st_mode & 0o004)
    except OSError:
        return False
