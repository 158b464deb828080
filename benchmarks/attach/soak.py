# SPDX-License-Identifier: Apache-2.0
"""Attach and detach for a long time, and say what was seen.

    python benchmarks/attach/soak.py [--cycles 100] [--hold 0.3] [--only NAME]
    python benchmarks/attach/soak.py --kill tracer|target [--cycles 100] [--only NAME]

Programs check themselves, and servers have clients that check every answer. A wrong answer, a crash
or a hang ends it with an error. With --kill, whoever attaches, or the process that is attached to, gets
SIGKILL at a random moment of each cycle, and what is left is looked at and taken out. What is printed is
what was seen, on this machine, under its load.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from harm.attaching import (
    BUILDS,
    PLACES,
    PRELOADS,
    Soak,
    build,
    in_place,
    java,
    python,
    soak_program,
    soak_server,
    started,
)
from harm.killing import Kills, kill_server, kill_targets, kill_tracers
from harm.servers import SERVERS

REFUSED = ("shares", "no_restart")  # as they should be
KILLED = ("leaky", "static", "musl", "musl-static", "busy", "python", "java")


def main() -> int:
    """Run the soak and print a line for each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*BUILDS, *(f"busy-{each}" for each in PRELOADS), "python", "java", *PLACES, *SERVERS]
    parser.add_argument("--cycles", type=int, default=100, help="for each target")
    parser.add_argument("--hold", type=float, default=0.3, help="seconds attached in each cycle")
    parser.add_argument("--only", choices=names, action="append")
    parser.add_argument("--kill", choices=("tracer", "target"), help="what gets SIGKILL")
    arguments = parser.parse_args()
    total, bad, ended = 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if arguments.kill is not None:
            return _kill(arguments, folder)
        for each in arguments.only or names:
            began = time.monotonic()
            result = _one(each, folder, arguments.cycles, arguments.hold)
            print(f"{result.text()} ({time.monotonic() - began:.0f} s)", flush=True)
            for reason in dict.fromkeys([*result.refused, *result.kept]):
                print(f"  {reason}", flush=True)
            total += result.cycles
            bad += len(result.refused) if each not in REFUSED else 0
            ended += result.ended
    print(
        f"{total} cycles, {bad} of them refused beside {', '.join(REFUSED)}, {ended} too late for a process"
        f" that ended; load {os.getloadavg()[0]:.1f} at the end"
    )
    return 0


def _one(name: str, folder: Path, cycles: int, hold_s: float) -> Soak:
    if name in SERVERS:
        return soak_server(SERVERS[name](folder / name, [], dict(os.environ)), cycles, hold_s)
    command, preload = _command(name, folder)
    return soak_program(name, command, folder, cycles, hold_s, preload)


def _command(name: str, folder: Path) -> tuple[list[str], str | None]:
    """Return how a program is started, and what is preloaded."""
    if name in PLACES:
        return in_place(name, folder), None
    if name in BUILDS:
        return [str(build(name, folder))], None
    if name in ("python", "java"):
        return (python() if name == "python" else java(folder)), None
    return [str(build("busy", folder))], PRELOADS[name.removeprefix("busy-")]


def _kill(arguments: argparse.Namespace, folder: Path) -> int:
    """Run the cycles in which somebody is killed."""
    total = 0
    servers = [] if arguments.kill == "target" else [*SERVERS]
    for each in arguments.only or [*KILLED, *servers]:
        began = time.monotonic()
        result = _killed(each, folder, arguments)
        print(f"{result.text()} ({time.monotonic() - began:.0f} s)", flush=True)
        total += result.cycles
    print(
        f"{total} kills of the {arguments.kill}, 0 harmed; load {os.getloadavg()[0]:.1f} at the end"
    )
    return 0


def _killed(name: str, folder: Path, arguments: argparse.Namespace) -> Kills:
    if name in SERVERS:
        server = SERVERS[name](folder / name, [], dict(os.environ))
        return kill_server(server, arguments.cycles)
    command, preload = _command(name, folder)
    if arguments.kill == "target":
        return kill_targets(name, command, folder, arguments.cycles)
    with started(command, folder, preload) as process:

        def check() -> None:
            assert process.poll() is None, f"{name} ended with {process.returncode}"

        return kill_tracers(name, process.pid, arguments.cycles, check)


if __name__ == "__main__":
    sys.exit(main())
