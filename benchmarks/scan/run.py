# SPDX-License-Identifier: Apache-2.0
"""How fast a heap is walked and marked, how long the program stands still, what the scanner needs.

    python benchmarks/scan/run.py [--blocks 1000000] [--bytes 200] [--rounds 3]

The program has a thousandth of its blocks lost; a run that does not find just those is an error.
The full size of the issue that asked for it is --blocks 20000000 --bytes 200.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT / "src")]


def scan(pid: int) -> dict[str, float]:
    """Scan in a process of its own, for its memory."""
    code = (
        "import json,resource,sys\n"
        "from leakscope.scan import scan_untraced\n"
        "s = scan_untraced(int(sys.argv[1]))\n"
        "print(json.dumps({'pause': s.facts.pause_ms / 1e3, 'seconds': s.facts.seconds,"
        " 'scanned': s.facts.scanned_bytes, 'blocks': s.blocks, 'lost': int(s.counts[1]),"
        " 'heap': s.account.heap_mapped, 'method': s.facts.method,"
        " 'memory': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(pid)],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    return json.loads(done.stdout)


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leakscope-benchmark-") as folder:
        program = Path(folder, "heap")
        subprocess.run(["gcc", "-O2", HERE / "heap.c", "-o", program], check=True)
        process = subprocess.Popen(
            [program, str(args.blocks), str(args.bytes)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            rounds = [scan(process.pid) for _ in range(args.rounds)]
        finally:
            process.kill()
            process.communicate()
    wanted = args.blocks // 1000
    print("| blocks | heap | scan | stood still | heap a second | scanner's memory | image |")
    print("|---:|---:|---:|---:|---:|---:|---|")
    middle = sorted(rounds, key=lambda each: each["seconds"])[len(rounds) // 2]
    pause = statistics.median(each["pause"] for each in rounds)
    print(
        f"| {middle['blocks']:,} | {middle['heap'] / 1e9:.2f} GB | {middle['seconds']:.2f} s"
        f" | {pause * 1e3:.0f} ms | {middle['heap'] / middle['seconds'] / 1e9:.2f} GB/s"
        f" | {middle['memory'] / 1e6:.0f} MB | {middle['method']} |"
    )
    wrong = [each["lost"] for each in rounds if not wanted <= each["lost"] <= wanted + 1]
    if wrong:
        print(f"{wrong} blocks called lost, {wanted} are")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
