# SPDX-License-Identifier: Apache-2.0
"""The memory of a running process at one moment. It goes on at once, and notices nothing.

`open_image` gives the image that harms it least: a copy of its pages (`Copied`), or where that
would take too long a copy-on-write copy (`Forked`). `leakscope.target.imager` takes it. Where
neither may be, and the pause allowed is long enough, it is the process itself (`Frozen`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import os
import select
import signal
import subprocess
import threading
import time
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.isolated import module_command, module_environment
from leakscope.proc.maps import Mapping, parse_maps, read_maps
from leakscope.target.frozen import Frozen
from leakscope.target.lease import HELD_UP_S
from leakscope.target.memory import Range, Segment, Thread
from leakscope.target.pages import list_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]

__all__ = ["MAX_PAUSE_S", "Copied", "Forked", "Image", "open_image"]

R = TypeVar("R", bound=Range)
MAX_PAUSE_S = 0.1
_RELEASE_S = 5.0
_PLANNING_S = 120.0
_MARGIN_S = 1.0
_RUNS, _PIECE = 1 << 16, 1 << 20


class _Taken:
    """What both images have: who was stopped, for how long, and what was not seen."""

    method = ""

    def __init__(self, target: int, answer: dict[str, Any]) -> None:
        self.target = target
        self._seen = int(answer["seen"])  # the thread through which it is looked at
        self.paused_ns = int(answer["paused_ns"])
        self.threads = tuple(
            Thread(tid, sp, pc, tls, np.frombuffer(base64.b64decode(words), np.uint64))
            for tid, sp, pc, tls, words in answer["threads"]
        )
        self.notes = tuple(_notes(answer))
        self.refused: dict[str, str] = answer["refused"]


class Copied(_Taken):
    """The pages of a process that are its own, copied while it stood still.

    Has what `Frozen` has. What is the same as in a file is read from the process as it is now.
    """

    method = "copied"

    def __init__(self, target: int, answer: dict[str, Any], memory: int) -> None:
        super().__init__(target, answer)
        self.pid = 0  # of no process
        size, count, raw = (int(answer[name]) for name in ("copied", "runs", "raw"))
        self._buffer = mmap.mmap(memory, size + 16 * count + raw, mmap.MAP_SHARED, mmap.PROT_READ)
        self._bytes = np.frombuffer(self._buffer, np.uint8)
        self.mappings = parse_maps(self._bytes[size + 16 * count :].tobytes())
        self.spans: Words = np.frombuffer(self._buffer, np.uint64, 2 * count, size).reshape(-1, 2)
        sizes = (self.spans[:, 1] - self.spans[:, 0]).astype(np.int64)
        self._starts: list[int] = self.spans[:, 0].tolist()
        self._ends: list[int] = self.spans[:, 1].tolist()
        self._offsets: list[int] = (np.cumsum(sizes) - sizes).tolist()
        self._areas = [m.start for m in self.mappings]
        self._live = -1
        with contextlib.suppress(OSError):
            self._live = os.open(f"/proc/{self._seen}/mem", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The copied memory, for a `Marker`."""
        base = int(self._bytes.ctypes.data)
        runs = zip(self._starts, self._ends, self._offsets, strict=True)
        return tuple(Segment(start, end, base + offset) for start, end, offset in runs)

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where they cannot be read."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address + size <= self._ends[at]:
            offset = self._offsets[at] + address - self._starts[at]
            return self._bytes[offset : offset + size].tobytes()
        parts: list[bytes] = []
        end = address + size
        while address < end:
            part = self._piece(address, end)
            if not part:
                break
            parts.append(part)
            address += len(part)
        return b"".join(parts)

    def _piece(self, address: int, end: int) -> bytes:
        """Return some bytes from `address`: copied ones, zeros, or a file's."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address < self._ends[at]:
            end = min(end, self._ends[at])
            offset = self._offsets[at] + address - self._starts[at]
            return self._bytes[offset : offset + end - address].tobytes()
        if at + 1 < len(self._starts):
            end = min(end, self._starts[at + 1])
        area = bisect_right(self._areas, address) - 1
        if area < 0 or address >= self.mappings[area].end:
            return b""
        mapping = self.mappings[area]
        end = min(end, mapping.end)
        if not mapping.inode and not mapping.path.startswith("[v"):
            return bytes(end - address)
        try:
            return os.pread(self._live, end - address, address)
        except (OSError, OverflowError):
            return b""

    def split(self, ranges: Sequence[R]) -> tuple[list[R], list[tuple[Words, int]]]:
        """Return the parts of `ranges` that were copied: the others have no pointers."""
        left: list[R] = []
        for each in ranges:
            at = bisect_right(self._ends, each.start)
            while at < len(self._starts) and self._starts[at] < each.end:
                start, end = max(each.start, self._starts[at]), min(each.end, self._ends[at])
                left.append(replace(each, start=start, end=end))
                at += 1
        return left, []

    def check(self) -> None:
        """Do nothing: what was copied stays."""

    def close(self) -> None:
        """Forget it."""
        if self._live >= 0:
            os.close(self._live)
            self._live = -1


class Forked(_Taken):
    """A copy-on-write copy of a process, which never runs; `pid` is its own. Has what `Frozen` has.

    Raises `TargetError` when it is gone already.
    """

    method = "forked"

    def __init__(self, target: int, answer: dict[str, Any], memory: int) -> None:  # noqa: ARG002
        super().__init__(target, answer)
        self.pid = int(answer["image"])
        self.segments: tuple[Segment, ...] = ()
        self.spans: Words | None = None
        self._memory = self._live = -1
        try:
            # Shared memory is not in the copy: that of the process itself is the same.
            own = {m.start: m for m in read_maps(self.pid)}
            shared = {m.start: m for m in read_maps(self._seen) if m.permissions[3] == "s"}
            self._shared: list[Mapping] = [shared[start] for start in sorted(shared)]
            self.mappings: Sequence[Mapping] = tuple(
                each for _, each in sorted((own | shared).items())
            )
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            self._live = os.open(f"/proc/{self._seen}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, TargetError) as error:
            self.close()
            raise _gone(target) from error
        self._places = [m.start for m in self._shared]

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where they cannot be read."""
        memory = self._live if self._is_shared(address) else self._memory
        try:
            return os.pread(memory, size, address)
        except (OSError, OverflowError):
            return b""

    def split(self, ranges: Sequence[R]) -> tuple[list[R], list[tuple[Words, int]]]:
        """Return those of `ranges` that are in the copy, and the words of shared memory.

        With the words goes the address of the first.
        """
        inside = [each for each in ranges if not self._is_shared(each.start)]
        wanted = [(r.start, r.end) for r in ranges if self._is_shared(r.start)]
        spans, found = np.array(wanted, np.uint64).reshape(-1, 2), np.empty((_RUNS, 2), np.uint64)
        with contextlib.suppress(OSError):
            pages = os.open(f"/proc/{self._seen}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            cursor = np.zeros(2, np.uint64)
            count = list_pages(pages, spans, found, cursor=cursor)
            os.close(pages)
            if count is not None and int(cursor[0]) == len(spans):
                spans = found[:count]
        words = []
        for start, end in spans.tolist():
            for at in range(start, end, _PIECE):
                raw = self.read(at, min(_PIECE, end - at))
                words.append((np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64), at))
        return inside, words

    def _is_shared(self, address: int) -> bool:
        at = bisect_right(self._places, address) - 1
        return at >= 0 and address < self._shared[at].end

    def check(self) -> None:
        """Raise `TargetError` when the copy is gone: what was read of it says nothing."""
        if not any(self.read(m.start, 1) for m in self.mappings[:8] if m.permissions[3] == "p"):
            raise _gone(self.target)

    def close(self) -> None:
        """Close what was opened."""
        for fd in (self._memory, self._live):
            if fd >= 0:
                os.close(fd)
        self._memory = self._live = -1


Image = Copied | Forked | Frozen


@contextlib.contextmanager
def open_image(
    pid: int,
    *,
    max_pause_s: float = MAX_PAUSE_S,
    own: Sequence[tuple[int, int]] = (),
    only: str | None = None,
) -> Iterator[Image]:
    """Yield an image of the process, which is stopped for `max_pause_s` at most to take it.

    `own` are ranges of memory that belong to the tracer and are not needed; `only` is a method
    that must be used. Raises `TargetError` when the process may not be stopped or ends meanwhile,
    or when no image can be taken in this time without harm.
    """
    memory = os.memfd_create("leakscope-image")
    asked = {"pid": pid, "max_pause": max_pause_s, "own": list(own), "memory": memory, "only": only}
    helper = subprocess.Popen(
        module_command("leakscope.target.imager", json.dumps(asked)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=module_environment(),
        pass_fds=[memory],
    )
    image: Copied | Forked | None = None
    try:
        answer = _answer(helper, pid, max_pause_s)
        if "error" in answer:
            raise TargetError(answer["error"], hint=answer["hint"])
        if "method" not in answer:
            raise _no_image(pid, answer, max_pause_s)
        if answer["method"] == "frozen":
            _release(helper)
            with Frozen(pid, limit_s=max_pause_s + HELD_UP_S) as frozen:
                frozen.notes = tuple(_notes(answer))
                yield frozen
            return
        image = (Copied if answer["method"] == "copied" else Forked)(pid, answer, memory)
        if image.method == "copied":
            _release(helper)
        yield image
    finally:
        os.close(memory)
        if image is not None:
            image.close()
        _release(helper)


def _answer(helper: subprocess.Popen[bytes], pid: int, max_pause_s: float) -> dict[str, Any]:
    """Read the helper's answer. When the kernel holds it up it is killed, and the target goes on."""
    assert helper.stdout is not None
    end, text, is_stopped = time.monotonic() + _PLANNING_S, b"", False
    while True:
        line, newline, rest = text.partition(b"\n")
        if newline and line.startswith(b"{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        if newline:
            is_stopped = line == b"stopped"
            end = time.monotonic() + (
                max_pause_s + HELD_UP_S + _MARGIN_S if is_stopped else _PLANNING_S
            )
            text = rest
            continue
        left = max(end - time.monotonic(), 0)
        if not select.select([helper.stdout], [], [], left)[0]:
            helper.kill()
            raise _held_up(pid, is_stopped=is_stopped)
        part = os.read(helper.stdout.fileno(), 1 << 20)
        if not part:
            _, told = helper.communicate(timeout=_RELEASE_S)
            if is_stopped and helper.returncode == -signal.SIGKILL:  # by its lease
                raise _held_up(pid, is_stopped=True)
            last = told.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise TargetError(
                f"the image of process {pid} could not be taken: who takes it ended with status"
                f" {helper.returncode} {last}".rstrip()
            )
        text += part


def _held_up(pid: int, *, is_stopped: bool) -> TargetError:
    what = "stopped for too long" if is_stopped else "looked at for too long"
    return TargetError(
        f"process {pid} was not scanned: it was {what}, and let go",
        hint="The machine is busy, or the kernel or somebody else holds the scan up:"
        f" /proc/{pid}/stack may tell where. Try again later.",
    )


def _release(helper: subprocess.Popen[bytes]) -> None:
    """Let the helper remove what it made, and end."""
    if helper.returncode is not None:
        return
    try:
        helper.communicate(timeout=_RELEASE_S)
    except subprocess.TimeoutExpired:
        # The kernel is busy with freeing the copy: the helper goes on alone.
        threading.Thread(target=helper.wait, daemon=True).start()


def _notes(answer: dict[str, Any]) -> Iterator[str]:
    reasons = {"forked": "it was forked", "frozen": "it stood still for the whole scan"}
    if answer["method"] in reasons and "copied" in answer["refused"]:
        yield f"{reasons[answer['method']]}: {answer['refused']['copied']}"
    if answer.get("unread"):
        yield f"{answer['unread']:,} bytes of memory could not be copied"
    if answer["devices"]:
        yield f"{answer['devices']:,} bytes of a device's memory were not looked at"


def _no_image(pid: int, answer: dict[str, Any], max_pause_s: float) -> TargetError:
    refused = answer["refused"]
    why = [refused[name] for name in ("copied", "forked") if name in refused]
    needed = max(round(answer["needed_s"] * 1.5 + 0.05, 1), 0.1)
    hint = f"--max-pause {needed:g} lets it be stopped for that long."
    if needed <= max_pause_s:  # it should have been possible
        more = f"--max-pause {2 * max_pause_s:g} allows more"
        hint = f"Something held it up: try again when the machine is calmer, or {more}."
    return TargetError(
        f"process {pid} was not scanned, because it would have been stopped for longer than"
        f" {max_pause_s:g} s: {why[0] if why else 'no image could be taken'}"
        + (f"; and it may not be forked: {why[1]}" if len(why) > 1 else ""),
        hint=hint,
    )


def _gone(target: int) -> TargetError:
    return TargetError(f"the copy of process {target} was killed while it was scanned")
