# SPDX-License-Identifier: Apache-2.0
"""`leakscope.load` and `leakscope.analyse`: recordings from files, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope._analysis import Analyser
from leakscope._library import values
from leakscope._library.results import Findings
from leakscope._paths import is_file
from leakscope.model.recordings import Recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope._library.values import PathLike, Size

__all__ = ["analyse", "analyser", "load"]


def load(path: PathLike | int) -> Recording:
    """Return the recording in a file, packed or live; what it is, its first bytes tell.

    A number is a process that is being traced right now. Raises `RecordingError` when the file
    cannot be read, is no recording, is damaged, or was made by a newer leakscope, and
    `TargetError` for a process that is not traced.
    """
    from leakscope.recording import load as read
    from leakscope.workflow.opening import open_file, open_process

    if isinstance(path, int):
        return open_process(values.whole("path", path) or 0).read()[0]
    name = values.path("path", path)
    return open_file(name).read()[0] if is_file(name) else read(name)


def analyse(
    recording: Recording | PathLike,
    *,
    suppressions: PathLike | Sequence[PathLike] = (),
    debug_dirs: PathLike | Sequence[PathLike] = (),
    debuginfod: bool = True,
    min_bytes: Size = 0,
) -> Findings:
    """Judge a recording, or the one in a file: which allocation sites leak, with line and evidence.

    `suppressions` are files in LeakSanitizer's or valgrind's syntax, `debug_dirs` further
    places for separate debug files; `debuginfod` False asks no server for debug information;
    `min_bytes` leaves out sites that hold less. Raises `UsageError` for a suppression file that
    cannot be read, and what `load` raises for a file.
    """
    judge = analyser(suppressions, debug_dirs, debuginfod, min_bytes)
    if isinstance(recording, Recording):
        return Findings.of(judge.analyse(recording))
    name = values.path("recording", recording)
    return Findings.of(judge.analyse(load(name)), name)


def analyser(
    suppressions: PathLike | Sequence[PathLike],
    debug_dirs: PathLike | Sequence[PathLike],
    debuginfod: bool,
    min_bytes: Size,
) -> Analyser:
    """Return what judges, after all that can be wrong with its options was looked at."""
    return Analyser(
        suppressions=values.paths("suppressions", suppressions),
        debug_dirs=values.paths("debug_dirs", debug_dirs),
        debuginfod=bool(debuginfod),
        min_bytes=values.size("min_bytes", min_bytes) or 0,
    )
