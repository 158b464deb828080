# SPDX-License-Identifier: Apache-2.0
"""Which Java virtual machines run here, and whose they are."""

from __future__ import annotations

import os
import pwd
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from leakscope.errors import TargetError
from leakscope.java import perf_data
from leakscope.proc.process import pids, read_start, refuse_thread
from leakscope.proc.rights import folder_of_process, foreign_root
from leakscope.proc.text import read_text

__all__ = ["Machine", "find_machine", "find_machines", "memory_of"]

_SIGQUIT = 3
_HOTSPOT = "hotspot"
_OPENJ9 = re.compile(r"libj9vm\d{1,3}\.so")
_FOLDER = re.compile(r"hsperfdata_[^/]{1,256}")


@dataclass(frozen=True, slots=True)
class Machine:
    """One virtual machine. `inner_pid` is its number in its own namespace.

    `mine` tells whether it can be asked by us; `answers_signal` whether SIGQUIT is safe to send.
    """

    pid: int
    inner_pid: int
    uid: int
    user: str
    name: str
    start: int
    hotspot: bool
    answers_signal: bool
    counters_path: str | None

    @property
    def mine(self) -> bool:
        """Whether the user who asks may ask it: its own user, and root."""
        return os.geteuid() in (0, self.uid)

    def counters(self) -> perf_data.PerfCounters | None:
        """Return its counters now; None where it keeps none, or they are not for us to read."""
        if self.counters_path is None:
            return None
        return perf_data.read(self.counters_path, self.uid, foreign_root(self.pid))


def find_machines() -> list[Machine]:
    """Return all virtual machines that can be seen, by pid."""
    found = []
    for pid in sorted(pids()):
        machine = _machine(pid)
        if machine is not None:
            found.append(machine)
    return found


def find_machine(pid: int) -> Machine:
    """Return one virtual machine. Raises `TargetError` in a sentence on what it is instead."""
    if read_start(pid) is None:
        raise TargetError(f"there is no process {pid}")
    refuse_thread(pid)
    machine = _machine(pid)
    if machine is None:
        raise TargetError(
            f"process {pid} ({_comm(pid)}) is no Java virtual machine",
            hint="`leakscope java` lists those that run here.",
        )
    return machine


def _comm(pid: int) -> str:
    return (read_text(f"/proc/{pid}/comm") or "?").strip()


def _machine(pid: int) -> Machine | None:
    start = read_start(pid)
    if start is None or pid == os.getpid():
        return None
    hotspot = _kind(pid)
    if hotspot == "" or (hotspot is None and not _called_java(pid)):
        return None
    status = read_text(f"/proc/{pid}/status") or ""
    uid = int(_found(r"^Uid:\s+\d+\s+(\d+)", status, "0"))
    inner = _found(r"^NSpid:\s+(?:\d+\s+)*(\d+)$", status, str(pid))
    caught = _found(r"^SigCgt:\s+([0-9a-f]+)", status, "0")
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    path = _counters_path(pid, int(inner), uid)
    counters = None if path is None else perf_data.read(path, uid, foreign_root(pid))
    name = (counters.command if counters is not None else "") or _command(pid)
    safe = bool(int(caught, 16) >> (_SIGQUIT - 1) & 1)
    return Machine(pid, int(inner), uid, user, name, start, hotspot == _HOTSPOT, safe, path)


def _found(pattern: str, text: str, otherwise: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return otherwise if match is None else str(match[1])


def _kind(pid: int) -> str | None:
    """Which virtual machine is mapped, "": none; None: that is not for us to see.

    OpenJ9 has a library of HotSpot's name as well, and answers SIGQUIT with a file.
    """
    found = ""
    try:
        with Path(f"/proc/{pid}/maps").open(encoding="utf-8", errors="replace") as maps:
            for line in maps:
                name = line.rstrip().removesuffix(" (deleted)").rpartition("/")[2]
                if _OPENJ9.fullmatch(name) is not None:
                    return "openj9"
                if name == "libjvm.so":
                    found = _HOTSPOT
    except OSError:
        return None
    return found


def _called_java(pid: int) -> bool:
    return _comm(pid) == "java"


def _command(pid: int) -> str:
    """The main class or archive, from the command line."""
    words = (read_text(f"/proc/{pid}/cmdline") or "").split("\0")
    at = 1
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "-jar":
            return " ".join(words[at + 1 : at + 3]).strip()
        at += 2 if words[at] in ("-cp", "-classpath", "-p", "--class-path", "--module-path") else 1
    return " ".join(words[at : at + 2]).strip() or _comm(pid)


def _counters_path(pid: int, inner: int, uid: int) -> str | None:
    """Return where its counters are, as it calls that."""
    with suppress(OSError), folder_of_process(pid, "/tmp") as folder:  # noqa: S108 - HotSpot's place
        for name in os.listdir(folder):  # noqa: PTH208 - thousands of names
            if _FOLDER.fullmatch(name) and _is_of(f"{folder}/{name}/{inner}", uid):
                return f"/tmp/{name}/{inner}"  # noqa: S108
    return None


def _is_of(path: str, uid: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == uid


def memory_of(pid: int) -> int | None:
    """Return the bytes of private memory of a process that are in use; None when it is gone."""
    status = read_text(f"/proc/{pid}/status") or ""
    found = re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB", status, re.MULTILINE)
    return sum(int(each) for each in found) * 1024 if found else None
