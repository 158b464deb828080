# SPDX-License-Identifier: Apache-2.0
"""The environment in which a program records itself, for one that starts itself anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.trace._preload import agent_path, preload_value, safe_copy
from leakscope.trace.live_files import list_live_files
from leakscope.trace.output import make_live_directory, plan_output, private_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leakscope.trace.settings import Settings

__all__ = ["recording_environment", "remove_live_directory", "without_agent"]


def recording_environment(
    settings: Settings, environment: Mapping[str, str], *, keep: int
) -> tuple[dict[str, str], Path]:
    """Return the environment with the agent in it, and the directory that it records into.

    `keep` bounds the recordings of processes that have ended. The directory is the caller's to
    remove. Raises `TargetError`, `RecordingError` or `UsageError` where it cannot be.
    """
    agent = agent_path()
    directory = make_live_directory(plan_output("/tmp"))  # noqa: S108 - where /dev/shm has no room
    try:
        preloaded = safe_copy(agent, directory)
        found = {**environment, **settings.environment(str(directory))}
    except BaseException:
        remove_live_directory(directory)
        raise
    found["LD_PRELOAD"] = preload_value(preloaded, environment)
    found["LEAKSCOPE_KEEP"] = str(keep)
    found.pop("LEAKSCOPE_SCAN", None)  # nobody waits for its end
    return found, directory


def without_agent(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which nothing is recorded, and what else is preloaded stays."""
    name = agent_path().name
    found = {key: value for key, value in environment.items() if not key.startswith("LEAKSCOPE_")}
    kept = environment.get("LD_PRELOAD", "").replace(":", " ").split()
    kept = [word for word in kept if Path(word).name != name]
    found.pop("LD_PRELOAD", None)
    return found | ({"LD_PRELOAD": ":".join(kept)} if kept else {})


def remove_live_directory(directory: Path) -> None:
    """Remove a directory of `recording_environment`, once nobody records into it any more."""
    running = any(
        file.is_mapped() and file.pid != os.getpid() for file in list_live_files(directory)
    )
    if not running:
        shutil.rmtree(private_part(directory), ignore_errors=True)
