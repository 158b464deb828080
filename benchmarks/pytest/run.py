# SPDX-License-Identifier: Apache-2.0
"""What `pytest --leakscope` costs on a real test suite: numpy's own, as it comes in its wheel.

    python benchmarks/pytest/run.py [--rounds 3] [--suite ma/tests/test_core.py …]

Each round runs the suite plain, with --leakscope and with samples, in turn, so that what else the
machine does falls on all alike. Processor time counts, of pytest and of the process that counts, and
not the clock. Each run with the agent proves that it was there, by the line that the plugin prints
after it has found its own recording, and that all tests passed.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SUITE = ("ma/tests/test_core.py", "ma/tests/test_extras.py", "lib/tests/test_function_base.py")
MODES = {
    "plain": (),
    "exact": ("--leakscope",),
    "sampled": ("--leakscope", "--leakscope-sample=512KiB"),
}
HEADER = re.compile(r"^leakscope: recording pid \d+, (exact|sampled)", re.MULTILINE)


def run(files, options):
    """Processor seconds, wall seconds and output of one run."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", *options]
    before = os.times()
    began = time.monotonic()
    done = subprocess.run(
        [*command, *files],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    wall = time.monotonic() - began
    after = os.times()
    cpu = after.children_user + after.children_system
    return cpu - before.children_user - before.children_system, wall, done


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suite", nargs="*", default=SUITE, help="files below numpy's folder")
    args = parser.parse_args()
    files = [str(Path(np.__file__).parent / name) for name in args.suite]
    told = {mode: [] for mode in MODES}
    passed = set()
    for number in range(args.rounds + 1):
        for mode, options in MODES.items():
            cpu, wall, done = run(files, options)
            last = done.stdout.strip().splitlines()[-1]
            proof = HEADER.search(done.stdout)
            if (proof[1] if proof else "plain") != mode:
                sys.exit(
                    f"{mode}: the agent was not as it should be\n{done.stdout[:2000]}{done.stderr}"
                )
            if done.returncode != 0:
                sys.exit(f"{mode}: tests failed\n{done.stdout[-4000:]}{done.stderr}")
            passed.add(re.sub(r" in .*", "", last).strip("= "))
            if number:  # the first round fills caches of files and of compiled modules
                told[mode].append(cpu)
            print(
                f"{number or 'warm-up'!s:>8}  {mode:8} {cpu:7.2f} s CPU {wall:7.2f} s wall  {last}"
            )
    if len(passed) != 1:
        sys.exit(f"not all runs did the same: {passed}")
    print(f"\nnumpy {np.__version__}, {', '.join(args.suite)}: {passed.pop()}")
    for mode, times in told.items():
        ratios = [one / plain for one, plain in zip(times, told["plain"], strict=True)]
        more = (statistics.median(ratios) - 1) * 100
        print(
            f"{mode:8} median {statistics.median(times):6.2f} s CPU  {more:+6.1f} % ({', '.join(f'{(r - 1) * 100:+.1f}' for r in ratios)})"
        )


if __name__ == "__main__":
    main()
