# SPDX-License-Identifier: Apache-2.0
"""What `leakscope kernel trace` costs the machine: work traced and not traced, in turn.

    sudo python benchmarks/kernel_trace/run.py [--rounds 7] [--quick]

Each round runs each kind of work once without a trace and once under each way of tracing, all in
the same minute. Processor time counts, that of the work itself: programs at the kernel's
tracepoints run in the process that allocates. The ratio is taken round by round; its median and
its range are printed. A way of tracing that recorded nothing ends the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from leakscope.bpf.helper import KernelAllocations, KernelFilter

LOADS = {"pipe": 60_000, "socket": 30_000, "open": 60_000, "fork": 600}
WAYS = {
    "counted only": KernelFilter(sample_bytes=1 << 26),
    "16 KiB (as usual)": KernelFilter(sample_bytes=16 << 10),
    "4 KiB": KernelFilter(sample_bytes=4 << 10),
    "every block": KernelFilter(sample_bytes=1),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = Path(folder, "load")
        source = Path(__file__).with_name("load.c")
        subprocess.run(["gcc", "-O2", source, "-o", load], check=True)
        costs, told = measure(load, options)
    print(f"{platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}")
    print(f"load {os.getloadavg()[0]:.1f}; medians of {options.rounds} rounds, processor time")
    print()
    print("| work | way | ns alone | ns traced | ratio | range of ratios | ns an event |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (name, way), pairs in costs.items():
        ratios = sorted(traced / alone for alone, traced, _ in pairs)
        alone, traced = (statistics.median(pair[n] for pair in pairs) for n in (0, 1))
        each = statistics.median((traced - alone) / events for alone, traced, events in pairs)
        print(
            f"| {name} | {way} | {alone:,.0f} | {traced:,.0f} | {statistics.median(ratios):.2f}"
            f" | {ratios[0]:.2f} to {ratios[-1]:.2f} | {each:,.0f} |"
        )
    print()
    for way, (events, samples, dropped, attach, memory) in told.items():
        print(
            f"{way}: {events:,} events seen, {samples:,} with a stack, {dropped:,} dropped;"
            f" {attach * 1000:.0f} ms to attach, {memory / 2**20:.1f} MiB in the kernel"
        )


def measure(load: Path, options: argparse.Namespace) -> tuple[dict, dict]:
    costs: dict = {(name, way): [] for name in LOADS for way in WAYS}
    told: dict = {}
    for _ in range(options.rounds):
        for name, whole in LOADS.items():
            times = whole // 10 if options.quick else whole
            for way, which in WAYS.items():
                alone = spent(load, name, times)
                with traced(which) as trace:
                    under = spent(load, name, times)
                events, samples, dropped, attach, memory = trace
                if events < times or not (samples or which.sample_bytes > 1 << 20):
                    raise SystemExit(f"{way}: {events} events and {samples} samples: it idled")
                before = told.get(way, (0, 0, 0, 0, 0))
                told[way] = (
                    before[0] + events,
                    before[1] + samples,
                    before[2] + dropped,
                    max(before[3], attach),
                    memory,
                )
                # Other processes' events are in it as well: an upper bound of those of the work.
                costs[name, way].append((alone, under, events / times))
    return costs, told


@contextlib.contextmanager
def traced(which: KernelFilter):
    found: list[float] = []
    start = time.monotonic()
    with KernelAllocations(which) as helper:
        attach = time.monotonic() - start
        yield found
        moment = helper.finish().moment
        dropped = sum(moment.drops.values())
        found += [moment.events, moment.samples, dropped, attach, helper.hello.memory]


def spent(load: Path, name: str, times: int) -> float:
    done = subprocess.run([load, name, str(times)], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
