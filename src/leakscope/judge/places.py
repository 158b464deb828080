# SPDX-License-Identifier: Apache-2.0
"""Which frame of a stack is the line to look at."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from leakscope._patterns import LatePattern
from leakscope.model.frames import Code, is_system_path, plain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    import numpy.typing as npt

    from leakscope.model.frames import Address, Frame
    from leakscope.model.recordings import Recording

__all__ = ["Place", "Places", "is_library", "is_runtime", "source_frame"]

_MOST_HELPERS = 4  # one inside the other
_SMALL = 320  # bytes of machine code that a helper may have, compiled without optimisation

# The C and C++ run-time libraries, allocators, and we: code that allocates for somebody else.
_RUNTIME_MODULE = LatePattern(
    r"(?:^|/)(?:ld-linux[^/]*|ld-musl[^/]*|libc|libc-[\d.]+|libc\.musl[^/]*|libpthread|libm|libdl|librt"
    r"|libstdc\+\+|libc\+\+|libc\+\+abi|libgcc_s|libjemalloc|libtcmalloc[^/]*|libmimalloc[^/]*"
    r"|libleakscope[^/]*|vgpreload_[^/]*|linux-vdso)(?:[-.][^/]*)?\.so(?:\.[\d.]+)?$|^\[vdso\]"
)
_RUNTIME_FILE = LatePattern(
    r"^/usr/(?:local/)?include/|^/usr/lib(?:64|32)?/|^/opt/[^/]+(?:/[^/]+)?/include/|^/nix/store/"
    r"|/include/c\+\+/|/libstdc\+\+-v3/|/libcxx/include/|/bits/[\w.]+\.(?:h|tcc)$"
    r"|^(?:\./|\.\./)(?:sysdeps|malloc|stdio-common|libio|string|stdlib|csu|elf|nptl)/"
    r"|/rustc/[0-9a-f]+/|/rustc-[\d.]+[^/]*/library/|(?:^|/)library/(?:alloc|std|core)/src/"
    r"|/rustlib/src/rust/|^/rust/deps/"
)
_PACKAGE_FILE = LatePattern(r"/\.?cargo/(?:registry|git)/|^/usr/share/cargo/registry/|/go/pkg/mod/")
_RUNTIME_FUNCTION = LatePattern(
    r"^(?:std::|__gnu_cxx::|__libc_|__cxa_|_dl_|__gconv|alloc::|core::|"
    r"_start$|__rust|<alloc::|<core::|<std::|void std::|void\* std::)"
)
# What cgo puts between Go and C, and Go's run-time: the caller beyond them, in C or Go, is meant.
_GO_GLUE = LatePattern(
    r"^(?:_cgo_[0-9a-f]{6,}_C2?func_|_cgoexp_|x_cgo_|crosscall|runtime[./]"
    r"|(?:[^()]*\.)?(?:_C2?func_|_cgo_cmalloc))"
)
# Wrappers that programs put around malloc: their line says nothing, their caller's does.
_WRAPPER = LatePattern(
    r"^_?(?:x|X|g_|p|av_|zend_|_?e|je_|tc_|xml|Py(?:Mem|Object|DataMem)_(?:Raw)?|_PyMem_(?:Raw)?|safe_|safe|"
    r"ck_|my_|mem_|do_|checked_|gcc_|lib|sqlite3|sqlite3Mem|sqlite3Db|sqlite3DbMalloc|apr_|ap_|png_|ngx_|z)?"
    r"(?:[mM]alloc|[cC]alloc|[rR]ealloc|[rR]eallocarray|[sS]trdup|[sS]trndup|[mM]emdup|[mM]alloc0|[mM]alloc0_n|"
    r"[mM]alloc_n|[aA]lloc|[zZ]alloc|[zZ]malloc|memalign|[mM]allocRaw|[mM]allocRawNN|MallocZero|"
    r"[mM]allocn|2realloc|nmalloc|2nrealloc|charalloc|nrealloc|ZeroMalloc|zmalloc|ztrymalloc\w*|zcalloc|zrealloc)$"
)
_OPERATOR_NEW = LatePattern(r"(?:^|::|\s)operator new(?:\[\])?(?:\(|$)")
_ALLOCATES = LatePattern(r"[aA]lloc|ALLOC|[dD]up(?![a-z])|DUP|operator new")
_ARGUMENTS = LatePattern(r"<[^<>]*>")


def is_runtime(frame: Frame) -> bool:
    """Whether the frame belongs to the run-time libraries of C, C++ or Go, or to an allocator."""
    return frame.artificial or _is_runtime(frame.module_path, frame.function, frame.file)


@lru_cache(maxsize=1 << 16)
def _is_runtime(module: str | None, function: str | None, file: str | None) -> bool:
    if module and _RUNTIME_MODULE.search(module):
        return True
    if function is not None and (_RUNTIME_FUNCTION.match(function) or _GO_GLUE.match(function)):
        return True
    if function is not None and file is None and _OPERATOR_NEW.match(function):
        return True
    return file is not None and _RUNTIME_FILE.search(file) is not None


def is_library(frame: Frame, exe: str | None) -> bool:
    """Whether the frame belongs to a library of the system, or of the language's package manager.

    Not for a program that is itself the system's: there everything lies in one place.
    """
    if frame.file is not None and _PACKAGE_FILE.search(frame.file):
        return True
    if exe is None or frame.module_path is None or frame.module_path == exe:
        return False
    return is_system_path(frame.module_path) and not is_system_path(exe)


def source_frame(stack: Sequence[Frame], exe: str | None = None) -> Frame | None:
    """Return the innermost frame of the program's own code that is no allocation wrapper.

    Judged by the one stack alone; `Places` also knows the others.
    """
    frames = [frame for frame in stack if not is_runtime(frame)]
    return _chosen(stack, frames, {id(f) for f in frames if _is_wrapper(f)}, exe)


def _chosen(
    stack: Sequence[Frame], frames: Sequence[Frame], helpers: Collection[int], exe: str | None
) -> Frame | None:
    """The program's own code has precedence over libraries, lines over no lines."""
    own = [f for f in frames if id(f) not in helpers]
    ranked = sorted(own, key=lambda f: (is_library(f, exe), f.line is None))
    first = ranked[0] if ranked else next(iter(frames), None)
    return first or next((f for f in stack if not f.artificial), None)


def _is_wrapper(frame: Frame) -> bool:
    return frame.function is not None and _is_wrapper_name(frame.function)


@lru_cache(maxsize=1 << 14)
def _is_wrapper_name(name: str) -> bool:
    return (
        _WRAPPER.match(name.split("(", 1)[0]) is not None or _OPERATOR_NEW.search(name) is not None
    )


def _is_named(frame: Frame) -> bool:
    return _ALLOCATES.search(plain_name(frame.function or "")) is not None


class Place(NamedTuple):
    """The line to look at, and the helpers through which it allocated, innermost first."""

    source: Frame | None
    through: tuple[Frame, ...] = ()


@dataclass
class _Seen:
    """What the recorded stacks tell of one function that calls the allocator, or a helper."""

    frame: Frame
    callers: set[Hashable] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)  # mean size of the blocks of each stack
    names: set[str | None] = field(default_factory=set)
    addresses: set[Address] = field(default_factory=set)


class Places:
    """The place of each stack of a recording, in view of all of them.

    A function is an allocation helper when it is small and does nothing but return what the
    allocator gave it, when it is called from several places, and when it serves more than one
    purpose: sizes differ, or it is a template used for several types, or it returns plain memory,
    or it is called as allocators are. Where the return type is not known, only its name tells.
    The helpers of a helper are helpers too. A leak is then at the caller, who owns the block.
    """

    def __init__(
        self,
        recording: Recording,
        stacks: Mapping[int, Sequence[Frame]],
        code: Callable[[Frame], Code] | None = None,
    ) -> None:
        """`stacks` are the resolved stacks by site number; `code` tells about a frame's function."""
        self._exe = recording.process.exe
        self._recording = recording
        self._stacks = stacks
        self._ask = code or (lambda _: Code())
        self._codes: dict[int, Code] = {}
        self._plausible_keys: dict[int, bool] = {}
        self._helpers: set[int] = set()  # with several callers
        self._inner: set[int] = set()  # with one caller, which may be a helper itself
        # Stacks share most of their frames, so what is known of one is kept by its `id`.
        self._numbers: dict[Hashable, int] = {}  # of functions, by `_function`
        self._number_of: dict[int, int] = {}
        self._runtime: dict[int, bool] = {}
        self._nodes_at: tuple[npt.NDArray[np.intp], npt.NDArray[np.uint64]] | None = None
        self._frames = {site: self._without_runtime(stack) for site, stack in stacks.items()}
        self._own = {site: some[: _MOST_HELPERS + 2] for site, some in self._frames.items()}
        self._keys = {site: [self._number(f) for f in own] for site, own in self._own.items()}
        for _ in range(_MOST_HELPERS):
            if not self._grow():
                break

    def of(self, site: int) -> Place:
        """Return the place of one of the stacks."""
        stack, frames = self._stacks[site], self._frames[site]
        own = self._own[site]
        depth = self._depth(self._keys[site])
        helpers = {id(f) for f in own[:depth]}
        helpers |= {id(f) for f in frames if _is_wrapper(f) and self._returns(f) != "nothing"}
        source = _chosen(stack, frames, helpers, self._exe)
        if source is None or id(source) not in {id(f) for f in frames}:
            return Place(source)
        before = list(itertools.takewhile(lambda f: f is not source, frames))
        # Helpers, and what the place called when that is code without lines or of a library.
        through = [f for at, f in enumerate(before) if id(f) in helpers or at == len(before) - 1]
        return Place(source, tuple(through))

    def _without_runtime(self, stack: Sequence[Frame]) -> list[Frame]:
        known = self._runtime
        for frame in stack:
            if id(frame) not in known:
                known[id(frame)] = is_runtime(frame)
        return [f for f in stack if not known[id(f)]]

    def _number(self, frame: Frame) -> int:
        """Return a number of the frame's function: equal where `_function` is."""
        number = self._number_of.get(id(frame))
        if number is None:
            number = self._numbers.setdefault(_function(frame), len(self._numbers))
            self._number_of[id(frame)] = number
        return number

    def _depth(self, own: Sequence[int]) -> int:
        """How many of the innermost frames are helpers; somebody must be left to call them."""
        depth = 0
        for at, key in enumerate(own[: min(len(own) - 1, _MOST_HELPERS)], 1):
            if key in self._helpers:
                depth = at
            elif key not in self._inner:
                break
        return depth

    def _passed(self, own: Sequence[int]) -> int:
        """How many of the innermost frames are or may be helpers."""
        for at, key in enumerate(own):
            if key not in self._helpers and key not in self._inner:
                return at
        return len(own)

    def _grow(self) -> bool:
        """Find the helpers around those that are known. Whether there are new ones."""
        seen: dict[int, _Seen] = {}
        working: set[int] = set()  # what calls other code of the program that allocates
        table = self._recording.sites
        counts, sizes = table["allocs"], table["alloc_bytes"]
        for site, own in self._own.items():
            keys = self._keys[site]
            at = self._passed(keys)
            if at >= min(len(own) - 1, _MOST_HELPERS):
                continue
            frame, caller = own[at], own[at + 1]
            key = keys[at]
            working.update(keys[at + 1 :])
            if key == keys[at + 1]:
                continue
            one = seen.setdefault(key, _Seen(frame))
            one.callers.add(_call(caller))
            one.names.add(frame.function)
            if frame.address is not None:
                one.addresses.add(frame.address)
            if counts[site]:
                one.sizes.add(int(sizes[site]) * 16 // int(counts[site]))
        found = False
        for key, one in seen.items():
            if key in working or not self._plausible(key, one.frame):
                continue
            if len(one.callers) > 1 or self._called_elsewhere(one):
                if self._general(one):
                    self._helpers.add(key)
                    found = True
            elif key not in self._inner and self._tells(one.frame):
                self._inner.add(key)
                found = True
        return found

    def _plausible(self, key: int, frame: Frame) -> bool:
        """Whether it may be a helper, from what it returns and how large it is."""
        if key not in self._plausible_keys:
            code = self._code(frame)
            returning = code.returns in {"bytes", "object", None} or (
                code.returns == "value" and _is_named(frame)  # the block goes out by a pointer
            )
            small = code.size is None or code.size <= _SMALL
            known = frame.function not in {None, "main"}
            self._plausible_keys[key] = returning and small and known
        return self._plausible_keys[key]

    def _general(self, one: _Seen) -> bool:
        """Whether it allocates for many purposes rather than making one kind of thing."""
        returns = self._returns(one.frame)
        several = len(one.sizes) > 1 or len(one.names) > 1
        if returns is None:
            return _is_named(one.frame) or len(one.names) > 1
        return _is_named(one.frame) or returns == "bytes" or several

    def _tells(self, frame: Frame) -> bool:
        """Whether anything says that it returns what it allocated."""
        return self._returns(frame) is not None or _is_named(frame)

    def _code(self, frame: Frame) -> Code:
        """What is known of a function of the program; a library's is not worth looking up."""
        key = self._number(frame)
        if key not in self._codes:
            known = not is_library(frame, self._exe)
            self._codes[key] = self._ask(frame) if known else Code()
        return self._codes[key]

    def _returns(self, frame: Frame) -> str | None:
        return self._code(frame).returns

    def _called_elsewhere(self, one: _Seen) -> bool:
        """Whether stacks that hold nothing any more came to it from another place."""
        if one.frame.inlined:
            return False
        nodes = self._recording.nodes
        if self._nodes_at is None:
            order = np.argsort(nodes["offset"], kind="stable")
            self._nodes_at = order, nodes["offset"][order]
        order, offsets = self._nodes_at
        callers: set[tuple[int, int]] = set()
        for address in one.addresses:
            if address.module is None:
                continue
            low, high = np.searchsorted(
                offsets, np.array([0, 1], offsets.dtype) + offsets.dtype.type(address.offset)
            )
            at = order[low:high]
            at = at[nodes["module"][at] == address.module + 1]
            above = nodes[nodes["parent"][at]]
            callers.update(zip(above["module"].tolist(), above["offset"].tolist(), strict=True))
        return len(callers) > 1


def _function(frame: Frame) -> Hashable:
    """What identifies a function; instances of a template are one."""
    name = frame.function or frame.symbol
    if name is None:
        return (frame.module_path, frame.entry or frame.address)
    return (frame.module_path, frame.file, _without_arguments(name))


def _call(frame: Frame) -> Hashable:
    return (
        (frame.file, frame.line) if frame.line is not None else (frame.module_path, frame.address)
    )


@lru_cache(maxsize=1 << 14)
def _without_arguments(name: str) -> str:
    name = plain_name(name)
    while (shorter := _ARGUMENTS.sub("", name)) != name:
        name = shorter
    return name
