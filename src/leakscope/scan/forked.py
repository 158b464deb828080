# SPDX-License-Identifier: Apache-2.0
"""The memory of a process at one moment, as a copy-on-write copy: it goes on at once.

`open_image` gives the image with the shortest pause that can be had.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.isolated import module_command, module_environment
from leakscope.proc.maps import Mapping, read_maps
from leakscope.scan.frozen import Frozen, Thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Forked", "open_image"]


_RELEASE_S = 5.0


class Forked:
    """A context manager over a copy of the process `target`, which is stopped for the fork alone.

    Has what `Frozen` has; `pid` is that of the copy. When no copy can be made, `refused` says
    why, and the rest is empty. Raises `TargetError` as `Frozen` does.
    """

    method = "forked"

    def __init__(self, target: int) -> None:
        self.target = target
        self.pid = 0
        self.refused: str | None = None
        self.threads: tuple[Thread, ...] = ()
        self.mappings: tuple[Mapping, ...] = ()
        self.paused_ns = 0
        self._helper: subprocess.Popen[bytes] | None = None
        self._memory = -1

    def __enter__(self) -> Self:
        self._helper = subprocess.Popen(
            module_command("leakscope.scan._forker", str(self.target)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=module_environment(),
        )
        try:
            assert self._helper.stdout is not None
            line = self._helper.stdout.readline()
            answer: dict[str, Any] = json.loads(line) if line else {"refused": "no answer"}
            if "error" in answer:
                raise TargetError(answer["error"], hint=answer["hint"])
            self.refused = answer.get("refused")
            if self.refused is None:
                self._open(answer)
        except BaseException:
            self.release()
            raise
        return self

    def _open(self, answer: dict[str, Any]) -> None:
        self.pid, self.paused_ns = int(answer["image"]), int(answer["paused_ns"])
        self.threads = tuple(
            Thread(tid, sp, pc, tls, np.frombuffer(base64.b64decode(words), np.uint64))
            for tid, sp, pc, tls, words in answer["threads"]
        )
        self.mappings = read_maps(self.pid)
        try:
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TargetError(
                f"the copy of process {self.target} cannot be read: {error.strerror}"
            ) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where they cannot be read."""
        try:
            return os.pread(self._memory, size, address)
        except (OSError, OverflowError):
            return b""

    def check(self) -> None:
        """Raise `TargetError` when the copy is gone: what was read of it says nothing."""
        if not any(self.read(mapping.start, 1) for mapping in self.mappings[:8]):
            raise TargetError(f"the copy of process {self.target} was killed while it was scanned")

    def release(self) -> None:
        """Remove the copy. May be called more than once."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
        if self._helper is not None:
            helper, self._helper = self._helper, None
            try:
                helper.communicate(timeout=_RELEASE_S)
            except subprocess.TimeoutExpired:
                # The target is stopped, or somebody else's just now: the helper goes on alone.
                threading.Thread(target=helper.wait, daemon=True).start()


@contextlib.contextmanager
def open_image(pid: int) -> Iterator[Frozen | Forked]:
    """Yield a copy of the process, or the process itself standing still when there can be none."""
    with Forked(pid) as forked:
        if forked.refused is None:
            yield forked
            return
    with Frozen(pid) as frozen:
        yield frozen
