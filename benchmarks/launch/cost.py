# SPDX-License-Identifier: Apache-2.0
"""Processor time of `leakscope run`: for a trivial program, and for each further process.

    python benchmarks/launch/cost.py [LEAKSCOPE]

User and system time of leakscope and of everything that it started (RUSAGE_CHILDREN), less that
of the same command without leakscope. The two alternate, and the smallest of the rounds counts:
what others do on the machine adds to it. That leakscope was at work is checked: with --keep-all
the same command leaves a recording for each process, and allocations were seen.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 7
MANY = 300

FORKS = """
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
  for (int i = atoi(argv[1]); i > 0; i--) {
    if (fork() == 0) {
      for (int n = 0; n < 100; n++) {
        void *volatile block = malloc(100);
        free(block);
      }
      exit(0);
    }
    if (wait(NULL) < 0) return 1;
  }
  return argc > 2;
}
"""


def spent(command: list[str], folder: Path) -> float:
    """Return the seconds of processor time that a command and its children take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command}: status {done.returncode}\n{done.stderr.decode()}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def seen(leakscope: str, command: list[str], folder: Path) -> tuple[int, int]:
    """Return how many recordings a command leaves with --keep-all, and allocations in them."""
    kept = folder / "kept"
    kept.mkdir()
    run = [leakscope, "run", "-q", "--keep-all", "--json", "--report-file", "report.json"]
    spent([*run, "-o", str(kept), "--", *command], folder)
    report = json.loads((folder / "report.json").read_text())
    files = len(list(kept.glob("*.leakscope")))
    shutil.rmtree(kept)
    return files, sum(each["totals"]["allocation_count"] for each in report["processes"])


def measure(leakscope: str, command: list[str], folder: Path, rounds: int) -> tuple[float, float]:
    """Return the smallest processor time without and with leakscope."""
    plain, traced = [], []
    for _ in range(rounds):
        plain.append(spent(command, folder))
        traced.append(spent([leakscope, "run", "--", *command], folder))
    return min(plain), min(traced)


def main() -> int:
    """Print the table."""
    leakscope = sys.argv[1] if len(sys.argv) > 1 else shutil.which("leakscope") or "leakscope"
    leakscope = str(Path(leakscope).absolute())
    with tempfile.TemporaryDirectory(prefix="leakscope-cost-") as name:
        folder = Path(name)
        (folder / "forks.c").write_text(FORKS)
        subprocess.run(["gcc", "-O1", "-w", "forks.c", "-o", "forks"], cwd=folder, check=True)
        forks = str(folder / "forks")
        loop = "i=0; while [ $i -lt {} ]; do {}; i=$((i+1)); done"
        print(
            f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
        )
        print(f"load {os.getloadavg()[0]:.1f}; processor time in milliseconds, leakscope's share\n")
        base = 0.0
        for what, few, many, count in (
            ("true", ["true"], None, 0),
            ("forked children that free all", [forks, "0"], [forks, str(MANY)], MANY),
            (
                "programs that a shell starts: /bin/true",
                ["sh", "-c", loop.format(0, "/bin/true")],
                ["sh", "-c", loop.format(MANY, "/bin/true")],
                MANY,
            ),
            (
                "programs with blocks at the end: /bin/ls",
                ["sh", "-c", loop.format(0, "/bin/ls")],
                ["sh", "-c", loop.format(100, "/bin/ls -d /")],
                100,
            ),
        ):
            plain, traced = measure(leakscope, few, folder, ROUNDS)
            base = traced - plain
            if many is None:
                files, events = seen(leakscope, ["ls", "/"], folder)
                assert files == 1, files
                assert events > 0, events
                print(f"{what:44} {base * 1e3:6.0f} in all")
                continue
            all_plain, all_traced = measure(leakscope, many, folder, 3)
            files, events = seen(leakscope, many, folder)
            assert files > count * 0.9 or files > 250, files
            assert events > 0, events
            each = (all_traced - all_plain - base) / count * 1e3
            print(
                f"{what:44} {each:6.2f} each ({count} of them; {files} recordings, {events:,} events)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
