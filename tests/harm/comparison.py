# SPDX-License-Identifier: Apache-2.0
"""A server under leakscope beside the same server alone: what differed, and how much slower it was."""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harm.servers import Server, p99

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEAKSCOPE = (sys.executable, "-P", "-m", "leakscope")
SOURCES = Path(__file__).parents[2] / "src"
MODES = ("traced", "sampled", "scanned")
SLICE_S = 0.2
SETTLE_S = 3.0
ALIKE_S = 30.0


@dataclass
class Comparison:
    """What was measured of one server in one mode; latencies in seconds."""

    server: str
    mode: str
    requests: int = 0
    plain: list[float] = field(default_factory=list)  # p99 of each try
    subject: list[float] = field(default_factory=list)
    plain_bytes: int = 0
    subject_bytes: int = 0
    scans: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [mine / theirs for mine, theirs in zip(self.subject, self.plain, strict=True)]

    @property
    def best(self) -> float:
        """The p99 latency's ratio in the best of the tries."""
        return min(self.ratios)

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


def compare(
    kind: type[Server], mode: str, folder: Path, *, tries: int = 3, slices: int = 6
) -> Comparison:
    """Run the server twice at once, alone and as `mode` says, and give both the same work in turn.

    `scanned` means that `leakscope scan` looks at it under load, again and again. Raises
    `WrongAnswerError` when a client is answered wrongly or loses its connection.
    """
    env = os.environ | {"PYTHONPATH": str(SOURCES)}
    report = folder / "report.json"
    result = Comparison(kind.name, mode)
    plain = kind(folder / "plain", (), dict(os.environ))
    subject = kind(folder / "subject", _wrap(mode, report, folder), env)
    with _running(plain), _running(subject):
        before = _alike(plain, subject)
        for attempt in range(tries):
            taken: tuple[list[float], list[float]] = ([], [])
            with _scans(subject, folder, env, result) if mode == "scanned" else _nothing():
                for each in range(slices):
                    for latencies, server in zip(taken, (plain, subject), strict=True):
                        latencies.extend(server.load(SLICE_S, attempt * slices + each))
            result.plain.append(p99(taken[0]))
            result.subject.append(p99(taken[1]))
            result.requests += len(taken[1])
        after = _alike(plain, subject)
        result.plain_bytes, result.subject_bytes = (
            plain.anonymous_bytes(),
            subject.anonymous_bytes(),
        )
        for when, (alone, under) in (("at first", before), ("at the end", after)):
            if alone != under:
                result.differences.append(
                    f"descriptors {when}: {dict(under - alone)} more, {dict(alone - under)} fewer"
                )
        statuses = plain.stop(), subject.stop()
    if statuses[0] != statuses[1]:
        result.differences.append(f"status {statuses[1]}, alone {statuses[0]}")
    said, usual = _lines(subject), _lines(plain)
    if said != usual:
        result.differences.append(f"printed {said!r}, alone {usual!r}")
    if mode != "scanned":
        _prove(report, result, mode)
    elif not result.scans:
        result.differences.append("no scan succeeded")
    return result


def _wrap(mode: str, report: Path, folder: Path) -> Sequence[str]:
    if mode == "scanned":
        return ()
    more = ("--sample", "512KiB") if mode == "sampled" else ()
    options = (
        "--quiet",
        "--exit-code",
        "0",
        "--undecided-exit-code",  # few samples on a busy machine
        "0",
        "--no-debuginfod",
        "--json",
        "--report-file",
        str(report),
    )
    return (*LEAKSCOPE, "run", *options, *more, "-o", str(folder / "%n.%p.leakscope"), "--")


def _prove(report: Path, result: Comparison, mode: str) -> None:
    """A comparison proves that its subject was at work before its figures count."""
    document = json.loads(report.read_text(encoding="utf-8"))
    seen = sum(each["totals"]["allocation_count"] for each in document["processes"])
    if seen < (1 if mode == "sampled" else 1000):
        result.differences.append(f"only {seen} allocations were recorded")


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextlib.contextmanager
def _scans(server: Server, folder: Path, env: dict[str, str], result: Comparison) -> Iterator[None]:
    """Scan the server's processes one after another until the work is done."""
    script = (
        "import subprocess, sys, time\n"
        "command, pids, done = sys.argv[1].split('\\n'), sys.argv[2].split(), 0\n"
        "while True:\n"
        "  for pid in pids:\n"
        "    status = subprocess.run([*command, pid], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode\n"
        "    print(status, flush=True)\n"
    )
    command = [*LEAKSCOPE, "scan", "--json"]
    pids = " ".join(map(str, server.tree()))
    with (folder / "scans").open("ab+") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", script, "\n".join(command), pids],
            stdout=out,
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
            end = time.monotonic() + 30
            while time.monotonic() < end and not (folder / "scans").stat().st_size:
                time.sleep(0.1)
        finally:
            os.killpg(process.pid, 15)
            process.wait()
    statuses = (folder / "scans").read_text().split()
    result.scans = sum(status in {"0", "1"} for status in statuses)


def _alike(plain: Server, subject: Server) -> tuple[object, object]:
    """Return the descriptors of both when they are the same, or what they are after some time.

    A server has helpers that come and go, and on a busy machine one of the two is behind.
    """
    end = time.monotonic() + ALIKE_S
    while True:
        both = _settled(plain), _settled(subject)
        if both[0] == both[1] or time.monotonic() > end:
            return both


def _settled(server: Server) -> object:
    """Return the descriptors when they do not change any more."""
    last = server.descriptors()
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end:
        time.sleep(0.2)
        now = server.descriptors()
        if now == last:
            return now
        last = now
    return last


def _lines(server: Server) -> list[str]:
    """What the server printed, without times, process numbers, ports and its folder."""
    text = server.output().replace(str(server.folder), "FOLDER").replace(str(server.port), "PORT")
    lines = [re.sub(r"\d+", "N", line) for line in text.splitlines()]
    # Whether we knocked before it was ready is chance.
    lines = [line for line in lines if "is starting up" not in line]
    return sorted(set(lines))
