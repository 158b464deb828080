# SPDX-License-Identifier: Apache-2.0
"""The terminal of a live screen: whether it is still there, and its own colours, its keys."""

from __future__ import annotations

import contextlib
import select
import sys
from typing import IO, TYPE_CHECKING

from textual.app import App

from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    from collections.abc import Container

    from textual.driver import Driver

__all__ = ["LiveApp", "is_gone", "theme_of"]

_THEMES = ("ansi-dark", "textual-ansi")  # what versions of textual call it


def theme_of(available: Container[str], otherwise: str) -> str:
    """Return the theme that paints with the terminal's own colours, else `otherwise`."""
    return next((name for name in _THEMES if name in available), otherwise)


def is_gone() -> bool:
    """Whether the other end of the terminal was closed, which not everybody gets a signal for.

    Textual would go on to read the end of its input as fast as it can.
    """
    if sys.__stdin__ is None:
        return False
    poll = select.poll()
    try:
        poll.register(sys.__stdin__.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & select.POLLHUP for _, event in poll.poll(0))


class _Output:
    """What a terminal is written to through, to which nothing is written when it is gone.

    Textual's thread for this would end with an error, and whoever waits for it would do so for ever.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


class LiveApp(App[None]):
    """A screen that no key ends but its own, and that tells when it ended by an error."""

    def get_driver_class(self) -> type[Driver]:
        """Return the driver of this system, which also takes keys that are no UTF-8.

        Textual ends at the first such byte: a terminal that is set to Latin-1 sends one for "é". And
        it outlives its terminal, so that the screen ends.
        """
        base = super().get_driver_class()
        read_keys = getattr(base, "run_input_thread", None)
        if read_keys is None:
            return base

        def run_input_thread(driver: Driver) -> None:
            while True:
                try:
                    read_keys(driver)
                except UnicodeDecodeError:
                    continue  # what was typed with it is lost
                return

        def start_application_mode(driver: Driver) -> None:
            file = getattr(driver, "_file", None)
            if file is not None and not isinstance(file, _Output):
                driver._file = _Output(file)  # type: ignore[attr-defined]  # noqa: SLF001
            base.start_application_mode(driver)

        own = {
            "run_input_thread": run_input_thread,
            "start_application_mode": start_application_mode,
        }
        return type("TolerantDriver", (base,), own)

    def check_end(self) -> None:
        """Raise `LeakscopeError` when an error ended it, which Textual has printed."""
        if self.return_code:
            raise LeakscopeError(
                "the screen ended by a bug in leakscope",
                hint="Please report it with what stands above.",
            )
