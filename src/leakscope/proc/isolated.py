# SPDX-License-Identifier: Apache-2.0
"""Start a module of ours as a Python of its own that takes no code from where the user stands.

`python -m MODULE` looks for modules in the current directory first, and PYTHON* variables add
others: a `json.py` in somebody else's folder would run with our rights.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import sysconfig
from pathlib import Path

__all__ = ["find_program", "module_command", "module_environment"]

# Run with -I: the interpreter's own path is that of its installation. Ours goes behind the
# standard library, because the places where leakscope and what it needs lie may be others.
_START = """\
import sys
path, name, *rest = sys.argv[1:]
import json, runpy
path = json.loads(path)
sys.path[:] = path
sys.argv[1:] = rest
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""

# What lets others put code or files of theirs into a process that is started with it.
_NEVER = ("PYTHON", "LD_", "GLIBC_TUNABLES", "GCONV_PATH", "MALLOC_", "LEAKSCOPE_")
_KEPT = ("LEAKSCOPE_DEBUG",)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `module`, one of ours, isolated, with `arguments`."""
    return [sys.executable, "-I", "-c", _START, json.dumps(_search_path()), module, *arguments]


def module_environment() -> dict[str, str]:
    """Return our environment without what could put foreign code into a Python of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NEVER) or name in _KEPT
    }
    # Where the interpreter itself needs it; an empty or relative entry means the current folder.
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    if usable := [entry for entry in libraries if entry.startswith("/")]:
        kept["LD_LIBRARY_PATH"] = ":".join(usable)
    return kept


def find_program(name: str) -> str | None:
    """Return the path of a helper program by PATH, never from the current folder."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = f"{folder}/{name}"
        if folder.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _search_path() -> list[str]:
    """The standard library first, then where we ourselves look, without the current folder.

    Unless leakscope itself comes from there, which then is what the user wants.
    """
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    zipped = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    ours = Path(__file__).parents[2]
    first, rest = [], []
    for entry in sys.path:
        if not entry.startswith("/"):
            continue
        folder, _, name = entry.rpartition("/")
        if entry in standard or (folder in standard and name == "lib-dynload") or name == zipped:
            first.append(entry)
        elif not _is_here(entry) or _same(entry, str(ours)):
            rest.append(entry)
    return [*first, *dict.fromkeys(rest)]


def _is_here(entry: str) -> bool:
    return _same(entry, ".")


def _same(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return False
