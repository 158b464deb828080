# SPDX-License-Identifier: Apache-2.0
"""A file that may be damaged, growing, or full of holes, read into numpy arrays.

Never maps the file: another process may cut it short at any time, and a mapping would then
end this one with SIGBUS. Nothing is read beyond the file's end.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from leakscope.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["Source", "damaged"]

S = TypeVar("S", bound=np.generic)

_HINTS = {
    errno.ENOENT: "Check the name; recordings end in .leakscope.",
    errno.EACCES: "Read it as the user that it belongs to, or as root.",
    errno.EPERM: "Read it as the user that it belongs to, or as root.",
}


def damaged(path: str, what: str) -> RecordingError:
    """Return the error for a file whose content makes no sense."""
    return RecordingError(
        f"{path} is damaged: {what}",
        hint="Make the recording again; if it was copied, compare it with the original.",
    )


class Source:
    """An open regular file.

    `size` is its length when it was opened, `stored` what it took without its holes, `inode`
    its number.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            # Not blocking: a FIFO of that name must not hold us up.
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise self._error("open", error) from error
        except ValueError as error:  # a zero byte in the name
            raise RecordingError(f"cannot open {self.path!r}: {error}") from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise RecordingError(
                f"{self.path} is {kind}, not a recording",
                hint="Name a file that ends in .leakscope.",
            )
        self.size = status.st_size
        self.inode = status.st_ino
        # Nothing at all: a file system that does not say.
        self.stored = status.st_blocks * 512 or status.st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _error(self, verb: str, error: OSError) -> RecordingError:
        return RecordingError(
            f"cannot {verb} {self.path}: {error.strerror}", hint=_HINTS.get(error.errno or 0)
        )

    def read(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes at `offset`, fewer at the end of the file."""
        array = self.array(np.dtype(np.uint8), offset, max(0, min(count, self.size - offset)))
        return array.tobytes()

    def array(
        self, dtype: np.dtype[S], offset: int, count: int, into: npt.NDArray[S] | None = None
    ) -> npt.NDArray[S]:
        """Return up to `count` elements at `offset`, fewer at the end of the file.

        `into` is room for `count` elements; without it, new room is made.
        """
        count = max(0, min(count, (self.size - offset) // dtype.itemsize))
        array = np.empty(count, dtype) if into is None else into[:count]
        view = memoryview(array.view(np.uint8))  # type: ignore[arg-type]
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise self._error("read", error) from error
            if got == 0:  # cut short since it was opened
                break
            done += got
        return array[: done // dtype.itemsize]

    def pieces(
        self,
        dtype: np.dtype[np.void],
        offset: int,
        count: int,
        most: int = 1 << 20,
        *,
        into: npt.NDArray[np.void] | None = None,
        dense: bool = False,
    ) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
        """Yield (index, elements) of an array of `count` at `offset`; holes are left out.

        What is left out would read as zeros, whole elements of it; no piece is longer than
        `most` elements. Each piece replaces the one before it in `into`, if that is given.
        `dense` tells that there are few holes, and not to look for them: on tmpfs, finding
        the end of the data around an offset takes time in proportion to that data.
        """
        done, stop = 0, offset + count * dtype.itemsize
        ranges = [(offset, min(stop, self.size))] if dense else self._data_ranges(offset, stop)
        for begin, end in ranges:
            first = max(done, (begin - offset) // dtype.itemsize)
            done = min(count, -(-(end - offset) // dtype.itemsize))
            for at in range(first, done, most):
                length = min(most, done - at)
                yield at, self.array(dtype, offset + at * dtype.itemsize, length, into)

    def _data_ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        # The parts of [start, end) that are not holes, as far as the system tells.
        end = min(end, self.size)
        while start < end:
            try:
                begin = os.lseek(self._fd, start, os.SEEK_DATA)
                stop = os.lseek(self._fd, begin, os.SEEK_HOLE) if begin < end else begin
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                begin, stop = start, end  # this file system knows no holes
            if begin >= end:
                return
            yield begin, min(stop, end)
            start = stop
