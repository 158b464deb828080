# SPDX-License-Identifier: Apache-2.0
"""Attach and detach again and again, to programs that check themselves and servers with clients.

Used by the tests and, for longer, by benchmarks/attach/soak.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError
from leakscope.proc.process import children_of
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session, Wishes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harm.servers import Server

PROGRAMS = Path(__file__).parents[1] / "programs" / "attach"
MAX_PAUSE_S = 2.0  # of a busy machine
BUILDS = {
    "leaky": ("gcc", "leaky.c"),
    "forks": ("gcc", "forks.c"),
    "family": ("gcc", "family.c"),
    "static": ("gcc", "leaky.c", "-static"),
    "static-pie": ("gcc", "leaky.c", "-static-pie"),
    "musl": ("musl-gcc", "leaky.c"),
    "musl-static": ("musl-gcc", "leaky.c", "-static"),
    "busy": ("g++", "busy.cc", "-pthread"),
    "vforks": ("gcc", "vforks.c", "-pthread"),
    "locks": ("gcc", "locks.c"),
    "jailed": ("gcc", "jailed.c"),
    "shares": ("gcc", "shares.c"),
    "strict": ("gcc", "strict.c"),
    "restarts": ("gcc", "restarts.c"),
    "stacks": ("gcc", "stacks.c", "-pthread"),
    "stacks-static": ("gcc", "stacks.c", "-pthread", "-static"),
    "no_restart": ("gcc", "../harm/no_restart.c"),
}
PLACES = ("unshared", "chrooted", "emptied")  # targets in namespaces, and with no files around
PRELOADS = {"jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc.so.4"}


def build(name: str, folder: Path) -> Path:
    """Build one of `BUILDS`; return the program."""
    compiler, source, *flags = BUILDS[name]
    program = folder / name
    if not program.exists():
        command = [compiler, "-g", "-O1", str(PROGRAMS / source), "-o", str(program), *flags]
        subprocess.run(command, check=True, capture_output=True)
    return program


def in_place(name: str, folder: Path) -> list[str]:
    """Return the command of a target in one of `PLACES`; its process is the command's child."""
    root = folder / name
    root.mkdir(exist_ok=True)
    apart = ["unshare", "-m", "-p", "-n", "-f", "--kill-child"]
    if name == "unshared":
        return [*apart, str(build("leaky", root))]
    if name == "chrooted":
        return [*apart, "chroot", str(root), f"/{build('static', root).name}"]
    program = build("leaky", root)
    found = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for word in found.split():
        if word.startswith("/"):
            copy = root / word[1:]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, copy)
    os.sync()  # pages that wait to be written count as private ones of the program
    return [*apart, "chroot", str(root), "/leaky"]


def empty(root: Path) -> None:
    """Take all files away from a target that runs: no library, no program is there any more."""
    for path in root.rglob("*"):
        if path.is_file():
            path.unlink()


def inner(process: subprocess.Popen[bytes]) -> int:
    """Return the child of a command that started the target in other namespaces."""
    return children_of(process.pid)[0]


@contextlib.contextmanager
def started(
    command: list[str], folder: Path, preload: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that checks itself, until the end of the block."""
    environment = os.environ | ({"LD_PRELOAD": preload} if preload else {})
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        time.sleep(1.2)
        yield process
        assert process.poll() is None, (process.returncode, process.communicate()[0][-400:])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        output = process.communicate()[0]
        assert b"WRONG" not in output, output[-400:]


@dataclass
class Shape:
    """What an attach must leave as it was."""

    mappings: int
    descriptors: int
    threads: int
    anonymous_kib: int
    tracer: str
    code: int  # private pages of code, in KiB

    @classmethod
    def of(cls, pid: int) -> Shape:
        """Look at a process."""
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        code, inside = 0, False
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if "-" in line.split(" ")[0] and not line.endswith("kB"):
                inside = " r-xp " in line
            elif inside and line.startswith("Private_Dirty"):
                code += int(line.split()[1])
        return cls(
            mappings=len(Path(f"/proc/{pid}/maps").read_text().splitlines()),
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            threads=int(fields["Threads"]),
            anonymous_kib=int(fields.get("RssAnon", "0").split()[0]),
            tracer=fields["TracerPid"].strip(),
            code=code,
        )


def settled(pid: int) -> Shape:
    """Return the least of some looks: a library that is just being opened is no difference."""
    looks = []
    for _ in range(6):
        looks.append(Shape.of(pid))
        time.sleep(0.02)
    least = looks[-1]
    for name in ("mappings", "descriptors", "threads", "code"):
        setattr(least, name, min(getattr(each, name) for each in looks))
    return least


@dataclass
class Soak:
    """What was seen in some cycles."""

    name: str
    cycles: int = 0
    refused: list[str] = field(default_factory=list)
    ended: int = 0  # processes of the target that were gone before they could be attached to
    kept: list[str] = field(default_factory=list)
    events: int = 0
    pauses_ms: dict[str, list[float]] = field(default_factory=dict)
    requests: int = 0
    before: Shape | None = None
    after: Shape | None = None

    def cycle(self, pid: int, hold_s: float, sample_bytes: int = 0) -> None:
        """Attach, wait, detach."""
        self.cycles += 1
        try:
            plan = make_plan(pid)
            with Session(plan, Wishes(sample_bytes=sample_bytes), MAX_PAUSE_S) as session:
                time.sleep(hold_s)
                session.detach()
                recording = session.recording()
                pauses = dict(session.pauses_ms)
        except LeakscopeError as error:
            if Path(f"/proc/{pid}").exists():
                self.refused.append(str(error))
            else:
                self.ended += 1
            return
        removed = session.removed
        assert removed is not None
        if not removed.unmapped:
            self.kept.append(removed.reason)
        pauses |= {"detach": removed.pause_ms, "unmap": removed.alone_ms}
        for phase, pause in pauses.items():
            self.pauses_ms.setdefault(phase, []).append(pause)
        if recording is not None:
            self.events += recording.coverage.alloc_events or 0

    def text(self) -> str:
        """Return one line."""
        parts = [f"{self.name}: {self.cycles} cycles, {self.events:,} allocations seen"]
        if self.requests:
            parts.append(f"{self.requests:,} requests, all answered right")
        for phase, pauses in self.pauses_ms.items():
            ordered = sorted(pauses)
            parts.append(f"{phase} {ordered[len(ordered) // 2]:.1f} ms, worst {ordered[-1]:.1f}")
        parts.append(f"refused {len(self.refused)}, memory kept {len(self.kept)}")
        if self.ended:
            parts.append(f"ended before {self.ended}")
        if self.before and self.after:
            parts.append(
                f"mappings {self.before.mappings} → {self.after.mappings}, descriptors"
                f" {self.before.descriptors} → {self.after.descriptors}, threads"
                f" {self.before.threads} → {self.after.threads}, private code"
                f" {self.before.code} → {self.after.code} KiB, anonymous"
                f" {self.before.anonymous_kib} → {self.after.anonymous_kib} KiB"
            )
        return "; ".join(parts)


def soak_program(
    name: str,
    command: list[str],
    folder: Path,
    cycles: int,
    hold_s: float,
    preload: str | None = None,
) -> Soak:
    """Do some cycles on a program that checks itself."""
    result = Soak(name)
    with started(command, folder, preload) as process:
        pid = inner(process) if name in PLACES else process.pid
        if name == "emptied":
            empty(folder / name)
        result.before = settled(pid)
        for number in range(cycles):
            result.cycle(pid, hold_s, 65536 if number % 4 == 3 else 0)
            if process.poll() is not None:
                break
        if process.poll() is None:
            time.sleep(0.1)
            result.after = settled(pid)
    return result


def soak_server(server: Server, cycles: int, hold_s: float) -> Soak:
    """Do some cycles on the processes of a server, whose clients check every answer meanwhile."""
    result = Soak(server.name)
    server.start()
    stop = threading.Event()
    taken: list[int] = []
    troubles: list[BaseException] = []

    def load() -> None:
        seed = 1
        while not stop.is_set():
            try:
                taken.append(len(server.load(1.0, seed)))
            except BaseException as trouble:  # noqa: BLE001 - raised in the caller's thread
                troubles.append(trouble)
                return
            seed += 1

    clients = threading.Thread(target=load)
    try:
        clients.start()
        time.sleep(1.5)
        result.before = settled(server.pid)
        for number in range(cycles):
            # Those of this moment: a postgres backend lives as long as its client.
            tree = server.tree()
            result.cycle(tree[number % len(tree)], hold_s)
            if troubles:
                break
        time.sleep(0.2)
        result.after = settled(server.pid)
    finally:
        stop.set()
        clients.join()
        status = server.stop()
    if troubles:
        raise troubles[0]
    assert status == 0, server.output()[-400:]
    result.requests = sum(taken)
    return result


def java(folder: Path) -> list[str]:
    """Return the command of the Java program that checks itself."""
    source = PROGRAMS / "Busy.java"
    subprocess.run(["javac", "-d", folder, source], check=True, capture_output=True)
    return ["java", "-Xmx64m", "-cp", str(folder), "Busy"]


def python() -> list[str]:
    """Return the command of the Python program that checks itself."""
    return [sys.executable, str(PROGRAMS / "busy.py")]
