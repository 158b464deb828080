# SPDX-License-Identifier: Apache-2.0
"""What an attach costs a redis server: alone, attached exact and sampled, and under `run`, in turn.

    python benchmarks/attach/redis.py [--rounds 7] [--share 1]

Two servers: one is attached to and detached from again and again, the other runs under
`leakscope run`. Each round asks each of them in each way, one after the other and in another order
each time, with redis-benchmark: one request at a time, and sixteen in a pipeline. Requests a second
are counted, and the server's own processor time for each, which other work on the machine disturbs
less. Ratios are taken round by round against the server that is not attached; their medians are
printed, and between what the middle half of them lies. Many short rounds say more than few long ones
where other work goes on. A way in which nothing was recorded ends the benchmark.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from harm.servers import Redis
from leakscope.recording import live
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session, Wishes
from leakscope.trace.live_files import find_live_file

ALONE, EXACT, SAMPLED, RUN = "not attached", "attached, exact", "attached, 512 KiB", "run, exact"
WAYS = (ALONE, EXACT, SAMPLED, RUN)
PIPELINES = {1: 40_000, 16: 400_000}  # requests at once, and requests of each kind
TESTS = ("set", "get")
KEYS = 10_000
PERIOD = 512 << 10
MAX_PAUSE_S = 2.0


class IdleError(SystemExit):
    """Nothing was recorded, so there is nothing to measure."""


@dataclass(frozen=True)
class Spent:
    """What one run of the clients told."""

    rate: float  # requests a second, of all kinds together
    ns: float  # processor time of the server for a request


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="two at least")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the requests (1; 0.1 is quick)"
    )
    options = parser.parse_args()
    found: dict[tuple[int, str], list[Spent]] = {}
    events: dict[str, int] = dict.fromkeys(WAYS, 0)
    pauses: list[float] = []
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        run = [sys.executable, "-m", "leakscope", "run", "-q", "-o", f"{folder}/", "--"]
        plain = Redis(folder / "plain", [], dict(os.environ))
        traced = Redis(folder / "traced", run, dict(os.environ))
        plain.start()
        traced.start()
        try:
            for server in (plain, traced):  # keys, and what grows once
                for pipeline, requests in PIPELINES.items():
                    ask(server, pipeline, int(requests * options.share))
            for number in range(options.rounds):
                for pipeline, requests in PIPELINES.items():
                    count = int(requests * options.share)
                    turn = (number + pipeline) % len(WAYS)
                    for way in (*WAYS[turn:], *WAYS[:turn]):
                        spent, seen = measured(way, plain, traced, pipeline, count, pauses)
                        found.setdefault((pipeline, way), []).append(spent)
                        events[way] += seen
                loads.append(os.getloadavg()[0])
        finally:
            plain.stop()
            traced.stop()
    print(f"{platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}")
    print(
        f"load {min(loads):.1f} to {max(loads):.1f}; medians of {options.rounds} rounds, {options.share:g} of"
        " the requests; ratios to the server that is not attached, round by round, with what the"
        " middle half of them lies between"
    )
    print()
    print("| pipeline | way | requests/s | ratio | µs of the server | ratio |")
    print("|---:|---|---:|---:|---:|---:|")
    for pipeline, way in ((pipeline, way) for pipeline in PIPELINES for way in WAYS):
        spents, alone = found[pipeline, way], found[pipeline, ALONE]
        print(
            f"| {pipeline} | {way} | {statistics.median(one.rate for one in spents):,.0f}"
            f" | {ratios(spents, alone, lambda one: one.rate)}"
            f" | {statistics.median(one.ns for one in spents) / 1000:,.2f}"
            f" | {ratios(spents, alone, lambda one: one.ns)} |"
        )
    print()
    seen = "; ".join(f"{way}: {events[way]:,}" for way in WAYS if way != ALONE)
    print(f"Allocations recorded meanwhile (sampled: samples): {seen}.")
    print(
        f"{len(pauses)} attaches, the longest pause of each: median {statistics.median(pauses):.1f} ms,"
        f" worst {max(pauses):.1f} ms."
    )


def ratios(spents: list[Spent], alone: list[Spent], of: Callable[[Spent], float]) -> str:
    """Return the median ratio of the rounds, and between what the middle half of them lies."""
    each = [of(one) / of(other) for one, other in zip(spents, alone, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.2f} to {high:.2f})"


def measured(
    way: str, plain: Redis, traced: Redis, pipeline: int, count: int, pauses: list[float]
) -> tuple[Spent, int]:
    """Ask a server in one way; return what that took, and how many events were recorded of it."""
    if way == ALONE:
        return ask(plain, pipeline, count), 0
    if way == RUN:
        file = find_live_file(traced.pid)
        if file is None:
            raise IdleError(f"{way}: there is no recording")
        before = live.read(file.path).coverage.alloc_events or 0
        spent = ask(traced, pipeline, count)
        seen = (live.read(file.path).coverage.alloc_events or 0) - before
        return spent, proven(way, seen, count)
    sample = PERIOD if way == SAMPLED else 0
    with Session(make_plan(plain.pid), Wishes(sample_bytes=sample), MAX_PAUSE_S) as session:
        pauses.append(max(session.pauses_ms.values()))
        spent = ask(plain, pipeline, count)
        session.detach()
        recording = session.recording()
    seen = 0 if recording is None else recording.coverage.alloc_events or 0
    # Of a sampled one each sample counts: there are few, but some.
    return spent, proven(way, seen, 0 if sample else count)


def proven(way: str, seen: int, least: int) -> int:
    """Return `seen`. Raises `IdleError` when that is not what a server at work allocates."""
    if seen <= least:
        raise IdleError(f"{way}: {seen:,} allocations were recorded: it idled")
    return seen


def ask(server: Redis, pipeline: int, count: int) -> Spent:
    """Let redis-benchmark ask."""
    before, began = spent_ns(server.pid), time.monotonic()
    done = subprocess.run(
        ["redis-benchmark", "-p", str(server.port), "-P", str(pipeline), "-n", str(count),
         "-t", ",".join(TESTS), "-r", str(KEYS), "-d", "100", "-c", "20", "--csv"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    took = time.monotonic() - began
    rows = [row for row in csv.reader(done.stdout.splitlines()) if row and row[0] != "test"]
    if len(rows) != len(TESTS):
        raise SystemExit(f"redis-benchmark printed {done.stdout[:200]!r}")
    asked = count * len(TESTS)
    rate = len(rows) / sum(1 / float(row[1]) for row in rows)
    assert rate * took > asked * 0.5, (rate, took)
    return Spent(rate, (spent_ns(server.pid) - before) / asked)


def spent_ns(pid: int) -> int:
    """Return the processor time that the threads of a process have taken."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


if __name__ == "__main__":
    main()
