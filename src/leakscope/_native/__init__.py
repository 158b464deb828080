# SPDX-License-Identifier: Apache-2.0
"""Where the built agent and the small native programs are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from leakscope._paths import absolute, is_file

__all__ = ["AGENT", "BESIDE", "EXEC", "INJECTED", "path"]

AGENT = "libleakscope-agent.so"
"""File name of the library that is preloaded into traced programs."""

INJECTED = "libleakscope-inject.so"
"""File name of the agent that is mapped into running processes (native/agent/door_inject.c)."""

EXEC = "leakscope-exec"
"""File name of the program that becomes the traced one (native/start/exec.c)."""

BESIDE = "libleakscope-beside.so"
"""File name of the library that is preloaded beside other tools (native/drive/beside.c)."""


def path(name: str) -> Path:
    """Return where the native file `name` is; it need not exist.

    For development, the environment variable LEAKSCOPE_AGENT names another build of the agent.
    """
    override = os.environ.get("LEAKSCOPE_AGENT")
    if override and name == AGENT:
        return absolute(override)
    # Wheels are always unpacked, and a library must be a real file to be preloaded. An editable
    # install keeps built files in site-packages, apart from this folder's sources.
    beside = Path(__file__).with_name(name)
    others = (Path(entry, "leakscope", "_native", name) for entry in sys.path if entry)
    return next((absolute(p) for p in (beside, *others) if is_file(p)), beside)
