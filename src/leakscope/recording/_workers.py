# SPDX-License-Identifier: Apache-2.0
"""Threads for large tables, which small ones neither start nor import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Workers"]

R = TypeVar("R")


class Workers:
    """A context manager with up to `count` threads, which are started when they are first needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def map(
        self, work: Callable[..., R], *columns: Iterable[object], alone: bool = False
    ) -> Iterator[R]:
        """Yield what `work` returns, in order; `alone` does it here, without threads."""
        if alone:
            return map(work, *columns)
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._count)
        return self._pool.map(work, *columns)
