# SPDX-License-Identifier: Apache-2.0
"""How fast a heap is walked and marked, how long the program stands still, what the scanner needs.

    python benchmarks/scan/run.py [--blocks 2000000 4000000 8000000] [--bytes 200] [--rounds 3]
        [--shapes mixed chain tree array] [--preload libjemalloc.so.2] [--max-pause 0.1]

Medians of the rounds, each in a process of its own; "all of it" is from the call to the answer, the
image, the walk and the marking included; "marked a second" is scanned memory by the time from the list
of blocks to the kind of each. The program has a thousandth of its blocks lost; a run that
does not find just those is an error. The full size of the issue that asked for it is --blocks 20000000.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT / "src")]
SHAPES = ["mixed", "chain", "tree", "array"]


def scan(pid: int, pause: float) -> dict[str, float]:
    """Scan in a process of its own, for its memory."""
    done = subprocess.run(
        [sys.executable, HERE / "once.py", str(pid), str(pause)],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    return json.loads(done.stdout)


def measure(
    program: Path,
    shape: str,
    blocks: int,
    size: int,
    rounds: int,
    preload: str | None,
    pause: float,
) -> bool:
    """Print a row; return whether the answers were right."""
    process = subprocess.Popen(
        [program, str(blocks), str(size), shape], stdout=subprocess.PIPE, text=True,
        env=os.environ | ({"LD_PRELOAD": preload} if preload else {}),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = [scan(process.pid, pause) for _ in range(rounds)]
    finally:
        process.kill()
        process.communicate()
    seconds, pause, memory, heap = (
        statistics.median(each[name] for each in found)
        for name in ("seconds", "pause", "memory", "heap")
    )
    marked = statistics.median(each["scanned"] / each["marking"] for each in found)
    print(
        f"| {shape} | {found[0]['blocks']:,} | {heap / 1e9:.2f} GB | {seconds:.2f} s"
        f" | {pause * 1e3:.0f} ms | {heap / seconds / 1e9:.2f} GB/s"
        f" | {marked / 1e9:.2f} GB/s"
        f" | {memory / 1e6:.0f} MB | {memory / heap:.1%} | {found[0]['method']} |",
        flush=True,
    )
    wanted = blocks // 1000
    wrong = [each["lost"] for each in found if not wanted <= each["lost"] <= wanted + 1]
    if wrong:
        print(f"{wrong} blocks called lost, {wanted} are")
    return not wrong


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[2_000_000, 4_000_000, 8_000_000])
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--preload", metavar="FILE", help="another allocator's library")
    parser.add_argument("--max-pause", type=float, default=0.1, metavar="SECONDS")
    args = parser.parse_args()
    print(
        "| shape | blocks | heap | all of it | stood still | heap a second | marked a second | memory | of heap | image |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    right = True
    with tempfile.TemporaryDirectory(prefix="leakscope-benchmark-") as folder:
        program = Path(folder, "heap")
        subprocess.run(["gcc", "-O2", HERE / "heap.c", "-o", program], check=True)
        for shape in args.shapes:
            for blocks in args.blocks:
                right &= measure(
                    program, shape, blocks, args.bytes, args.rounds, args.preload, args.max_pause
                )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
