# SPDX-License-Identifier: Apache-2.0
"""Processor time of `leakscope run`: for a trivial program, and for each further process.

    python benchmarks/launch/cost.py [--build | --trivial] [--rounds N] [LEAKSCOPE...]

Several are measured in turn, to compare two versions on the same machine at the same load. With
`--build` alone a build is measured: some 200 processes of make, gcc, cc1, as, ld and sh, two at a
time, in processor and in elapsed time, and the time that a report on all that it left takes. With
`--trivial` alone the trivial program is, under each of the tools in turn: to compare two versions.

User and system time of leakscope and of everything that it started (RUSAGE_CHILDREN), less that
of the same command without leakscope. The two alternate, and the smallest of the rounds counts:
what others do on the machine adds to it. That leakscope was at work is checked: with --keep-all
the same command leaves a recording for each process, and allocations were seen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
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


BUILD = """
OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
all: program
program: $(OBJECTS)
\tgcc -o $@ $^
%.o: %.c
\t@gcc -O1 -c $< -o $@; :
"""
UNITS = 48  # each takes sh, gcc, cc1 and as
UNIT = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int unit_{}(int n) {{ char *p = malloc(n); memset(p, 1, n); int s = 0;
  for (int i = 0; i < n; i++) s += p[i]; free(p); return printf("%d", s); }}
"""


def build(folder: Path, run: list[str]) -> tuple[float, float]:
    """Return the processor and the elapsed seconds of a build from nothing."""
    for path in (*folder.glob("*.o"), folder / "program"):
        path.unlink(missing_ok=True)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*run, "make", "-s", "-j2"], cwd=folder, capture_output=True, check=False)
    after, elapsed = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    assert done.returncode in (0, 1), done.stderr.decode()  # 1: the tools of a build do leak
    assert (folder / "program").exists()
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, elapsed


def measure_build(tools: list[str], folder: Path, rounds: int) -> None:
    """Print what a build costs under each tool, in turn with the build alone; medians."""
    for unit in range(UNITS):
        (folder / f"unit_{unit}.c").write_text(UNIT.format(unit))
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    (folder / "Makefile").write_text(BUILD)
    kept = folder / "kept"
    times: dict[str, list[tuple[float, float]]] = {}
    reports: dict[str, tuple[int, float, float]] = {}
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        times.setdefault("", []).append(build(folder, []))
        for tool in tools:
            kept.mkdir()
            run = [tool, "run", "-q", "-o", str(kept), "--"]
            times.setdefault(tool, []).append(build(folder, run))
            assert list(kept.glob("*gcc*.leakscope")), "nothing was recorded"
            shutil.rmtree(kept)
    for tool in tools:  # all that it leaves, for the report
        kept.mkdir()
        build(folder, [tool, "run", "-q", "--no-report", "--keep-all", "-o", str(kept), "--"])
        files = len(list(kept.glob("*.leakscope")))
        assert files > 3 * UNITS, files
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([tool, "report", str(kept)], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        reports[tool] = (files, used, time.monotonic() - began)
        shutil.rmtree(kept)
    print(f"build, {UNITS + 1} units, -j2; load {os.getloadavg()[0]:.1f}; medians of {rounds}")
    for tool, each in times.items():
        used, elapsed = (statistics.median(column) for column in zip(*each, strict=True))
        print(f"{tool or 'alone':60} {used:6.2f} s processor {elapsed:6.2f} s elapsed")
    for tool, (files, used, elapsed) in reports.items():
        print(f"{tool:60} {used:6.2f} s processor {elapsed:6.2f} s elapsed, report on {files}")


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


def measure_trivial(tools: list[str], folder: Path, rounds: int) -> None:
    """Print what `run -- true` costs under each tool, in turn with the program alone."""
    for tool in tools:  # that it is at work; compiles its modules as well
        files, events = seen(tool, ["ls", "/"], folder)
        assert files == 1, files
        assert events > 0, events
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        times.setdefault("", []).append(spent(["true"], folder))
        for tool in tools:
            times.setdefault(tool, []).append(spent([tool, "run", "-q", "--", "true"], folder))
    plain = min(times.pop(""))
    print(
        f"run -q -- true; load {os.getloadavg()[0]:.1f}; milliseconds of processor time, {rounds}"
    )
    print(f"rounds; {'no bytecode is kept' if sys.dont_write_bytecode else 'bytecode is kept'}")
    for tool, each in times.items():
        least, middle = min(each) - plain, statistics.median(each) - plain
        print(f"{tool:60} {least * 1e3:5.0f} at least {middle * 1e3:5.0f} median")


def measure(leakscope: str, command: list[str], folder: Path, rounds: int) -> tuple[float, float]:
    """Return the smallest processor time without and with leakscope."""
    plain, traced = [], []
    for _ in range(rounds):
        plain.append(spent(command, folder))
        traced.append(spent([leakscope, "run", "--", *command], folder))
    return min(plain), min(traced)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Processor time of leakscope run.")
    parser.add_argument("--build", action="store_true", help="measure the build alone")
    parser.add_argument("--trivial", action="store_true", help="measure the trivial program alone")
    parser.add_argument("--rounds", type=int, default=3, help="of the build, or of --trivial")
    parser.add_argument("tools", nargs="*", default=[shutil.which("leakscope") or "leakscope"])
    args = parser.parse_args()
    tools = [str(Path(each).absolute()) for each in args.tools]
    with tempfile.TemporaryDirectory(prefix="leakscope-build-") as name:
        if args.trivial:
            measure_trivial(tools, Path(name), args.rounds)
            return 0
        measure_build(tools, Path(name), args.rounds)
    if args.build:
        return 0
    for leakscope in tools:
        measure_launch(leakscope)
    return 0


def measure_launch(leakscope: str) -> None:
    """Print the table of one tool."""
    with tempfile.TemporaryDirectory(prefix="leakscope-cost-") as name:
        folder = Path(name)
        (folder / "forks.c").write_text(FORKS)
        subprocess.run(["gcc", "-O1", "-w", "forks.c", "-o", "forks"], cwd=folder, check=True)
        forks = str(folder / "forks")
        loop = "i=0; while [ $i -lt {} ]; do {}; i=$((i+1)); done"
        print(f"\n{leakscope}")
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


if __name__ == "__main__":
    sys.exit(main())
