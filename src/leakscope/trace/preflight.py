# SPDX-License-Identifier: Apache-2.0
"""Look at a program before it is started, and tell whether the agent can be preloaded into it.

Everything LD_PRELOAD cannot do is said here, before anything runs and before anything is
written: which file, why not, and what else can be done with tools that exist today.
"""

from __future__ import annotations

import os
import platform
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from leakscope._paths import current, exists, is_file, is_link, resolved
from leakscope.errors import TargetError
from leakscope.proc import elf
from leakscope.proc.status import read_status

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Program", "find_program", "inspect_program"]

_SCRIPT_LINE = 256  # BINPRM_BUF_SIZE: what the kernel reads of a file before it decides
_SCRIPT_DEPTH = 5  # the kernel's own limit on interpreters of interpreters
_SANITIZERS = {
    "__asan_init": ("AddressSanitizer", "libasan.so"),
    "__msan_init": ("MemorySanitizer", "libmsan.so"),
    "__tsan_init": ("ThreadSanitizer", "libtsan.so"),
    "__hwasan_init": ("HWAddressSanitizer", "libhwasan.so"),
}
_MALLOC_NAMES = ("malloc", "free")
_CLEANERS = frozenset({"sudo", "doas", "pkexec"})  # they start the program with a new environment
_USER_CHANGERS = frozenset({"su", "runuser", "setpriv", "gosu", "su-exec", "chpst"})
_RUNNERS = {".py": "python3", ".sh": "sh", ".bash": "bash", ".pl": "perl", ".rb": "ruby"}
_OF_STATIC = (
    "leave out -static when linking it; or start it alone, and record it with `leakscope attach"
    " PID`, which takes its symbols; without them, have leakscope.h log what it allocates"
    " (`leakscope header --help`)"
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be traced."""

    path: str  # the file that is executed
    interpreters: tuple[str, ...]  # of a script, outermost first; the last one is an ELF file
    libc: str | None  # "glibc", "musl", the loader's path, or None when nobody could tell
    needed: tuple[str, ...] = ()  # libraries of the ELF file that will run
    notes: tuple[str, ...] = ()  # what the user should know although it works

    @property
    def image(self) -> str:
        """The ELF file that the kernel will load first."""
        return self.interpreters[-1] if self.interpreters else self.path


def find_program(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the file that a shell would start for `name`.

    Raises `TargetError` when it is missing, no file, or not executable.
    """
    if not name:
        raise TargetError("the program's name is empty", hint="Give it after `--`.")
    if "/" in name:
        return _executable(name, name)
    refused: TargetError | None = None
    for folder in environment.get("PATH", os.defpath).split(":"):
        path = f"{folder or '.'}/{name}"
        try:
            return _executable(path, name)
        except TargetError as error:
            # As execvp does: a file that may not be executed is remembered, and passed over.
            if refused is None and is_file(path):
                refused = error
    if refused is not None:
        raise refused
    if is_file(name):
        raise TargetError(
            f"there is no program {name} in PATH, only a file {name} in the current directory",
            hint=f"Say ./{name} if that one is meant.",
        )
    raise TargetError(
        f"there is no program {name} in PATH",
        hint="Give it with its folder, or add that to PATH.",
    )


def inspect_program(name: str, environment: Mapping[str, str] = os.environ) -> Program:
    """Find `name` and make sure that the agent can be loaded into it.

    Follows scripts to their interpreters, also through env. Raises `TargetError` with the
    reason and what else can be done.
    """
    return _inspect(find_program(name, environment), environment, 0)


def _executable(path: str, name: str) -> str:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        if is_link(path):
            _refuse(f"{path} is a symbolic link to {Path(path).readlink()!s}, which does not exist")
        folder = None if name.startswith("/") else current()
        hint = "Check its path." if folder is None else f"It was looked for from {folder}."
        _refuse(f"there is no program {name}", hint)
    except OSError as error:
        _refuse(f"cannot look at {path}: {error.strerror}")
    if stat.S_ISDIR(status.st_mode):
        _refuse(f"{path} is a directory, not a program")
    if not stat.S_ISREG(status.st_mode):
        _refuse(f"{path} is not a regular file, so it cannot be executed")
    if not os.access(path, os.X_OK):
        if status.st_mode & 0o111 and _mounted_noexec(path):
            _refuse(
                f"{path} cannot be executed: its file system is mounted noexec",
                "Copy it to a file system that allows execution.",
            )
        runner = _RUNNERS.get(Path(path).suffix)
        _refuse(
            f"{path} is not executable by this user",
            f"Make it executable: chmod +x {path}"
            + (f", or start its interpreter: leakscope run -- {runner} {path}" if runner else ""),
        )
    return path


def _refuse(message: str, hint: str | None = None) -> NoReturn:
    raise TargetError(message, hint=hint)


def _mounted_noexec(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)


def _inspect(path: str, environment: Mapping[str, str], depth: int) -> Program:
    _refuse_raised_privileges(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        # Execute-only files run; what they are nobody can look up.
        note = f"{path} may not be read, so it could not be checked beforehand"
        return Program(path, (), None, notes=(note,))
    except OSError as error:
        _refuse(f"cannot read {path}: {error.strerror}")
    try:
        start = os.pread(fd, _SCRIPT_LINE, 0)
    finally:
        os.close(fd)
    if not start:
        _refuse(f"{path} is empty")
    if start[:2] == b"#!":
        return _inspect_script(path, start, environment, depth)
    if start[:4] != b"\x7fELF":
        _refuse(
            f"{path} is neither an ELF program nor a script that starts with #!",
            f"If it is a shell script: leakscope run -- sh {path}",
        )
    return _inspect_elf(path)


def _inspect_script(path: str, start: bytes, environment: Mapping[str, str], depth: int) -> Program:
    line = start[2:].split(b"\n")[0].split(b"\0")[0]
    words = os.fsdecode(line.strip(b" \t")).split(None, 1)
    if not words:
        _refuse(f"the first line of the script {path} names no interpreter")
    interpreter = words[0]
    if depth >= _SCRIPT_DEPTH:
        _refuse(f"the interpreter of {path} is a script of a script, too deep for the kernel")
    if line.endswith(b"\r"):
        _refuse(
            f"the first line of the script {path} ends with a carriage return, so the kernel"
            f" looks for an interpreter of that name",
            f"Convert its line ends: sed -i 's/\\r$//' {path}",
        )
    try:
        found = _inspect(_executable(interpreter, interpreter), environment, depth + 1)
        chain = [found.path, *found.interpreters]
        if Path(interpreter).name == "env" and len(words) > 1:
            name = _env_command(words[1])
            if name is not None:
                found = _inspect(find_program(name, environment), environment, depth + 1)
                chain += [found.path, *found.interpreters]
    except TargetError as error:
        raise TargetError(
            f"{path} is a script and its interpreter will not do: {error}", hint=error.hint
        ) from error
    return replace(found, path=path, interpreters=tuple(chain))


def _env_command(argument: str) -> str | None:
    """The program that `#!/usr/bin/env ARGUMENT` starts."""
    words = argument.split()
    if not argument.startswith("-"):
        return argument.strip()  # the kernel hands over one argument, blanks and all
    for word in words[1:] if words[0] in ("-S", "--split-string") else ():
        if not word.startswith("-") and "=" not in word:
            return word
    return None  # an option we do not know: env will tell


def _refuse_raised_privileges(path: str) -> None:
    """The loader ignores LD_PRELOAD when exec raises privileges ("secure execution")."""
    status = Path(path).stat()
    me = read_status()
    if me.no_new_privs or os.statvfs(path).f_flag & os.ST_NOSUID:
        return  # the kernel will raise nothing
    copy = f"trace a copy without it: cp {path} /tmp/ && leakscope run -- /tmp/{Path(path).name}"
    if Path(path).name in _CLEANERS | {"su"} and me.uid != 0:
        _refuse(
            f"{path} runs with the privileges of its owner (setuid), so the loader ignores"
            f" LD_PRELOAD in it",
            f"Put it outside: {Path(path).name} leakscope run -- PROGRAM",
        )
    if status.st_mode & stat.S_ISUID and status.st_uid != me.uid:
        _refuse(
            f"{path} is a setuid program of another user, so the loader ignores LD_PRELOAD in it",
            f"Run leakscope as its owner (uid {status.st_uid}), or {copy}",
        )
    group_exec = status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP
    if group_exec and status.st_gid != me.gid:
        _refuse(
            f"{path} is a setgid program, so the loader ignores LD_PRELOAD in it",
            f"Run leakscope with its group (gid {status.st_gid}), or {copy}",
        )
    if me.uid != 0 and _has_file_capabilities(path):
        _refuse(
            f"{path} has file capabilities, so the loader ignores LD_PRELOAD in it",
            f"Run leakscope as root, or {copy}",
        )


def _has_file_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False  # none, or a file system without them


def _inspect_elf(path: str) -> Program:
    wanted = (*_SANITIZERS, *_MALLOC_NAMES)
    program = elf.read_elf(path, wanted)
    here = platform.machine()
    if program.bits == 32:
        _refuse(
            f"{path} is a 32-bit program ({program.machine}); the agent is 64-bit and a loader"
            f" takes libraries of its own kind only",
            "Build it for 64 bits, or run valgrind, which has a 32-bit half.",
        )
    if program.machine != here:
        _refuse(
            f"{path} is a program for {program.machine} and this machine is {here}",
            f"Install and run leakscope on a {program.machine} machine.",
        )
    if program.type == elf.ET_REL:
        _refuse(f"{path} is an object file, not a program", "Link it first.")
    if program.type == elf.ET_CORE:
        _refuse(f"{path} is a core dump, not a program")
    if program.interpreter is None:
        return _inspect_without_loader(path, program)
    if not exists(program.interpreter):
        _refuse(
            f"{path} needs the loader {program.interpreter}, which is not on this machine",
            "Install the C library it was built for (musl: package musl), or use its container.",
        )
    _refuse_own_malloc(path, program)
    return Program(path, (), _libc(program.interpreter), program.needed, _notes(path, program))


def _inspect_without_loader(path: str, program: elf.Elf) -> Program:
    if resolved(path).name.startswith(("ld-", "ld.", "libc.so", "libc.musl")):
        note = f"{path} is a loader; the program it starts was not checked"
        return Program(path, (), _libc(path), notes=(note,))
    if program.type == elf.ET_DYN and program.dynamic and not program.pie:
        _refuse(f"{path} is a shared library, not a program")
    if program.is_go:
        _refuse(
            f"{path} is a static Go program: no loader runs in it, so nothing can be preloaded,"
            f" and its memory comes from Go's own heap, not from malloc",
            "Use Go's heap profile (runtime/pprof, or net/http/pprof in a server).",
        )
    _refuse(
        f"{path} is statically linked: no loader runs in it, so LD_PRELOAD has no effect"
        f" (valgrind, heaptrack and a preloaded LeakSanitizer cannot see its malloc either)",
        _sentence(_OF_STATIC),
    )


def _refuse_own_malloc(path: str, program: elf.Elf) -> None:
    for symbol, (name, library) in _SANITIZERS.items():
        linked = any(needed.startswith(library) for needed in program.needed)
        if linked or symbol in program.exports:
            _refuse(
                f"{path} was built with {name}, which replaces malloc itself and refuses to run"
                f" behind a preloaded library",
                "Build it without the sanitizer"
                + ("." if name != "AddressSanitizer" else ", or run it alone: it reports leaks."),
            )
    if program.exports.issuperset(_MALLOC_NAMES):
        _refuse(
            f"{path} defines malloc itself (an allocator is linked into it statically), and the"
            f" program's own definition comes before any preloaded one",
            "Link the allocator as a shared library (-ljemalloc, -ltcmalloc, -lmimalloc), or use"
            " its own heap profiler (jemalloc: MALLOC_CONF=prof:true,prof_leak:true).",
        )


def _libc(loader: str) -> str:
    name = Path(loader).name
    if name.startswith(("ld-musl", "libc.musl")):
        return "musl"
    if name.startswith(("ld-linux", "ld-2.", "ld.so")):
        return "glibc"
    return loader


def _notes(path: str, program: elf.Elf) -> tuple[str, ...]:
    notes = []
    if program.is_go:
        notes.append(
            f"{path} is a Go program: only what its C parts allocate is seen, not Go's own heap"
        )
    name = Path(path).name
    if name in _CLEANERS and os.geteuid() != 0:
        notes.append(
            f"{name} clears the environment, so what it starts is not traced;"
            f" put it outside: {name} leakscope run -- PROGRAM"
        )
    if name in _USER_CHANGERS and os.geteuid() != 0:
        notes.append(
            f"{name} changes the user, and the new user may not write this user's recordings;"
            f" put it outside: {name} ... leakscope run -- PROGRAM"
        )
    return tuple(notes)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
