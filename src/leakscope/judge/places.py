# SPDX-License-Identifier: Apache-2.0
"""Which frame of a stack is the line to look at, and the identity of a stack."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

__all__ = ["Fingerprints", "is_runtime", "source_frame"]

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
# What cgo puts between Go and C, and Go's run-time: the caller beyond them, in C or Go, is meant.
_GO_GLUE = re.compile(
    r"^(?:_cgo_[0-9a-f]{6,}_C2?func_|_cgoexp_|x_cgo_|crosscall|runtime[./]"
    r"|(?:[^()]*\.)?(?:_C2?func_|_cgo_cmalloc))"
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
    """Whether the frame belongs to the run-time libraries of C, C++ or Go, or to an allocator."""
    return frame.artificial or _is_runtime(frame.module_path, frame.function, frame.file)


@lru_cache(maxsize=1 << 16)
def _is_runtime(module: str | None, function: str | None, file: str | None) -> bool:
    if module and _RUNTIME_MODULE.search(module):
        return True
    if function is not None and (_RUNTIME_FUNCTION.match(function) or _GO_GLUE.match(function)):
        return True
    return file is not None and _RUNTIME_FILE.search(file) is not None


def source_frame(stack: Sequence[Frame]) -> Frame | None:
    """Return the innermost frame of the program's own code that is no allocation wrapper.

    Code with line numbers has precedence over code without; a wrapper is better than nothing,
    and so is the innermost frame of all.
    """
    telling: Frame | None = None
    wrapper: Frame | None = None
    for frame in stack:
        if is_runtime(frame):
            continue
        if frame.function is not None and _WRAPPER.match(frame.function.split("(")[0]):
            wrapper = wrapper or frame
        elif frame.line is not None:
            return frame
        else:
            telling = telling or frame
    return telling or wrapper or next((f for f in stack if not f.artificial), None)


class Fingerprints:
    """Identities of the stacks of one recording: equal in every run and on every host.

    16 hex digits: a hash of the allocation kind and of each frame's build-id (or file name) and
    offset. An address without a module differs in each run: only its place in the stack counts.
    """

    def __init__(self, recording: Recording) -> None:
        nodes, sites = recording.nodes, recording.sites
        self._parents: list[int] = nodes["parent"].tolist()
        self._modules: list[int] = nodes["module"].tolist()
        self._offsets = nodes["offset"].astype("<u8")  # of millions of frames few are asked for
        self._nodes: list[int] = sites["node"].tolist()
        self._kinds: list[int] = sites["kind"].tolist()
        self._names = [b"?"] + [
            (m.build_id or m.path.rsplit("/", 1)[-1]).encode(errors="replace")
            for m in recording.modules
        ]

    def of(self, site: int) -> str:
        """Return the fingerprint of a site."""
        parts = [bytes([self._kinds[site]])]
        node = self._nodes[site]
        while 0 < node < len(self._parents) and len(parts) < 1024:
            module = self._modules[node]
            if 0 < module < len(self._names):
                parts += (self._names[module], self._offsets[node].tobytes())
            else:
                parts.append(b"?")
            parent = self._parents[node]
            if parent >= node:  # damage
                break
            node = parent
        return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()
