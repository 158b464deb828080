# SPDX-License-Identifier: Apache-2.0
"""What is asked inside the tested process, with as little of leakscope loaded as can be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["DIRECTORY", "clean_up", "own_recording", "without_agent"]

DIRECTORY = "LEAKSCOPE_PYTEST"
"""The variable that names the directory that the plugin made, and the process that began with it."""

_AGENT = "libleakscope-agent"


def own_recording() -> str | None:
    """Return the path of the recording that the agent in this process writes; None without one."""
    found = None
    with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(None, 5)
            if len(fields) == 6 and fields[1].endswith("s") and fields[5].endswith(".live"):
                found = fields[5]
    return found


def without_agent() -> dict[str, str]:
    """Return our environment as it is for a program that is not to be recorded."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("LEAKSCOPE_")}
    kept = found.pop("LD_PRELOAD", "").replace(":", " ").split()
    kept = [word for word in kept if not Path(word).name.startswith(_AGENT)]
    return found | ({"LD_PRELOAD": ":".join(kept)} if kept else {})


def clean_up() -> None:
    """Remove what was made for the agent, in the process that began with it."""
    owner, _, directory = os.environ.get(DIRECTORY, "").partition(":")
    if directory and owner == str(os.getpid()):
        shutil.rmtree(directory, ignore_errors=True)
