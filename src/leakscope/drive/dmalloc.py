# SPDX-License-Identifier: Apache-2.0
"""dmalloc, preloaded where the program is not linked with it: then without lines of code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup, join_options, read_file
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from leakscope.drive.setup import Exit, Target
    from leakscope.model.recordings import Recording

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "libdmalloc5"
_LIBRARY = ("libdmallocth.so.5", "libdmallocth.so")
# log-stats, log-non-free, check-fence: nothing that changes what the program does.
_DEBUG = 0x1 | 0x2 | 0x400


def set_up(target: Target) -> Setup:
    """Have a log for each process, of what was not freed."""
    if target.sample is not None or target.depth is not None:
        raise UsageError("dmalloc logs every pointer, by line: no --sample, no --depth")
    linked = any(name.startswith("libdmalloc") for name in target.needed)
    library = "" if linked else find_library(_LIBRARY, PACKAGE, tool_path=target.tool_path)
    ours = f"debug={_DEBUG:#x},log={target.folder}/dmalloc.%p"
    theirs = target.environment.get("DMALLOC_OPTIONS")
    return Setup(
        r"dmalloc\.(\d+)",
        preload=(library,) if library else (),
        environment={"DMALLOC_OPTIONS": join_options(theirs, ours, ",")},
        read=_read,
        notes=()
        if linked
        else ("dmalloc knows lines of code where it was compiled in: -DDMALLOC, -ldmallocth",),
    )


def _read(path: Path, ending: Exit) -> tuple[Recording, ...] | None:
    """Return the last process: a forked child writes its head into its parent's log as well."""
    found = read_file(path, ending)
    return found[-1:] if found else found
