# SPDX-License-Identifier: Apache-2.0
"""Arguments as people write them, turned into what the parts below take, or refused in one sentence.

Everything wrong here is a `UsageError` that names the argument, what it was, and what would do.
"""

from __future__ import annotations

import math
import operator
import os
import subprocess
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

from leakscope._paths import exists
from leakscope.errors import UsageError
from leakscope.observe.asked import parse_duration
from leakscope.trace.settings import parse_signal, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Duration", "PathLike", "Signal", "Size", "Stream", "command_line", "duration"]
__all__ += ["environment", "number", "path", "paths", "signal_number", "size", "stream", "whole"]

PathLike: TypeAlias = str | os.PathLike[str]
Size: TypeAlias = int | float | str
"""Bytes as a number, or text such as "512KiB" and "1.5M"; units are binary."""
Duration: TypeAlias = int | float | str
"""Seconds as a number, or text such as "30s", "20m", "2h"."""
Signal: TypeAlias = int | str
"""A signal's number, or its name: "USR1", "SIGUSR1", `signal.SIGUSR1`."""
Stream: TypeAlias = Any
"""None, a descriptor, an open file, or `subprocess.DEVNULL`; for stderr also `subprocess.STDOUT`."""


def _refuse(name: str, value: object, wanted: str, hint: str | None = None) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    raise UsageError(f"{name} is {shown} ({type(value).__name__}); it must be {wanted}", hint=hint)


def command_line(command: object, cwd: str | None) -> list[str]:
    """Return program and arguments. One word alone is a program without arguments."""
    if isinstance(command, (str, bytes, os.PathLike)):
        words: list[object] = [command]
    else:
        try:
            words = list(cast("Iterable[object]", command))
        except TypeError:
            _refuse("the command", command, "a program or a list of a program and its arguments")
    found = []
    for position, word in enumerate(words):
        try:
            text = os.fsdecode(cast("str", word))
        except TypeError:
            _refuse(
                f"word {position} of the command", word, "text or a path", f"Write str({word!r})."
            )
        # pathlib takes the "./" away, which tells a file from a program in PATH.
        here = os.path.join(cwd or "", text)  # noqa: PTH118
        if position == 0 and isinstance(word, os.PathLike) and "/" not in text and exists(here):
            text = f"./{text}"
        found.append(text)
    if isinstance(command, (str, bytes)) and " " in found[0] and not exists(found[0]):
        words_hint = ", ".join(f'"{word}"' for word in found[0].split()[:6])
        raise UsageError(
            f"the command is one text, {found[0][:60]!r}, and no program has that name",
            hint=f"Give program and arguments apart: run([{words_hint}]).",
        )
    return found


def size(name: str, value: object) -> int | None:
    """Return bytes; None stays None."""
    if value is None:
        return None
    wanted = 'a number of bytes or text such as "512KiB"'
    if isinstance(value, str):
        try:
            return parse_size(value)
        except UsageError as error:
            raise UsageError(f"{name}: {error}", hint=error.hint) from error
    found = number(name, value, wanted)
    if found < 0 or found != int(found):
        _refuse(name, value, wanted)
    return int(found)


def duration(name: str, value: object) -> float | None:
    """Return seconds; None stays None."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except UsageError as error:
            raise UsageError(f"{name}: {error}", hint=error.hint) from error
    wanted = 'a number of seconds or text such as "30s" or "2h"'
    total = getattr(value, "total_seconds", None)  # a datetime.timedelta
    found = number(name, total() if callable(total) else value, wanted)
    if found < 0:
        _refuse(name, value, wanted)
    return found


def number(name: str, value: object, wanted: str = "a number") -> float:
    """Return a finite number, of whatever type that can be one without loss."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        _refuse(name, value, wanted)
    try:
        found = float(cast("float", value))
    except (TypeError, ValueError, OverflowError):
        _refuse(name, value, wanted)
    if not math.isfinite(found):
        _refuse(name, value, wanted)
    return found


def whole(name: str, value: object) -> int | None:
    """Return a whole number; None stays None."""
    if value is None:
        return None
    if isinstance(value, bool):
        _refuse(name, value, "a whole number")
    try:
        return operator.index(cast("int", value))
    except TypeError:
        _refuse(name, value, "a whole number")


def signal_number(name: str, value: object) -> int | None:
    """Return a signal's number; None stays None."""
    if value is None:
        return None
    try:
        return parse_signal(value if isinstance(value, str) else str(whole(name, value)))
    except UsageError as error:
        raise UsageError(f"{name}: {error}", hint=error.hint) from error


def path(name: str, value: object) -> str:
    """Return a path as text."""
    try:
        return os.fsdecode(cast("str", value))
    except TypeError:
        _refuse(name, value, "a path")


def paths(name: str, value: object) -> list[str]:
    """Return several paths as text; one alone will do."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return [path(name, value)]
    try:
        return [path(name, each) for each in cast("Iterable[object]", value)]
    except TypeError:
        _refuse(name, value, "a path or a list of paths")


def environment(value: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return a checked copy of the variables; None stays None."""
    if value is None:
        return None
    try:
        pairs: list[tuple[object, object]] = list(value.items())
    except AttributeError:
        _refuse("env", value, "a mapping of names to values")
    checked = {}
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str):
            _refuse(f"env[{name!r}]", text, "text, and its name too")
        if not name or "=" in name or "\0" in name + text:
            raise UsageError(f"no program can be given the variable {name[:60]!r}")
        checked[name] = text
    return checked


def stream(name: str, value: Stream) -> int | None:
    """Return a descriptor above 2 that the caller closes; None stays None."""
    import fcntl

    if value is None:
        return None
    try:
        if value == subprocess.DEVNULL:
            return _above(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        fd = value if isinstance(value, int) else value.fileno()
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except (AttributeError, TypeError):
        _refuse(name, value, "a descriptor, an open file or subprocess.DEVNULL")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{name} is no open file of the operating system: {error}",
            hint="Give a real file, for example one of tempfile.TemporaryFile().",
        ) from error


def _above(fd: int) -> int:
    import fcntl

    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
