# SPDX-License-Identifier: Apache-2.0
"""Turn mangled C++ and Rust names into readable ones; a name nobody can read stays as it is.

Rust is done here. C++ is done by `__cxa_demangle` of the system's libstdc++ (or libc++abi),
else by c++filt. Names are hostile input and that code was not written for it: a short
name can ask for gigabytes or endless recursion. So it runs in a child process with limits on
time and memory, one child for a whole batch.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from leakscope.proc.isolated import find_program
from leakscope.symbols._rust import demangle_rust

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["demangle"]

_MAX_NAME = 1 << 13  # bytes of a mangled name that we try
_SECONDS = 10.0
_MEMORY = 1 << 30
_TRIES = 4  # children that may die before the rest stays mangled

_CLONE = re.compile(r"(?: \[clone [^]]*\])+\Z")
_SUFFIX = re.compile(
    r"(?:\.(?:isra|constprop|part|cold|lto_priv|llvm|localalias|clone)(?:\.\d+)*)+\Z"
)

# Runs with nothing of ours loaded: one line in, one line out, empty when it is no C++ name.
_CHILD = """\
import ctypes, sys
library = None
for name in ("libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"):
    try:
        library = ctypes.CDLL(name)
        call = library.__cxa_demangle
        break
    except (OSError, AttributeError):
        library = None
if library is None:
    sys.exit(3)
free = ctypes.CDLL(None).free
call.restype = ctypes.c_void_p
call.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
free.argtypes = [ctypes.c_void_p]
status = ctypes.c_int()
for line in sys.stdin.buffer:
    made = call(line.rstrip(b"\\n"), None, None, ctypes.byref(status))
    text = b""
    if made:
        text = ctypes.string_at(made)
        free(made)
    sys.stdout.buffer.write((text if len(text) < 65536 and b"\\n" not in text else b"") + b"\\n")
    sys.stdout.buffer.flush()
"""


def demangle(symbols: Iterable[str]) -> dict[str, str]:
    """Return a readable name for each symbol; clone suffixes such as `.cold` are dropped."""
    found: dict[str, str] = {}
    wanted: list[str] = []
    for symbol in dict.fromkeys(symbols):
        rust = demangle_rust(symbol)
        if rust is not None:
            found[symbol] = rust
        elif symbol.startswith("_Z") and len(symbol) <= _MAX_NAME and symbol.isprintable():
            wanted.append(symbol)
        else:
            found[symbol] = symbol if symbol.startswith("_Z") else _SUFFIX.sub("", symbol) or symbol
    for symbol, text in zip(wanted, _cxx(wanted), strict=True):
        found[symbol] = _CLONE.sub("", text) if text else symbol
    return found


def _cxx(symbols: Sequence[str]) -> list[str]:
    """The readable names, "" where there is none."""
    answers: list[str] = []
    for _ in range(_TRIES):
        if len(answers) >= len(symbols):
            break
        rest = symbols[len(answers) :]
        status, lines = _run([sys.executable, "-I", "-S", "-c", _CHILD], rest)
        if status == 3 or status is None:
            tool = find_program("c++filt")
            if tool is None:
                break
            status, lines = _run([tool], rest)
            lines = ["" if a == b else a for a, b in zip(lines, rest, strict=False)]
        answers += lines[: len(rest)]
        if len(answers) < len(symbols):
            answers.append("")  # the one it died of
    return answers + [""] * (len(symbols) - len(answers))


def _run(command: list[str], symbols: Sequence[str]) -> tuple[int | None, list[str]]:
    """The exit status (None: could not start or was stopped) and the whole lines it wrote."""
    if not command[0]:
        return None, []
    text = "".join(f"{symbol}\n" for symbol in symbols).encode("utf-8", "replace")
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        ) as child:
            _limit(child.pid)
            try:
                output, _ = child.communicate(text, timeout=_SECONDS)
                status: int | None = child.returncode
            except subprocess.TimeoutExpired:
                child.kill()
                output, _ = child.communicate()
                status = child.returncode
    except OSError:
        return None, []
    return status, output.decode("utf-8", "replace").split("\n")[:-1]


def _limit(pid: int) -> None:
    # From outside: a function to run between fork and exec is not safe when there are threads.
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_CPU, (int(_SECONDS), int(_SECONDS) + 1))
    except (OSError, ValueError, ProcessLookupError):
        pass
