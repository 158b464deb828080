# SPDX-License-Identifier: Apache-2.0
"""The two identities of a stack, 16 hex digits each.

The exact one is equal for the same build in every run and on every host: a hash of the
allocation kind and of each frame's build-id (or file name) and offset, or of names where the
source has nothing else. The stable one survives a rebuild: a hash of function names and of the
base names of files, without lines, repetitions, and the frames of run-times and allocators.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from leakscope._patterns import LatePattern
from leakscope.judge.places import is_runtime
from leakscope.model.frames import plain_name
from leakscope.model.recordings import KIND_NAMES, NODE_UNADDRESSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.model.frames import Frame, FrameName
    from leakscope.model.recordings import Recording

__all__ = ["Fingerprints", "stable_identity", "stable_names"]

_DEEPEST = 1024

# What compilers add to the names of functions that they split, specialise or move.
_CLONE = LatePattern(
    r"(?: \[clone [^\]]*\])|(?:\.(?:constprop|isra|part|cold|lto_priv|localalias|llvm|sra)"
    r"(?:\.\d+)*)|(?:::h[0-9a-f]{16}$)"
)
_BRACKETS = LatePattern(r"<[^<>]*>|\([^()]*\)|\{[^{}]*\}")
# What each C++ compiler calls the code that initialises global objects.
_INITIALIZER = LatePattern(
    r"__static_initialization_and_destruction_\d|__cxx_global_(?:var|array)_init|_GLOBAL__(?:sub_)?[ID]_"
)
_STD_HEADER = LatePattern(
    r"stl_\w+\.h|(?:basic_string|regex\w*|std_function|functional_hash)\.(?:h|tcc)|(?:new_)?allocator\.h"
    r"|alloc_traits\.h|char_traits\.h|(?:shared|unique|allocated)_ptr(?:_base)?\.h|hashtable(?:_policy)?\.h"
    r"|unordered_(?:map|set)\.h|(?:vector|deque|list|istream|ostream|fstream|sstream)\.tcc"
    r"|(?:invoke|move|std_thread|ios_base|refwrap|range_access|predefined_ops|atomic_base)\.h"
)
_VERSION = LatePattern(r"(?:\.so)?(?:[-.]\d[\w.]*)?(?: \(deleted\))?$")
# A compiler turns malloc and memset into calloc: what the program asked for is one thing.
_SAME = dict.fromkeys(("calloc", "realloc", "memalign"), "malloc") | {"new[]": "new"}


class Fingerprints:
    """The exact identities of the stacks of one recording.

    An address without a module and a name differs in each run: only its place in the stack counts.
    """

    def __init__(self, recording: Recording) -> None:
        nodes, sites = recording.nodes, recording.sites
        self._parents: list[int] = nodes["parent"].tolist()
        self._modules: list[int] = nodes["module"].tolist()
        self._labels: list[int] = nodes["name"].tolist()
        self._flags = nodes["flags"]
        self._offsets = nodes["offset"].astype("<u8")  # of millions of frames few are asked for
        self._nodes: list[int] = sites["node"].tolist()
        self._kinds: list[int] = sites["kind"].tolist()
        self._kind_names = recording.kinds
        self._named = recording.names
        self._names = [b"?"] + [
            (m.build_id or m.path.rsplit("/", 1)[-1]).encode(errors="replace")
            for m in recording.modules
        ]

    def of(self, site: int) -> str:
        """Return the exact identity of a site's stack and kind."""
        kind = self._kinds[site]
        parts = [bytes([kind]) if kind < len(KIND_NAMES) else _bytes(self._kind_names[kind])]
        node = self._nodes[site]
        while 0 < node < len(self._parents) and len(parts) < _DEEPEST:
            module = self._modules[node]
            label = self._labels[node]
            if 0 < module < len(self._names):
                parts += (self._names[module], self._offsets[node].tobytes())
            elif label:
                parts.append(self._of_name(node, self._named[label - 1]))
            else:
                parts.append(b"?")
            parent = self._parents[node]
            if parent >= node:  # damage
                break
            node = parent
        return _digest(parts)

    def _of_name(self, node: int, name: FrameName) -> bytes:
        module = (name.module_path or "").rsplit("/", 1)[-1]
        parts = [module, name.class_name, name.function or name.symbol]
        if parts[-1] is not None:
            parts += [(name.file or "").rsplit("/", 1)[-1], str(name.line)]
        elif not int(self._flags[node]) & NODE_UNADDRESSED:
            parts.append(hex(int(self._offsets[node])))
        return b"\0".join(_bytes(part or "") for part in parts)


def stable_identity(stack: Sequence[Frame], kind: str) -> str:
    """Return the identity of a stack that a rebuild leaves as it is.

    A frame without a name keeps its module and offset, so that two places without symbols are not
    taken for one; it is then no more stable than the exact identity.
    """
    return _digest([_bytes(_SAME.get(kind, kind)), *_folded(_key(f) for f in _own(stack))])


def stable_names(stack: Sequence[Frame]) -> tuple[str, ...]:
    """Return the functions that the stable identity is made of, without their files and classes.

    A build without debug information, and most other tools, tell nothing but these.
    """
    keys = _folded(_name_key(frame) for frame in _own(stack))
    return tuple(key.decode(errors="backslashreplace") for key in keys)


def _own(stack: Sequence[Frame]) -> list[Frame]:
    own = [frame for frame in stack if not is_runtime(frame) and not _is_header(frame)]
    return own or [frame for frame in stack if not frame.artificial]


def _is_header(frame: Frame) -> bool:
    """Whether it is inlined code of libstdc++, by a file that a tool names without its folder."""
    return frame.file is not None and _STD_HEADER.fullmatch(frame.file) is not None


def _folded(keys: Iterable[bytes]) -> list[bytes]:
    """Leave out what recursed on the way: the same function again counts once."""
    found: list[bytes] = []
    for key in keys:
        if key in found:
            del found[found.index(key) + 1 :]
        else:
            found.append(key)
    return found


def _name_key(frame: Frame) -> bytes:
    name = frame.function or frame.symbol
    return _key(frame) if name is None else _bytes(_plain(name))


def _key(frame: Frame) -> bytes:
    name = frame.function or frame.symbol
    if name is not None:
        file = (frame.file or "").rsplit("/", 1)[-1]
        return b"\0".join(_bytes(part) for part in (_class(frame), _plain(name), file))
    module = _VERSION.sub("", (frame.module_path or "?").rsplit("/", 1)[-1])
    offset = frame.entry
    if offset is None and frame.address is not None and frame.module_path is not None:
        offset = frame.address.offset
    return _bytes(f"{module}\0{'?' if offset is None else hex(offset)}")


def _class(frame: Frame) -> str:
    return frame.class_name or ""


@lru_cache(maxsize=1 << 14)
def _plain(name: str) -> str:
    """`std::vector<A> util::make<A>(int) [clone .isra.0]` is make.

    Debug information names an inlined function without its namespace, the symbol of one that is
    not inlined has it: only the last part is the same in both.
    """
    name = plain_name(_CLONE.sub("", name))
    while (shorter := _BRACKETS.sub("", name)) != name:
        name = shorter
    last = name.rstrip(": ").rsplit("::", 1)[-1]
    return "static initialization" if _INITIALIZER.match(last) else last or name


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _digest(parts: Sequence[bytes]) -> str:
    import hashlib  # here: it loads OpenSSL, and a run without findings needs it for nothing

    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()
