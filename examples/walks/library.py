# SPDX-License-Identifier: Apache-2.0
"""The caller from Python: trace a program, look at its leaks, ask about a process that runs.

library.py [SECONDS]      how long to look at the process, 30 usually
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import leakscope

HERE = Path(__file__).resolve().parent


def main(seconds: float) -> None:
    """Print what a notebook would show, and how long each answer took."""
    with tempfile.TemporaryDirectory() as folder:
        parser, daemon = f"{folder}/parser", f"{folder}/walk-server"
        subprocess.run(["g++", "-g", "-O2", "-o", parser, HERE / "parser.cc"], check=True)
        subprocess.run(["gcc", "-g", "-O2", "-o", daemon, HERE / "daemon.c"], check=True)

        began = time.monotonic()
        run = leakscope.run([parser], cwd=folder, timeout="1m", stdout=subprocess.DEVNULL)
        for leak in run.leaks:
            print(leak.verdict, leak.live_bytes, leak.source)
        print(f"run: {time.monotonic() - began:.1f} s")

        with subprocess.Popen([daemon], stdout=subprocess.DEVNULL) as process:
            try:
                began = time.monotonic()
                found = leakscope.find(process.pid, duration=seconds, max_pause=1)
                print(found)
                print(f"find: {time.monotonic() - began:.1f} s")
            finally:
                process.kill()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
