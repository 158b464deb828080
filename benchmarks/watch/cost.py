# SPDX-License-Identifier: Apache-2.0
"""What watching 1,000 processes costs: CPU of a pass, share of a core every 10 s, recording size.

    python benchmarks/watch/cost.py [--processes 1000] [--passes 20]

The processes sleep; a tenth of them touch a page more before each pass. The aim is at most 1 % of
one core at a pass every 10 s, and a week in a few hundred MB.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from leakscope.observe.collect import Collection, asleep_ns
from leakscope.observe.gather import Gatherer
from leakscope.observe.store import StoreWriter

# One parent forks the crowd; on each line from us, one in ten touches another page.
CROWD = """
import os, signal, sys, time
pids = []
for n in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        kept = []
        def grow(*_): kept.append(bytearray(5000))
        signal.signal(signal.SIGUSR1, grow)
        while True: signal.pause()
    pids.append(pid)
print('ready', flush=True)
for line in sys.stdin:
    for pid in pids[::10]: os.kill(pid, signal.SIGUSR1)
    print('grown', flush=True)
for pid in pids: os.kill(pid, 9)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=20)
    options = parser.parse_args()
    crowd = subprocess.Popen(
        [sys.executable, "-c", CROWD, str(options.processes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    crowd.stdout.readline()
    gatherer, collection = Gatherer(), Collection()
    costs, sizes = [], []
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "r")
        store = StoreWriter(path, {})
        for _ in range(options.passes):
            crowd.stdin.write("\n")
            crowd.stdin.flush()
            crowd.stdout.readline()
            time.sleep(0.2)
            before = time.process_time()
            one = gatherer.gather()
            collection.add(one, asleep_ns=asleep_ns())
            store.add(one, asleep_ns=asleep_ns())
            costs.append(time.process_time() - before)
            sizes.append(os.path.getsize(path))
        store.close()
    crowd.stdin.close()
    crowd.wait()
    if one.processes < options.processes:
        raise SystemExit(f"only {one.processes} of {options.processes} processes were watched")
    steady = costs[1:]
    each = statistics.median(steady)
    grown = (sizes[-1] - sizes[1]) / max(len(sizes) - 2, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"processes seen        {one.processes}, gauges {len(one.measures)}")
    print(f"first pass            {costs[0] * 1000:8.1f} ms of CPU")
    print(f"later passes, median  {each * 1000:8.1f} ms (worst {max(steady) * 1000:.1f})")
    print(f"every 10 s            {each * 10:8.2f} % of one core")
    print(f"recording             {grown:8.0f} bytes a pass, {grown * 60480 / 1e6:.0f} MB a week")
    print(f"peak memory           {peak:8.0f} MiB")


if __name__ == "__main__":
    main()
