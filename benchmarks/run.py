# SPDX-License-Identifier: Apache-2.0
"""All benchmarks, side by side with the peers that are installed, as one page of Markdown.

python benchmarks/run.py [--quick] [--only PART] [--rounds N] [--out FILE]

benchmarks/setup installs the peers on Debian. Ratios of a run can be trusted, its absolute times
belong to the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

PARTS = ("micro", "real", "memory", "sampling", "report")


def report_speed(folder: Path, *, quick: bool) -> list[str]:
    """Time `leakscope report` on a large recording, twice: without and with cached symbols."""
    big = folder / "big.leakscope"
    blocks, sites = ("1000000", "10000") if quick else ("10000000", "100000")
    make = [
        sys.executable,
        HERE / "report" / "make_big.py",
        big,
        "--blocks",
        blocks,
        "--sites",
        sites,
    ]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "XDG_CACHE_HOME": str(folder)}
    subprocess.run(make, env=env, check=True, capture_output=True)
    lines = [
        "| blocks | sites | file MB | first report s | again s |",
        "|---:|---:|---:|---:|---:|",
    ]
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "leakscope", "report", "--no-debuginfod", big],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds.append(time.perf_counter() - began)
        if not done.stdout:  # a status other than 0 may be a verdict; no report is a failure
            raise SystemExit(f"leakscope report failed ({done.returncode}): {done.stderr[-500:]}")
    size = big.stat().st_size / 1e6
    again = sorted(seconds[1:])[1]
    lines.append(
        f"| {int(blocks):,} | {int(sites):,} | {size:.0f} | {seconds[0]:.1f} | {again:.1f} |"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small inputs, to see that it works")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; repeatable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the page here as well")
    arguments = parser.parse_args()
    from memory.run import measure_blocks, measure_sampling
    from micro.run import measure as micro
    from real.run import measure as real

    wanted = arguments.only or PARTS
    rounds = 1 if arguments.quick else arguments.rounds
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    page = [f"Measured on {model}, {os.cpu_count()} cores, Linux {platform.release()}.", ""]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leakscope-benchmark-") as name:
        folder = Path(name)
        parts = {
            "micro": (
                "A malloc/free pair",
                lambda: micro(folder, quick=arguments.quick, rounds=rounds),
            ),
            "real": (
                "Real programs",
                lambda: real(folder, quick=arguments.quick, rounds=min(rounds, 3)),
            ),
            "memory": ("Memory for a live block", lambda: measure_blocks(folder)),
            "sampling": ("Sampled estimates", lambda: measure_sampling(folder, 2 * rounds)),
            "report": (
                "A report on a large recording",
                lambda: report_speed(folder, quick=arguments.quick),
            ),
        }
        for part in PARTS:
            if part in wanted:
                title, measure = parts[part]
                part_page = [f"## {title}", "", *measure(), ""]
                print("\n".join(part_page), flush=True)
                page += part_page
    page.append(f"The whole took {(time.monotonic() - began) / 60:.1f} minutes.")
    if arguments.out:
        arguments.out.write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
