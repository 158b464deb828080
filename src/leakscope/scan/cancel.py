# SPDX-License-Identifier: Apache-2.0
"""A scan that Ctrl-C ends at once, although most of its time is spent in native code."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from leakscope.target.lease import terminal_stops_wait
from leakscope.target.library import library

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cancellable"]

T = TypeVar("T")
_LOOK_S = 0.1  # a signal wakes us, but not if it comes right before we begin to wait


def cancellable(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises.

    It runs in a thread, so that this one sees signals. When one of them raises an exception here,
    as Ctrl-C does, the native code is told to give up, and the exception goes on once `work` has
    put away what it used.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the other thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with terminal_stops_wait():
            while thread.is_alive():
                thread.join(_LOOK_S)
    except BaseException:
        library().lss_cancel(True)
        try:
            thread.join()
        finally:
            library().lss_cancel(False)
        raise
    if errors:
        raise errors[0]
    return results[0]
