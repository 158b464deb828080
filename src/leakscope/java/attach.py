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
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.proc.process import read_start
from leakscope.proc.text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.java.machines import Machine

__all__ = ["ask", "jcmd"]

_PATIENCE_S = 10.0
_PAUSE_S = 0.02
_MOST = 64 << 20  # bytes of an answer
_WORDS = 3


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
    deadline = time.monotonic() + patience_s
    path = _socket_path(machine)
    if not _is_socket(path, machine):
        _call(machine, path, min(deadline, time.monotonic() + _PATIENCE_S))
    answer = b"".join(_exchange(machine, path, words, deadline))
    status, _, text = answer.partition(b"\n")
    if status.strip() == b"0":
        return text.decode("utf-8", "replace")
    said = " ".join(text.decode("utf-8", "replace").split())[:300]
    raise TargetError(
        f"the virtual machine {machine.pid} refused {' '.join(words)}: {said or 'no reason given'}"
    )


def _socket_path(machine: Machine) -> str:
    return f"/proc/{machine.pid}/root/tmp/.java_pid{machine.inner_pid}"


def _is_socket(path: str, machine: Machine) -> bool:
    """Whether the socket is there, and its own: anybody can make a file of that name."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid in (machine.uid, os.geteuid(), 0)


def _call(machine: Machine, path: str, deadline: float) -> None:
    """Make the virtual machine open its socket."""
    if not machine.answers_signal:
        raise TargetError(
            f"the virtual machine {machine.pid} cannot be asked: it does not catch SIGQUIT"
            " (-Xrs, or attaching is disabled)",
            hint="Start it without -Xrs and -XX:+DisableAttachMechanism.",
        )
    if read_start(machine.pid) != machine.start:
        raise TargetError(f"process {machine.pid} has ended")
    if _is_stopped(machine.pid):  # it would answer later, on its standard output
        raise _silent(machine)
    if _is_closed(machine):
        raise TargetError(
            f"the virtual machine {machine.pid} cannot be asked: -XX:+DisableAttachMechanism",
            hint="Start it without that.",
        )
    made = _trigger(machine)
    try:
        os.kill(machine.pid, signal.SIGQUIT)
        while not _is_socket(path, machine):
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


def _trigger(machine: Machine) -> Path:
    """Make the file that tells it what the signal means; it is its user's."""
    name = f".attach_pid{machine.inner_pid}"
    problem: OSError | None = None
    for folder in (f"/proc/{machine.pid}/cwd", f"/proc/{machine.pid}/root/tmp"):
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
    """Whether it was started so that nobody can attach: it would print its threads instead."""
    counters = machine.counters()
    told = "" if counters is None else counters.texts.get("java.rt.vmArgs", "")
    line = read_text(f"/proc/{machine.pid}/cmdline") or ""
    return "+DisableAttachMechanism" in told or "+DisableAttachMechanism" in line


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
