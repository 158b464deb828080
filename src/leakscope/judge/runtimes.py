# SPDX-License-Identifier: Apache-2.0
"""Run-times that keep a heap of their own inside the process, which no hook of malloc sees into.

What such a run-time itself takes from malloc and mmap says nothing about the program's objects;
each has its own tool for them, and a report names it first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope._patterns import LatePattern
from leakscope.model.recordings import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

__all__ = ["Runtime", "arena_sites", "go_in", "runtime_own", "runtimes_mapped", "runtimes_of"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A run-time: how it is known, and what to use for its heap."""

    name: str
    module: LatePattern | None  # objects that are, or contain, it; None: known by its stacks
    tool: str
    own: LatePattern | None = None
    """Objects whose allocations are the run-time's own; None: they are judged as the program's."""
    arenas: tuple[int, ...] = ()
    """Sizes of its mappings, when it can be told to do without them."""

    @property
    def sentence(self) -> str:
        """What a report says first."""
        return f"{self.name} runs in this process and keeps objects in a heap of its own, which is not seen from here: {self.tool}"


def _named(pattern: str) -> LatePattern:
    return LatePattern(rf"(?:^|/)(?:{pattern})(?: \(deleted\))?$")


_JVM = _named(r"lib(?:jvm|java|jli|jimage|zip|net|nio|verify|j9\w*)\.so|java")
_V8 = _named(r"(?:node|nodejs|deno|electron|chrome|chromium)|lib(?:node|v8[\w-]*)\.so[.\d]*")

_GO_RUNTIME = Runtime(
    "Go's run-time",
    None,
    "its tool is `go tool pprof` with a heap profile (runtime/pprof); what C code allocates is seen here",
)
_KNOWN = (
    Runtime(
        "a Java virtual machine",
        _named(r"libjvm\.so|libj9vm\w*\.so"),
        "`leakscope java watch PID` sees it, and `leakscope java dump PID` shows who holds it",
        own=_JVM,
    ),
    Runtime(
        "V8 (JavaScript)",
        _V8,
        "its tool is a heap snapshot: --heapsnapshot-signal=SIGUSR2, or --inspect",
        own=_V8,
    ),
    Runtime(
        ".NET",
        _named(r"libcoreclr\.so"),
        "its tools are dotnet-counters and dotnet-gcdump",
        own=_named(r"lib(?:coreclr|clrjit|hostfxr|hostpolicy|System\.Native)\.so"),
    ),
    Runtime(
        "Erlang's BEAM",
        _named(r"beam(?:\.smp)?"),
        "its tool is `recon_alloc` or `observer`",
        own=_named(r"beam(?:\.smp)?"),
    ),
    Runtime(
        "CPython",
        _named(r"libpython[23][\w.]*\.so[.\d]*|python[23]?[.\d]*"),
        "run it with PYTHONMALLOC=malloc to see each object here, or use tracemalloc or memray",
        arenas=(1 << 18, 1 << 20),  # of pymalloc, before and since 3.10
    ),
    Runtime(
        "PHP",
        _named(r"php(?:-cgi|-fpm)?[.\d]*|libphp[.\d]*\.so"),
        "run it with USE_ZEND_ALLOC=0 to see each object here",
        arenas=(1 << 21,),
    ),
)
_GO_FUNCTION = LatePattern(
    r"^(?:runtime\.(?:asmcgocall|cgocall|callCgoMmap|mstart\w*)\b|x_cgo_\w+$)"
)
_GO_HEAP = "x_cgo_mmap"  # maps what Go's heap and its run-time are made of
_C_LIBRARY = LatePattern(r"(?:^|/)(?:libc|ld-linux|ld-musl|libpthread|libstdc\+\+)[-.][^/]*$")


def runtimes_of(recording: Recording) -> tuple[Runtime, ...]:
    """Return the run-times in the process whose objects are not seen, those that see them left out."""
    paths = [module.path for module in recording.modules]
    return tuple(
        each
        for each in _KNOWN
        if any(each.module.search(path) for path in paths if each.module is not None)
        and (not each.arenas or _maps(recording, each))
    )


def runtimes_mapped(paths: Sequence[str], *, is_go: bool) -> tuple[Runtime, ...]:
    """Return the run-times in a process that nobody traces, by the files that it has mapped."""
    found = tuple(
        each
        for each in _KNOWN
        if each.module is not None and any(each.module.search(path) for path in paths)
    )
    return (*found, _GO_RUNTIME) if is_go else found


def _maps(recording: Recording, runtime: Runtime) -> bool:
    """Whether the run-time maps its arenas: told to use malloc, it maps none."""
    return bool(_mapped_by(recording, runtime).any())


def _mapped_by(recording: Recording, runtime: Runtime) -> npt.NDArray[np.bool_]:
    """Which sites are those where a run-time maps its arenas."""
    sites = recording.sites
    assert runtime.module is not None
    ours = [i + 1 for i, m in enumerate(recording.modules) if runtime.module.search(m.path)]
    found: npt.NDArray[np.bool_] = (sites["kind"] == Kind.MMAP) & (sites["allocs"] > 0)
    found &= np.isin(recording.nodes["module"][sites["node"]], ours)
    each = sites["alloc_bytes"] // np.maximum(sites["allocs"], 1)
    whole = np.zeros(len(sites), dtype=bool)
    for size in runtime.arenas:
        whole |= each % np.uint64(size) == 0
    return found & whole


def arena_sites(recording: Recording) -> npt.NDArray[np.bool_]:
    """Which sites are those where a run-time maps arenas for objects that it keeps count of."""
    found = np.zeros(len(recording.sites), dtype=bool)
    for each in _KNOWN:
        if each.arenas:
            found |= _mapped_by(recording, each)
    return found


def go_in(stacks: Iterable[Sequence[Frame]]) -> tuple[Runtime, ...]:
    """Return Go's run-time when one of the stacks came from Go code."""
    for stack in stacks:
        for frame in stack:
            name = frame.function or frame.symbol
            if name is not None and _GO_FUNCTION.match(name):
                return (_GO_RUNTIME,)
    return ()


def runtime_own(stack: Sequence[Frame], runtimes: Sequence[Runtime]) -> str | None:
    """Return why what a run-time took for itself is quiet; None when the program asked for it."""
    if stack and (stack[0].function or stack[0].symbol) == _GO_HEAP:
        return f"run-time: {_GO_RUNTIME.name}"
    for each in runtimes:
        if each.own is None:
            continue
        first = next(
            (f for f in stack if f.module_path and not _C_LIBRARY.search(f.module_path)), None
        )
        if first is not None and each.own.search(first.module_path or ""):
            return f"run-time: {each.name}"
    return None
