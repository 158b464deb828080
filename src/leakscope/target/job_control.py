# SPDX-License-Identifier: Apache-2.0
"""Ctrl-Z that waits until nobody stands still for us: else they would until we go on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["stopped_afterwards"]


@contextlib.contextmanager
def stopped_afterwards() -> Iterator[None]:
    """Put off a stop by the terminal (SIGTSTP) that comes inside until the end of the block.

    Where that signal is ignored, or somebody handles it, that stays so. Only the first thread may
    set handlers: in others nothing is done.
    """
    is_first = threading.current_thread() is threading.main_thread()
    if not is_first or signal.getsignal(signal.SIGTSTP) != signal.SIG_DFL:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGTSTP, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        if came:
            os.kill(os.getpid(), signal.SIGTSTP)
