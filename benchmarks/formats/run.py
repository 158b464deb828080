# SPDX-License-Identifier: Apache-2.0
"""Time readers of other tools' files beside the tools' own printers, on files that they wrote here.

python benchmarks/formats/run.py [--rounds N] [--times N]

Prints a Markdown table: CPU seconds (both of this machine), their ratio, and the most memory that
the reader took. The two run in turns; the median of the ratios counts. A tool that is not
installed is left out, and said.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"
READ = """
import resource, sys
from leakscope.formats import read_foreign
found = read_foreign(sys.argv[1])
print(sum(int(one.sites["live_bytes"].sum()) for one in found),
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def cpu(*command: object, cwd: Path, **environment: str) -> tuple[float, str]:
    """Run a command; returns its CPU seconds and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode and not done.stdout:  # mtrace's status tells of leaks
        raise SystemExit(f"{command[0]} failed: {done.stderr[-500:]}")
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used, done.stdout


def mtrace(folder: Path, rounds: int) -> tuple[Path, list[object]]:
    cpu(
        "./churn", rounds, cwd=folder,
        LD_PRELOAD="libc_malloc_debug.so.0", MALLOC_TRACE=str(folder / "mtrace.log"),
    )  # fmt: skip
    return folder / "mtrace.log", ["mtrace", folder / "mtrace.log"]


def heaptrack(folder: Path, rounds: int) -> tuple[Path, list[object]]:
    cpu("heaptrack", "-o", folder / "heaptrack", "./churn", rounds, cwd=folder)
    (path,) = folder.glob("heaptrack.*")
    return path, ["heaptrack_print", path]


def massif(folder: Path, rounds: int) -> tuple[Path, list[object]]:
    path = folder / "massif.out"
    option = f"--massif-out-file={path}"
    cpu("valgrind", "--tool=massif", option, "--max-snapshots=1000", "--detailed-freq=1", "./churn", rounds // 20, cwd=folder)  # fmt: skip
    return path, ["ms_print", path]


def go(folder: Path, rounds: int) -> tuple[Path, list[object]]:
    (folder / "main.go").write_text(
        'package main\nimport ("os"; "runtime/pprof"; "runtime")\nvar keep [][]byte\n'
        "func grow(n int) { for i := 0; i < n; i++ { keep = append(keep, make([]byte, 64)) } }\n"
        "func main() { runtime.MemProfileRate = 1\n"
        f"grow({rounds // 100}); f, _ := os.Create(os.Args[1]); pprof.WriteHeapProfile(f); f.Close() }}\n"
    )
    path = folder / "go.pb.gz"
    cpu("go", "run", "main.go", path, cwd=folder, GOCACHE=str(folder / "cache"), GO111MODULE="off")
    return path, ["go", "tool", "pprof", "-top", path]


TOOLS: dict[str, Callable[[Path, int], tuple[Path, list[object]]]] = {
    "mtrace": mtrace,
    "heaptrack_print": heaptrack,
    "ms_print": massif,
    "go": go,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=1_000_000, help="allocations of the program")
    parser.add_argument("--times", type=int, default=5, help="how often each is run")
    args = parser.parse_args()
    print("| printer | file MB | printer CPU s | reader CPU s | ratio | reader's memory MB |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="leakscope-formats-") as name:
        folder = Path(name)
        subprocess.run(["gcc", "-O1", "-g", HERE / "churn.c", "-o", folder / "churn"], check=True)
        for tool, make in TOOLS.items():
            if shutil.which(tool) is None:
                print(f"| {tool} | not installed | | | | |")
                continue
            path, printer = make(folder, args.rounds)
            theirs, ours, memory = [], [], 0
            for _ in range(args.times):
                theirs.append(cpu(*printer, cwd=folder, GOCACHE=str(folder / "cache"))[0])
                used, printed = cpu(
                    sys.executable, "-c", READ, path, cwd=folder, PYTHONPATH=str(SOURCES)
                )
                ours.append(used)
                memory = max(memory, int(printed.split()[1]) << 10)
            ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
            print(
                f"| {tool} | {path.stat().st_size / 1e6:,.1f} | {statistics.median(theirs):.2f}"
                f" | {statistics.median(ours):.2f} | {statistics.median(ratios):.2f} | {memory / 1e6:,.0f} |"
            )


if __name__ == "__main__":
    main()
