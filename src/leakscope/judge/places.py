# SPDX-License-Identifier: Apache-2.0
"""Which frame of a stack is the line to look at, and the identity of a stack."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame, Module
    from leakscope.model.recordings import Recording

__all__ = ["fingerprint", "is_runtime", "source_frame"]

# The C and C++ run-time libraries, allocators, and we: code that allocates for somebody else.
_RUNTIME_MODULE = re.compile(
    r"(?:^|/)(?:ld-linux[^/]*|ld-musl[^/]*|libc|libc-[\d.]+|libc\.musl[^/]*|libpthread|libm|libdl|librt"
    r"|libstdc\+\+|libc\+\+|libc\+\+abi|libgcc_s|libjemalloc|libtcmalloc[^/]*|libmimalloc[^/]*"
    r"|libleakscope[^/]*|linux-vdso)(?:[-.][^/]*)?\.so(?:\.[\d.]+)?$|^\[vdso\]"
)
_RUNTIME_FILE = re.compile(
    r"^/usr/include/|^/usr/lib/gcc|/include/c\+\+/|/libstdc\+\+-v3/|/bits/[\w.]+\.(?:h|tcc)$"
    r"|^(?:\./|\.\./)(?:sysdeps|malloc|stdio-common|libio|string|stdlib|csu|elf|nptl)/"
    r"|/rustc/[0-9a-f]+/|/library/(?:alloc|std|core)/src/"
)
_RUNTIME_FUNCTION = re.compile(
    r"^(?:std::|__gnu_cxx::|operator new|operator delete|__libc_|__cxa_|_dl_|__gconv|alloc::|core::|"
    r"_start$|__rust|<alloc::|<core::|<std::|void std::|void\* std::)"
)
# Wrappers that programs put around malloc: their line says nothing, their caller's does.
_WRAPPER = re.compile(
    r"^_?(?:x|X|g_|p|av_|zend_|_?e|je_|tc_|xml|Py(?:Mem|Object|DataMem)_(?:Raw)?|_PyMem_(?:Raw)?|safe_|safe|"
    r"ck_|my_|mem_|do_|checked_|gcc_|lib|sqlite3|sqlite3Mem|sqlite3Db|sqlite3DbMalloc|apr_|ap_|png_|ngx_|z)?"
    r"(?:[mM]alloc|[cC]alloc|[rR]ealloc|[rR]eallocarray|[sS]trdup|[sS]trndup|[mM]emdup|[mM]alloc0|[mM]alloc0_n|"
    r"[mM]alloc_n|[aA]lloc|[zZ]alloc|[zZ]malloc|memalign|[mM]allocRaw|[mM]allocRawNN|MallocZero|"
    r"[mM]allocn|2realloc|nmalloc|2nrealloc|charalloc|nrealloc|ZeroMalloc|zmalloc|ztrymalloc\w*|zcalloc|zrealloc)$"
)


def is_runtime(frame: Frame) -> bool:
    """Whether the frame belongs to the C or C++ run-time libraries, or to an allocator."""
    if frame.artificial or (frame.module_path and _RUNTIME_MODULE.search(frame.module_path)):
        return True
    if frame.function is not None and _RUNTIME_FUNCTION.match(frame.function):
        return True
    return frame.file is not None and _RUNTIME_FILE.search(frame.file) is not None


def source_frame(stack: Sequence[Frame]) -> Frame | None:
    """Return the innermost frame of the program's own code that is no allocation wrapper.

    Code with line numbers has precedence over code without, as long as it is not further out
    than the first function that is known by name alone in another module.
    """
    own = [frame for frame in stack if not is_runtime(frame)]
    telling = [f for f in own if f.function is None or not _WRAPPER.match(f.function.split("(")[0])]
    found = telling or own
    if not found:
        return next((frame for frame in stack if not frame.artificial), None)
    if found[0].line is None:
        same = (f for f in found if f.line is not None)
        return next(same, found[0])
    return found[0]


def fingerprint(recording: Recording, site: int) -> str:
    """Return 16 hex digits that are the same for this stack in every run and on every host.

    Hash of the allocation kind and of each frame's build-id (or file name) and offset.
    """
    digest = hashlib.blake2b(bytes([int(recording.sites["kind"][site])]), digest_size=8)
    nodes = recording.nodes
    node = int(recording.sites["node"][site])
    names = _names(recording.modules)
    for _ in range(4096):
        if not 0 < node < len(nodes):
            break
        row = nodes[node]
        module = int(row["module"])
        # An address without a module differs in each run: only its place in the stack counts.
        if 0 < module <= len(names):
            digest.update(names[module - 1])
            digest.update(int(row["offset"]).to_bytes(8, "little"))
        else:
            digest.update(b"?")
        parent = int(row["parent"])
        if parent >= node:
            break
        node = parent
    return digest.hexdigest()


_names_of: tuple[tuple[Module, ...], list[bytes]] = ((), [])


def _names(modules: tuple[Module, ...]) -> list[bytes]:
    global _names_of  # noqa: PLW0603 - the last recording's, asked for once a site
    if _names_of[0] is not modules:
        made = [(m.build_id or m.path.rsplit("/", 1)[-1]).encode(errors="replace") for m in modules]
        _names_of = (modules, made)
    return _names_of[1]
