# SPDX-License-Identifier: Apache-2.0
"""How soon the first answer is there: runs the walks of examples/walks, prints a table in Markdown.

    python benchmarks/walks/run.py [--quick]

The `leakscope` of the PATH is measured, from the start of each command, that of Python included:
to the first line with a verdict or a rate, and to its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

WALKS = Path(__file__).resolve().parents[2] / "examples" / "walks"
QUESTIONS = {
    "triage": "where is the memory, what grows: `leakscope`",
    "watch": "how fast does it grow: `leakscope watch NAME --for 20s`",
    "find": "is it a leak, and of what: `leakscope find PID`",
    "lines": "which line: `leakscope find PID --attach`",
    "run": "a program of 3 ms that leaks: `leakscope run`",
    "stacks": "the whole stacks: `leakscope report --verbose`",
    "mended": "the same program, mended: `leakscope run`",
    "build": "`make -j2` that compiles three tests and runs them",
    "known": "the tests again, all leaks suppressed",
    "red": "the same, a test fails",
    "runner": "a test runner in Python that fails",
    "prefork": "a server with three workers",
}


def main() -> None:
    """Walk, and print a row for each command."""
    times = ("4s", "5s") if "--quick" in sys.argv[1:] else ("20s", "30s")
    load = os.getloadavg()[0]
    print("| walk | question | first answer | end |\n|---|---|---|---|")
    for name in ("operator", "developer", "ci"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["bash", WALKS / f"{name}.sh", *(times if name == "operator" else ())],
                env=os.environ | {"WALK_FOLDER": folder},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            for line in (Path(folder) / "times").read_text(encoding="utf-8").splitlines():
                what, first, total = line.split("\t")
                print(f"| {name} | {QUESTIONS[what]} | {first} s | {total} s |", flush=True)
    done = subprocess.run(
        [sys.executable, WALKS / "library.py", times[1].removesuffix("s")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        what, _, seconds = line.partition(": ")
        if what in {"run", "find"} and seconds.endswith(" s"):
            print(f"| library | `leakscope.{what}` | {seconds} | {seconds} |")
    print(
        f"\n{os.cpu_count()} processors; load {load:.0f} before and {os.getloadavg()[0]:.0f} after."
    )


if __name__ == "__main__":
    main()
