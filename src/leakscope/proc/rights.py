# SPDX-License-Identifier: Apache-2.0
"""Open files that somebody else names, with the rights of the one who names them.

A recording, a program and its debug information name files. Whoever reads them as root must not
be made to quote what their author may not read. A file is therefore opened as each author of its
name, in a thread whose file-system credentials are his: the kernel decides, and nothing can be
exchanged in between. Who has no privilege to do that opens it with his own rights, and then
looks whether the permissions let the author read it too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import pwd
import stat
import struct
import threading
from functools import lru_cache
from typing import TYPE_CHECKING

from leakscope.proc.text import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["folder_of_process", "foreign_root", "open_named", "owner_of_process"]

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NOBODY = 65534
_PATIENCE_S = 5.0  # a file system in user space may never answer
_SETGROUPS = {"x86_64": 116, "aarch64": 159}.get(platform.machine())
_OPENAT2 = 437  # on every machine
_NO_MAGIC_LINKS, _IN_ROOT = 0x02, 0x10
_CAPABILITIES = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_OVERRIDE = 1 << 1 | 1 << 2 | 1 << 7  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETUID

_libc = ctypes.CDLL(None, use_errno=True)


def open_named(path: str, authors: Iterable[int] = (), root: str | None = None) -> int:
    """Return a descriptor of the regular file `path` if every one of `authors` may read it.

    `authors` are user numbers; root and we ourselves restrict nothing. `root` is the root
    directory that the path belongs to, such as /proc/PID/root: no symbolic link leads out of
    it. Raises `OSError`, also for whatever is no regular file.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, "a zero byte in its name")
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if root is not None else -1
    try:
        others = sorted({*authors} - {0, os.geteuid()})
        found = _open(path, base)
        try:
            for author in others:
                _check(path, base, found, author)
        except BaseException:
            os.close(found)
            raise
    finally:
        if base >= 0:
            os.close(base)
    return found


def owner_of_process(pid: int) -> int | None:
    """Return the user whose rights on files a process has, None when it cannot be told."""
    for line in read_lines(f"/proc/{pid}/status"):
        if line.startswith("Uid:"):
            return int(line.split()[4])
    return None


def foreign_root(pid: int) -> str | None:
    """Return the root directory of a process where it sees other files than we do, else None."""
    root = f"/proc/{pid}/root"
    try:
        theirs, ours = os.stat(root), os.stat("/")
        same = (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
        links = [os.readlink(f"/proc/{who}/ns/mnt") for who in (pid, "self")]
        return None if same and links[0] == links[1] else root
    except OSError:
        return None  # not ours to look at, or gone: then its files are not either


@contextlib.contextmanager
def folder_of_process(pid: int, path: str) -> Iterator[str]:
    """Yield a name for the directory that a process calls `path`, which holds while it is used.

    No symbolic link leads out of the root of the process. Raises `OSError`.
    """
    root, flags = foreign_root(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    base = -1 if root is None else os.open(root, flags)
    try:
        fd = _descriptor(path, base, flags)
    finally:
        if base >= 0:
            os.close(base)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _open(path: str, base: int) -> int:
    """Open a regular file; devices and the like are not even opened."""
    place = _descriptor(path, base, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        # The very file that was looked at, with the rights of this thread.
        return os.open(f"/proc/self/fd/{place}", _FLAGS)
    except FileNotFoundError:
        if os.path.isdir("/proc/self/fd"):
            raise
        fd = _descriptor(path, base, _FLAGS)  # no /proc here
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file") from None
        return fd
    finally:
        os.close(place)


def _descriptor(path: str, base: int, flags: int) -> int:
    if base < 0:
        return os.open(path, flags)
    how = struct.pack("=QQQ", flags, 0, _NO_MAGIC_LINKS | _IN_ROOT)
    text = ctypes.c_char_p(os.fsencode(path))
    fd = _libc.syscall(_OPENAT2, base, text, how, len(how))
    if fd < 0:
        number = ctypes.get_errno()
        if number in (errno.ENOSYS, errno.EPERM):  # before Linux 5.6, or kept from us
            return _step_by_step(path, base, flags)
        raise OSError(number, os.strerror(number), path)
    return int(fd)


def _step_by_step(path: str, base: int, flags: int) -> int:
    """Open a path below `base` that holds no symbolic link."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names or not names:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    at = os.dup(base)
    try:
        for name in names[:-1]:
            step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, step, dir_fd=at)
            os.close(at)
            at = below
        return os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)


def _check(path: str, base: int, found: int, author: int) -> None:
    """Raise `OSError` unless `author` may read the open file, too, under that path."""
    try:
        mine = _as_author(author, lambda: _open(path, base))
    except _UnableError:
        if not _permitted(found, author):
            raise PermissionError(errno.EACCES, "its author may not read it") from None
        return
    try:
        if not os.path.sameopenfile(mine, found):
            raise PermissionError(errno.EACCES, "its author sees another file there")
    finally:
        os.close(mine)


class _UnableError(Exception):
    """We may not take on the credentials of somebody else."""


def _as_author(author: int, call: Callable[[], int]) -> int:
    """Return what `call` returns in a thread that has the file-system rights of `author`."""
    if not _privileged() or _SETGROUPS is None:
        raise _UnableError
    group, groups = _groups_of(author)
    result: list[int | OSError | _UnableError] = []
    late = threading.Event()

    def work() -> None:
        try:
            _become(author, group, groups)
            fd = call()
        except (OSError, _UnableError) as error:
            result.append(error)
            return
        result.append(fd)
        if late.is_set():
            os.close(fd)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if thread.is_alive():
        late.set()
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    answer = result[0] if result else _UnableError()
    if isinstance(answer, int):
        return answer
    raise answer


def _become(author: int, group: int, groups: tuple[int, ...]) -> None:
    """Give the calling thread, and it alone, the file-system rights of `author`, for good."""
    # The system calls themselves: the C library's setgroups would change every thread.
    numbers = (ctypes.c_uint32 * max(len(groups), 1))(*groups)
    if _libc.syscall(_SETGROUPS, ctypes.c_long(len(groups)), numbers) != 0:
        raise _UnableError
    nothing = ctypes.c_uint32(0xFFFFFFFF)
    for change, number in ((_libc.setfsgid, group), (_libc.setfsuid, author)):
        change(ctypes.c_uint32(number))
        if change(nothing) != number:  # it returns what was in force before
            raise _UnableError
    # Whoever is not root keeps capabilities when his file-system user changes.
    head = struct.pack("=Ii", _CAPABILITIES, 0)
    data = ctypes.create_string_buffer(24)
    if _libc.capget(head, data) != 0:
        raise _UnableError
    words = list(struct.unpack("=6I", data.raw))
    words[0] = words[3] = 0  # the effective ones
    if _libc.capset(head, struct.pack("=6I", *words)) != 0:
        raise _UnableError


def _privileged() -> bool:
    """Whether we may read what others may not, and act as others."""
    for line in read_lines("/proc/thread-self/status"):
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _OVERRIDE)
    return os.geteuid() == 0


@lru_cache(maxsize=256)
def _groups_of(user: int) -> tuple[int, tuple[int, ...]]:
    """The group of a user and all that he is in; nobody's where he has no entry."""
    try:
        entry = pwd.getpwuid(user)
        return entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    except (KeyError, OSError):
        return _NOBODY, ()


def _permitted(fd: int, author: int) -> bool:
    """Whether permission bits let `author` read an open file and reach it where it lies."""
    status = os.fstat(fd)
    if not _allows(status, author, stat.S_IRUSR):
        return False
    with contextlib.suppress(OSError):
        if "system.posix_acl_access" in os.listxattr(fd) and status.st_uid != author:
            return False  # may name him, either way
    try:
        place = os.readlink(f"/proc/self/fd/{fd}")
        while place not in ("", "/"):
            place = os.path.dirname(place)
            if not _allows(os.stat(place), author, stat.S_IXUSR):
                return False
    except OSError:
        return False
    return True


def _allows(status: os.stat_result, author: int, bit: int) -> bool:
    if status.st_uid == author:
        return bool(status.st_mode & bit)
    group, groups = _groups_of(author)
    if status.st_gid == group or status.st_gid in groups:
        return bool(status.st_mode & bit >> 3)
    return bool(status.st_mode & bit >> 6)
