# SPDX-License-Identifier: Apache-2.0
"""Reports into files and streams: refused early, whole or not at all, for this user only."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from leakscope._paths import absolute, is_directory, resolved
from leakscope.cli._streams import silence
from leakscope.errors import RecordingError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

__all__ = ["check_outputs", "open_private", "open_private_bytes", "write_private"]
__all__ += ["write_report", "write_text"]


def write_report(text: str, args: argparse.Namespace, stream: TextIO) -> None:
    """Write a report to the file that was asked for, else to `stream`."""
    if args.report_file:
        write_private(Path(args.report_file), text)
    else:
        write_text(stream, text)


def check_outputs(outputs: Iterable[str | None], inputs: Iterable[str | Path] = ()) -> None:
    """Refuse at once what could not be written hours later, or would replace what is needed.

    `outputs` are files that will be written, None where none was asked for; `inputs` are those
    that are read. Raises `UsageError` or `RecordingError`.
    """
    from leakscope.trace.output import check_replaceable, check_writable

    read = {place for name in inputs for place in _places(Path(name))}
    written: set[Path] = set()
    for name in outputs:
        if name is None:
            continue
        path = Path(name)
        if not name or is_directory(path) or not is_directory(path.parent):
            why = "it needs a name" if not name else "it is a directory"
            if not is_directory(path.parent):
                why = f"there is no directory {path.parent}"
            raise UsageError(
                f"the file '{name}' cannot be written: {why}",
                hint="Name a file in a directory that you can write to.",
            )
        check_writable(absolute(path.parent))
        check_replaceable(path)
        place = resolved(path.parent) / path.name
        if place in read:
            raise UsageError(
                f"{name} is read, so it cannot be written as well", hint="Name another file."
            )
        if place in written:
            raise UsageError(f"{name} is named twice", hint="Name two different files.")
        written.add(place)


def _places(path: Path) -> Iterator[Path]:
    """Yield where a file is: by its own name, and where its links lead."""
    with contextlib.suppress(OSError, RuntimeError):
        yield resolved(path.parent) / path.name
        yield resolved(path)


def write_text(stream: TextIO, text: str) -> bool:
    """Write `text`, escaped where the stream does not know a character, and flush.

    Returns whether there was somebody to read it.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # `| head` has read enough; the exit status still tells the verdict.
        silence(stream)
        return False
    except OSError as error:
        raise RecordingError(f"the report cannot be written: {error.strerror}") from error
    return True


def write_private(path: Path, text: str) -> None:
    """Write `path` for this user only, whole or not at all."""
    with open_private(path) as file:
        file.write(text)


@contextlib.contextmanager
def open_private(path: Path) -> Iterator[TextIO]:
    """Open `path` for this user only; it appears when all is written, or not at all."""
    with (
        open_private_bytes(path) as data,
        io.TextIOWrapper(data, encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield file


@contextlib.contextmanager
def open_private_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open `path` in the same way for bytes."""
    import tempfile

    from leakscope.trace.output import check_replaceable

    check_replaceable(path)
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise RecordingError(
            f"the report cannot be written to {path}: {error.strerror}",
            hint="Name a file in a directory that you can write to.",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
