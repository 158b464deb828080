# SPDX-License-Identifier: Apache-2.0
"""Where the built agent and the small native programs are."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

__all__ = ["AGENT", "path"]

AGENT = "libleakscope-agent.so"
"""File name of the library that is preloaded into traced programs."""


def path(name: str) -> Path:
    """Return where the native file `name` is; it need not exist.

    For development, the environment variable LEAKSCOPE_AGENT names another build of the agent.
    """
    override = os.environ.get("LEAKSCOPE_AGENT")
    if override and name == AGENT:
        return Path(override).absolute()
    # Wheels are always unpacked, and a library must be a real file to be preloaded. Asked of the
    # top package: an editable install keeps built files apart from this folder's sources.
    return Path(str(files("leakscope").joinpath("_native", name))).absolute()
