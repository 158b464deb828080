# SPDX-License-Identifier: Apache-2.0
"""How long a program waits at its end to learn what is lost, beside LeakSanitizer.

    python benchmarks/scan/at_exit.py [--blocks 1000000 4000000] [--rounds 3] [--shapes mixed array sparse freed random]

The program is heap.c, built with LeakSanitizer in and without; it ends when its heap is complete.
LeakSanitizer's time is that of a run with its check less one without; leakscope's is what the
recording says the scan at the end took. Both must find the same number of lost blocks. The last
column is how much longer the whole command takes than with `--no-scan`.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from leakscope.model.reachability import Reachability
from leakscope.recording import load

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# How large blocks are; those that are freed are of sizes that wait in malloc's fastbins.
SHAPES = {"mixed": 200, "array": 200, "sparse": 200, "freed": 40, "random": 40}
LOST = re.compile(r"SUMMARY: LeakSanitizer: \d+ byte\(s\) leaked in (\d+) allocation")


def build(folder: Path) -> tuple[Path, Path]:
    plain, lsan = folder / "plain", folder / "lsan"
    for program, flags in ((plain, []), (lsan, ["-fsanitize=leak"])):
        source = str(HERE / "heap.c")
        subprocess.run(["gcc", "-O1", "-g", *flags, source, "-o", str(program)], check=True)
    return plain, lsan


def by_lsan(program: Path, arguments: list[str]) -> tuple[float, int]:
    """Return the seconds that the check takes, and how many blocks it calls lost."""
    seconds = {}
    lost = 0
    for check in (1, 0):
        options = f"exitcode=0:detect_leaks={check}"
        began = time.perf_counter()
        said = subprocess.run(
            [program, *arguments], env={**os.environ, "LSAN_OPTIONS": options}, input="",
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
        seconds[check] = time.perf_counter() - began
        if check:
            match = LOST.search(said)
            if match is None:
                raise SystemExit(f"LeakSanitizer was not at work: {said[-500:]}")
            lost = int(match[1])
    return seconds[1] - seconds[0], lost


def seconds_of(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        command, input="", text=True, check=False, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    return time.perf_counter() - began


def by_leakscope(program: Path, arguments: list[str], folder: Path) -> tuple[float, int, float]:
    """Return the seconds that the scan took, how many blocks are lost, and the seconds it adds."""
    output = folder / "out.leakscope"
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "leakscope", "run", "--no-report", "-q", "-o", str(output)]
    program_command = ["--", str(program), *arguments]
    added = -seconds_of([*command, "--no-scan", *program_command])
    output.unlink()
    added += seconds_of([*command, *program_command])
    recording = load(output)
    assert recording.scan is not None
    assert recording.reachability is not None
    lost = recording.reachability == int(Reachability.DEFINITELY_LOST)
    lost |= recording.reachability == int(Reachability.INDIRECTLY_LOST)
    if not lost.any():
        raise SystemExit("leakscope was not at work: no block is lost, and a thousandth are")
    return recording.scan.seconds, int(lost.sum()), added


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--shapes", nargs="+", default=[*SHAPES])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| shape | blocks | LeakSanitizer s | leakscope s | ratio | lost, both | added s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, lsan = build(folder)
        for shape in options.shapes:
            for blocks in options.blocks:
                arguments = [str(blocks), str(SHAPES[shape]), shape, "end"]
                theirs, ours, added, lost = [], [], [], set()
                for _ in range(options.rounds):
                    seconds, count = by_lsan(lsan, arguments)
                    theirs.append(seconds)
                    lost.add(count)
                    seconds, count, more = by_leakscope(plain, arguments, folder)
                    ours.append(seconds)
                    added.append(more)
                    lost.add(count)
                left, right = statistics.median(theirs), statistics.median(ours)
                counts = ", ".join(f"{n:,}" for n in sorted(lost))
                row = f"| {shape} | {blocks:,} | {left:.2f} | {right:.2f} | {right / left:.2f} "
                print(f"{row}| {counts} | {statistics.median(added):.2f} |", flush=True)


if __name__ == "__main__":
    main()
