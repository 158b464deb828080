# SPDX-License-Identifier: Apache-2.0
"""What the C library, the loader and the C++ run-time keep for the life of a process.

These are one-offs of every program: reported, but quiet and without effect on the exit code.
They are known only while they do not grow; a stream that is never closed stays a leak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope._patterns import LatePattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame

__all__ = ["interpreter_state", "known_one_off"]

_C_LIBRARY = LatePattern(r"(?:^|/)(?:libc[-.]|libpthread|libc\.musl|ld-musl)[^/]*$")
_LOADER = LatePattern(r"(?:^|/)ld-(?:linux|musl|[\d.])[^/]*$")
_ALLOCATOR = LatePattern(r"(?:^|/)lib(?:jemalloc|tcmalloc|mimalloc)[^/]*$")
_CXX = LatePattern(r"(?:^|/)libstdc\+\+[^/]*$")

# Function of the C library anywhere between the allocation and the program's own code: why.
_FUNCTIONS = {
    r"_IO_file_doallocate|_IO_getdelim_buffer|_IO_wfile_doallocate|setvbuf": "libc one-off: stream buffer",
    r"_dl_.*|dl_open_worker.*|__libc_dlopen_mode|dlopen.*|dlerror.*|_dlerror_run": "loader one-off",
    r"setlocale|_nl_.*|newlocale|bindtextdomain|textdomain|__textdomain|set_binding_values|"
    r"__dcigettext|plural_eval|new_composite_name": "libc one-off: locale",
    r"__gconv.*|iconv_open|gconv_.*": "libc one-off: character sets",
    r"allocate_stack|allocate_dtv|pthread_create.*|_dl_allocate_tls|__pthread_create.*|"
    r"get_cached_stack|start_thread": "libc one-off: thread stacks",
    r"__nss_.*|nss_.*|getpw.*|getgr.*|__res_.*|gethostby.*|getaddrinfo": "libc one-off: name service",
    r"tzset.*|__tz.*|tz.*_internal|localtime.*|mktime.*": "libc one-off: time zone",
    r"__cxa_thread_atexit_impl|__new_exitfn|__cxa_atexit|atexit|on_exit": "libc one-off: exit handlers",
    r"__cxa_get_globals|__cxa_allocate_.*|_GLOBAL__sub_I__ZN9__gnu_cxx9__freeresEv|"
    r"__gnu_cxx::__freeres.*|\(anonymous namespace\)::pool::pool.*": "libstdc++ one-off: exceptions",
    r"setenv|putenv|__add_to_environ": "libc one-off: environment",
    r"qsort(?:_r)?|openlog|syslog|tmpfile|random|initstate": "libc one-off",
}
# What these return belongs to their caller: lost, it is the caller's leak, whatever is usual.
_HANDED_OUT = LatePattern(
    r"getaddrinfo(?:_a)?|iconv_open|newlocale|__newlocale|duplocale|__duplocale|getdelim|getline|__getdelim|"
    r"dlopen.*|dlmopen.*|f(?:d|mem)?open(?:64)?|_IO_new_fopen|_IO_fopen\w*|__fopen_internal|open_memstream|"
    r"popen|_IO_new_popen|tmpfile(?:64)?|(?:fd)?opendir|scandir(?:64|at)?|glob(?:64)?|realpath|__realpath\w*|"
    r"getcwd|__getcwd|get_current_dir_name|tempnam|strn?dup|__strn?dup|wcsdup|v?asprintf|__v?asprintf\w*|"
    r"regcomp|wordexp|setvbuf|getifaddrs\w*|if_nameindex|backtrace_symbols|getpass|res_ninit|hcreate_r|tsearch"
)
_KNOWN = [(LatePattern(pattern), reason) for pattern, reason in _FUNCTIONS.items()]


# An interpreter that frees the root of its own state at the end, and not what hangs on it.
_INTERPRETER = LatePattern(r"(?:^|/)(?:perl[\d.]*|libperl\.so[\d.]*)$")


def known_one_off(stack: Sequence[Frame], *, proven: bool = False) -> str | None:
    """Return why a stack that does not grow is quiet by default, None when it is not.

    `proven` says that its blocks are lost: then only memory that the library owns is excused.
    """
    runtime = []
    for frame in stack:
        path = frame.module_path or ""
        if not any(each.search(path) for each in (_C_LIBRARY, _LOADER, _CXX, _ALLOCATOR)):
            break
        runtime.append(frame)
    else:
        # Nothing but run-time libraries: constructors and the loader's own work.
        return _from_start(stack)
    if proven and any(_HANDED_OUT.fullmatch(f.function or f.symbol or "") for f in runtime):
        return None
    for frame in runtime:
        name = frame.function or frame.symbol or ""
        for pattern, reason in _KNOWN:
            if pattern.fullmatch(name):
                return reason
    return None


def _from_start(stack: Sequence[Frame]) -> str | None:
    frames = [frame for frame in stack if not frame.artificial]
    if not frames or any(frame.function == "main" for frame in frames):
        return None
    paths = [frame.module_path or "" for frame in frames]
    if all(_LOADER.search(path) for path in paths):
        return "loader one-off"
    if _CXX.search(paths[0]):
        return "libstdc++ one-off: exceptions"
    names = [frame.function or "" for frame in frames]
    if any(_LOADER.search(path) for path in paths) or any(
        name.startswith("call_init") for name in names
    ):
        return "loader one-off"
    return None


def interpreter_state(stack: Sequence[Frame]) -> str | None:
    """Return why what an interpreter lost by its own end is quiet; None where other code took part."""
    paths = [frame.module_path for frame in stack if not frame.artificial]
    others = [p for p in paths if p and not _C_LIBRARY.search(p) and not _LOADER.search(p)]
    if others and all(_INTERPRETER.search(path) for path in others):
        return "perl's own state at its end, which PERL_DESTRUCT_LEVEL=2 would free"
    return None
