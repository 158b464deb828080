# SPDX-License-Identifier: Apache-2.0
"""The environment in which a program records itself, for one that starts itself anew."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from leakscope.trace._preload import agent_path, preload_value, safe_copy
from leakscope.trace.output import make_live_directory, plan_output, private_part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from leakscope.trace.settings import Settings

__all__ = ["recording_environment"]


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
        shutil.rmtree(private_part(directory), ignore_errors=True)
        raise
    found["LD_PRELOAD"] = preload_value(preloaded, environment)
    found["LEAKSCOPE_KEEP"] = str(keep)
    found.pop("LEAKSCOPE_SCAN", None)  # nobody waits for its end
    return found, directory
