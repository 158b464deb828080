# SPDX-License-Identifier: Apache-2.0
"""LeakSanitizer: preloaded into a program that is not linked with it or AddressSanitizer.

Where it finds nothing it writes nothing; that it looked, its notes on threads prove.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.drive.find import find_library
from leakscope.drive.setup import Setup, join_options, read_file
from leakscope.errors import SymbolError, TargetError, UsageError
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Process
from leakscope.proc.elf import read_elf

if TYPE_CHECKING:
    from pathlib import Path

    from leakscope.drive.setup import Exit, Target
    from leakscope.model.recordings import Recording

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "liblsan0"
_LIBRARIES = ("liblsan.so.0", "liblsan.so")
_INIT = ("__asan_init", "__lsan_do_leak_check")
_MOST_LOG = 1 << 20
_LOOKED = b"Processing thread "
_FATAL = (b"LeakSanitizer has encountered a fatal error", b"ERROR: AddressSanitizer")


def set_up(target: Target) -> Setup:
    """Have a report for each process, and the program's own exit status."""
    if target.sample is not None:
        raise UsageError("LeakSanitizer looks at every block: --sample is not for it")
    linked = _linked(target)
    # Its signal handlers would turn a crash into an exit; AddressSanitizer's errors stay one.
    options = (
        f"log_path={target.folder}/lsan:exitcode=0:abort_on_error=1:log_threads=1:detect_leaks=1"
        ":handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0"
    )
    if target.depth is not None:
        options += f":malloc_context_size={target.depth}"
    names = ("ASAN_OPTIONS", "LSAN_OPTIONS") if linked else ("LSAN_OPTIONS",)
    preload = () if linked else (find_library(_LIBRARIES, PACKAGE, tool_path=target.tool_path),)
    return Setup(
        r"lsan\.(\d+)",
        preload=preload,
        environment={
            name: join_options(target.environment.get(name), options, ":") for name in names
        },
        read=_read,
        log=r"lsan\.(\d+)",
    )


def _linked(target: Target) -> bool:
    """Whether the program brings its own."""
    if any(name.startswith(("libasan.so", "liblsan.so")) for name in target.needed):
        return True
    try:
        return bool(read_elf(target.image, _INIT).exports)
    except (TargetError, SymbolError):
        return False


def _read(path: Path, ending: Exit) -> tuple[Recording, ...] | None:
    found = read_file(path, ending)
    if found is not None:
        return found
    with path.open("rb") as file:
        text = file.read(_MOST_LOG)
    if _LOOKED not in text or any(each in text for each in _FATAL):
        return None
    build = RecordingBuilder(Process(), Coverage(mode="LeakSanitizer"))
    build.reach_is_known()
    return (build.build(),)
