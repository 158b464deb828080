# SPDX-License-Identifier: Apache-2.0
"""Ask a HotSpot virtual machine, by its attach protocol: what jcmd does, without a JDK.

A file .attach_pid in its directory and SIGQUIT make it open the socket /tmp/.java_pid; a request
is a version and four words that end in zero bytes, the answer a status and text. SIGQUIT ends what
does not expect it, so it is sent only where the signal is caught by a virtual machine.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.proc.process import read_start
from leakscope.proc.rights import folder_of_process, foreign_root, open_named
from leakscope.proc.text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.java.machines import Machine

__all__ = ["ask", "jcmd"]

_PATIENCE_S = 10.0
_PAUSE_S = 0.02
_MOST = 64 << 20  # bytes of an answer
_WORDS = 3
_CREDENTIALS = struct.Struct("iII")  # of SO_PEERCRED: pid, uid, gid
_MOST_OPTIONS = 1 << 20  # bytes of a file of options
_VARIABLES = ("JAVA_TOOL_OPTIONS=", "JDK_JAVA_OPTIONS=", "_JAVA_OPTIONS=")
_TOLD, _CUT = ("Args", "Flags"), 1000  # counters that tell options, and where they are cut
_FILES = ("@", "-XX:Flags=", "-XX:VMOptionsFile=")


def jcmd(machine: Machine, command: str, *, patience_s: float = _PATIENCE_S) -> str:
    """Run a diagnostic command, such as "GC.class_histogram", and return its text.

    Raises `TargetError` where it cannot be asked, does not answer, or refuses.
    """
    return ask(machine, "jcmd", command, patience_s=patience_s)


def ask(machine: Machine, *words: str, patience_s: float = _PATIENCE_S) -> str:
    """Send a request and return the answer. Raises as `jcmd`."""
    if not machine.mine:
        raise TargetError(
            f"the virtual machine {machine.pid} belongs to {machine.user}, who alone may ask it",
            hint=f"sudo -u {machine.user} leakscope java … {machine.pid}, or as root.",
        )
    if not machine.hotspot:
        raise TargetError(f"process {machine.pid} is not a HotSpot virtual machine")
    if _is_stopped(machine.pid):  # it would answer a signal later, on its standard output
        raise _silent(machine)
    deadline = time.monotonic() + patience_s
    try:
        with folder_of_process(machine.pid, "/tmp") as folder:  # noqa: S108 - HotSpot's place
            path = f"{folder}/.java_pid{machine.inner_pid}"
            if not _listens(path, machine):
                _call(machine, folder, path, min(deadline, time.monotonic() + _PATIENCE_S))
            answer = b"".join(_exchange(machine, path, words, deadline))
    except OSError as error:
        raise TargetError(
            f"the virtual machine {machine.pid} cannot be asked: its /tmp cannot be opened"
            f" ({error.strerror})"
        ) from error
    status, _, text = answer.partition(b"\n")
    if status.strip() == b"0":
        return text.decode("utf-8", "replace")
    said = " ".join(text.decode("utf-8", "replace").split())[:300]
    raise TargetError(
        f"the virtual machine {machine.pid} refused {' '.join(words)}: {said or 'no reason given'}"
    )


def _listens(path: str, machine: Machine) -> bool:
    """Whether the socket is there, and is the machine's own: anybody can make a file of that name.

    Nobody may listen any more: the socket of one that was killed, and had the same number, as the
    first process of a container has.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISSOCK(status.st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(_PAUSE_S)
            channel.connect(path)
            return _peer(channel) == machine.pid
    except TimeoutError:  # somebody does, and is busy
        return status.st_uid in (machine.uid, os.geteuid(), 0)
    except OSError:
        return False


def _peer(channel: socket.socket) -> int:
    """Who listens at the other end, by the kernel's word."""
    told = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(told)[0])


def _call(machine: Machine, tmp: str, path: str, deadline: float) -> None:
    """Make the virtual machine open its socket."""
    if not machine.answers_signal:
        raise TargetError(
            f"the virtual machine {machine.pid} cannot be asked: it does not catch SIGQUIT"
            " (-Xrs, or attaching is disabled)",
            hint="Start it without -Xrs and -XX:+DisableAttachMechanism.",
        )
    if read_start(machine.pid) != machine.start:
        raise TargetError(f"process {machine.pid} has ended")
    if _is_closed(machine):
        raise TargetError(
            f"the virtual machine {machine.pid} cannot be asked: -XX:+DisableAttachMechanism, or its"
            " options are in a file that cannot be read",
            hint="Start it without that.",
        )
    made = _trigger(machine, tmp)
    try:
        os.kill(machine.pid, signal.SIGQUIT)
        while not _listens(path, machine):
            if read_start(machine.pid) != machine.start:
                raise TargetError(f"process {machine.pid} has ended")
            if time.monotonic() > deadline:
                raise _silent(machine)
            time.sleep(_PAUSE_S)
    except OSError as error:
        raise TargetError(f"cannot ask process {machine.pid}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            made.unlink()


def _trigger(machine: Machine, tmp: str) -> Path:
    """Make the file that tells it what the signal means; it is its user's."""
    name = f".attach_pid{machine.inner_pid}"
    problem: OSError | None = None
    for folder in (f"/proc/{machine.pid}/cwd", tmp):
        path = Path(folder, name)
        try:
            # A new file, or root would give away what somebody linked there.
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(path, flags, 0o600)
        except FileExistsError as error:  # of a call that was ended, perhaps
            if os.lstat(path).st_uid == machine.uid:
                return path
            problem = error
            continue
        except OSError as error:
            problem = error
            continue
        if os.geteuid() == 0:
            os.fchown(fd, machine.uid, -1)
        os.close(fd)
        return path
    why = problem.strerror if problem is not None else "no place for a file"
    raise TargetError(f"cannot ask process {machine.pid}: {why}")


def _silent(machine: Machine) -> TargetError:
    state = "it is stopped" if _is_stopped(machine.pid) else "it may be stopped or very busy"
    return TargetError(
        f"the virtual machine {machine.pid} does not answer: {state}", hint="Try again later."
    )


def _is_closed(machine: Machine) -> bool:
    """Whether it was started so that nobody can attach: it would print its threads instead.

    It tells its options itself where it keeps counters, the first thousand characters of them.
    """
    counters = machine.counters()
    told = [] if counters is None else [counters.texts.get(f"java.rt.vm{k}", "") for k in _TOLD]
    line = (read_text(f"/proc/{machine.pid}/cmdline") or "").split("\0")
    variables = (read_text(f"/proc/{machine.pid}/environ") or "").split("\0")
    given = [
        word
        for each in variables
        if each.startswith(_VARIABLES)
        for word in each.split("=", 1)[1].split()
    ]
    texts: list[str | None] = [*told, *line, *given]
    if not told or max(map(len, told)) >= _CUT:
        texts += [
            _options(machine, word) for word in (*line[1:], *given) if word.startswith(_FILES)
        ]
    return any(text is None or "+DisableAttachMechanism" in text for text in texts)


def _options(machine: Machine, word: str) -> str | None:
    """Return what a file of options says, as the virtual machine saw it; None: not to be read."""
    name = word[1:] if word.startswith("@") else word.partition("=")[2]
    try:
        path = Path(f"/proc/{machine.pid}/cwd").readlink() / name
        fd = open_named(str(path), root=foreign_root(machine.pid))
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(_MOST_OPTIONS).decode("utf-8", "replace")


def _is_stopped(pid: int) -> bool:
    with suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[0] in ("T", "t")
    return False


def _exchange(
    machine: Machine, path: str, words: tuple[str, ...], deadline: float
) -> Iterator[bytes]:
    request = ["1", *words, *[""] * (1 + _WORDS - len(words))]
    if any("\0" in word for word in request):
        raise TargetError("a request holds no zero bytes")
    received = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        try:
            channel.settimeout(max(deadline - time.monotonic(), 0.1))
            channel.connect(path)
            if _peer(channel) != machine.pid:
                raise TargetError(
                    f"the socket in /tmp that belongs to process {machine.pid} is another one's",
                    hint="Somebody put it there; look at its owner and remove it.",
                )
            channel.sendall(b"".join(word.encode() + b"\0" for word in request))
            while piece := channel.recv(1 << 16):
                received += len(piece)
                if received > _MOST:
                    raise TargetError(f"the virtual machine {machine.pid} says more than is read")
                yield piece
                channel.settimeout(max(deadline - time.monotonic(), 0.1))
        except TimeoutError as error:
            raise _silent(machine) from error
        except OSError as error:
            raise TargetError(
                f"the virtual machine {machine.pid} cannot be asked: {error.strerror or error}"
            ) from error
    if not received:
        raise TargetError(
            f"the virtual machine {machine.pid} gave no answer",
            hint="It answers to its own user and to root.",
        )
