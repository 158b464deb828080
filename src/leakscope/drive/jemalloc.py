# SPDX-License-Identifier: Apache-2.0
"""jemalloc's heap profile at the end. The library must be built with profiling, as Debian's is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup, join_options
from leakscope.errors import TargetError, UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "libjemalloc2"
_LIBRARY = ("libjemalloc.so.2",)
_MOST_LIBRARY = 64 << 20


def set_up(target: Target) -> Setup:
    """Have a profile when each process ends: of every allocation, or of samples."""
    if target.depth is not None:
        raise UsageError("the depth of jemalloc's stacks was set when it was built: no --depth")
    linked = any(name.startswith("libjemalloc.so") for name in target.needed)
    library = find_library(_LIBRARY, PACKAGE, tool_path=target.tool_path)
    try:
        with open(library, "rb") as file:  # noqa: PTH123 - a path as text
            profiles = b"prof_final" in file.read(_MOST_LIBRARY)
    except OSError as error:
        raise TargetError(f"cannot read {library}: {error.strerror}") from error
    if not profiles:
        raise TargetError(
            f"{library} was built without profiling",
            hint="Build jemalloc with --enable-prof, and say where it is: --tool-path PATH",
        )
    sample = 0 if target.sample is None else max(target.sample.bit_length() - 1, 0)
    ours = f"prof:true,prof_final:true,lg_prof_sample:{sample},prof_prefix:{target.folder}/jemalloc"
    theirs = target.environment.get("MALLOC_CONF")
    return Setup(
        r"jemalloc\.(\d+)\.\d+\.f\.heap",
        preload=() if linked and target.tool_path is None else (library,),
        environment={"MALLOC_CONF": join_options(theirs, ours, ",")},
    )
