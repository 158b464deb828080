# SPDX-License-Identifier: Apache-2.0
"""The long form of the harm suite: servers under leakscope for minutes, and every case again and again.

    python benchmarks/harm/run.py servers [--minutes 1] [--only redis]
    python benchmarks/harm/run.py cases [--times 10] [--busy]

`servers` runs each server alone and under leakscope at once, gives both the same work in turn, checks
every answer, and prints a table; `cases` runs the tests of tests/harm several times, with --busy
beside processes that keep every processor at work. The exit status is 1 when anything differed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from harm.comparison import MODES, SLICE_S, Comparison, compare
from harm.servers import SERVERS

ROOT = Path(__file__).parents[2]
HEAD = """\
| server | mode | requests checked | p99 alone | p99 ratio, best and median of tries | anonymous memory | scans | differences |
|---|---|---:|---:|---:|---:|---:|---|"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    servers = commands.add_parser("servers")
    servers.add_argument("--minutes", type=float, default=1.0, help="of load, for each row")
    servers.add_argument("--only", choices=SERVERS, action="append")
    cases = commands.add_parser("cases")
    cases.add_argument("--times", type=int, default=10)
    cases.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "cases":
        return repeat_cases(arguments.times, busy=arguments.busy)
    return compare_servers(arguments.only or list(SERVERS), arguments.minutes)


def compare_servers(names: list[str], minutes: float) -> int:
    tries = 5
    slices = max(1, round(minutes * 60 / SLICE_S / tries))
    print(HEAD, flush=True)
    differed = False
    for name in names:
        for mode in MODES:
            with tempfile.TemporaryDirectory(prefix="leakscope-harm-") as folder:
                Path(folder).chmod(0o711)
                found = compare(SERVERS[name], mode, Path(folder), tries=tries, slices=slices)
            differed |= bool(found.differences)
            print(row(found), flush=True)
    return int(differed)


def row(found: Comparison) -> str:
    alone = sorted(found.plain)[len(found.plain) // 2] * 1000
    memory = f"{found.plain_bytes / 2**20:.1f} → {found.subject_bytes / 2**20:.1f} MiB"
    differences = "; ".join(found.differences).replace("|", "\\|") or "none"
    scans = found.scans or "–"
    return (
        f"| {found.server} | {found.mode} | {found.requests:,} | {alone:.2f} ms"
        f" | {found.best:.2f}, {found.median:.2f} | {memory} | {scans} | {differences} |"
    )


def repeat_cases(times: int, *, busy: bool) -> int:
    """Run tests/harm `times` times and say how often each run was all green."""
    spinners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
        if busy
    ]
    failed = 0
    try:
        for number in range(1, times + 1):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-n0", "tests/harm"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
            print(f"{number}: {lines[-1].strip('= ')}", flush=True)
            if done.returncode:
                failed += 1
                print("\n".join(line for line in lines if line.startswith(("FAILED", "ERROR"))))
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
    print(
        f"{times - failed} of {times} runs of the harm suite were green{' on a busy machine' * busy}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
