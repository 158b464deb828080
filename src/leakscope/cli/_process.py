# SPDX-License-Identifier: Apache-2.0
"""The process of the command `leakscope`: how it begins and how it ends.

Both cost more than what a short run is looked at for, so they are kept short.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading

from leakscope.cli import main

__all__ = ["command"]

# New objects until garbage is looked for. Loading a module makes thousands, and none is garbage.
_OBJECTS = 20_000


def command() -> int:
    """Run the command that this process was started for, and end the process.

    Returns the exit status only where the process has to end the usual way.
    """
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
    status = main()
    if threading.active_count() > 1 and any(
        not each.daemon for each in threading.enumerate() if each is not threading.main_thread()
    ):
        return status
    atexit._run_exitfuncs()  # noqa: SLF001 - as the interpreter does, and multiprocessing
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return status
    # What the interpreter would do now is to take every module apart: a sixth of a short run.
    os._exit(status)
