# SPDX-License-Identifier: Apache-2.0
"""Attach and detach for a long time, and say what was seen.

    python benchmarks/attach/soak.py [--cycles 100] [--hold 0.3] [--only NAME]

Programs check themselves, and servers have clients that check every answer. A wrong answer, a crash
or a hang ends it with an error. What is printed is what was seen, on this machine, under its load.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from harm.attaching import BUILDS, PRELOADS, Soak, build, python, soak_program, soak_server
from harm.servers import SERVERS


def main() -> int:
    """Run the soak and print a line for each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*BUILDS, *(f"busy-{each}" for each in PRELOADS), "python", *SERVERS]
    parser.add_argument("--cycles", type=int, default=100, help="for each target")
    parser.add_argument("--hold", type=float, default=0.3, help="seconds attached in each cycle")
    parser.add_argument("--only", choices=names, action="append")
    arguments = parser.parse_args()
    total, bad = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for each in arguments.only or names:
            began = time.monotonic()
            result = _one(each, folder, arguments.cycles, arguments.hold)
            print(f"{result.text()} ({time.monotonic() - began:.0f} s)", flush=True)
            for reason in dict.fromkeys([*result.refused, *result.kept]):
                print(f"  {reason}")
            total += result.cycles
            bad += len(result.refused)
    print(f"{total} cycles, {bad} of them refused; load {os.getloadavg()[0]:.1f} at the end")
    return 0


def _one(name: str, folder: Path, cycles: int, hold_s: float) -> Soak:
    if name in BUILDS:
        return soak_program(name, [str(build(name, folder))], folder, cycles, hold_s)
    if name == "python":
        return soak_program(name, python(), folder, cycles, hold_s)
    if name in SERVERS:
        return soak_server(SERVERS[name](folder / name, [], dict(os.environ)), cycles, hold_s)
    preload = PRELOADS[name.removeprefix("busy-")]
    return soak_program(name, [str(build("busy", folder))], folder, cycles, hold_s, preload)


if __name__ == "__main__":
    sys.exit(main())
