# SPDX-License-Identifier: Apache-2.0
"""Who is told how far the reading of a long file is; apart, because few commands read such files."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TELL", "reading_told"]

TELL: ContextVar[Callable[[str, float], None] | None] = ContextVar("tell", default=None)


@contextlib.contextmanager
def reading_told(tell: Callable[[str, float], None]) -> Iterator[None]:
    """Call `tell` with the path, and the share read (0 to 1), while long files are read."""
    token = TELL.set(tell)
    try:
        yield
    finally:
        TELL.reset(token)
