#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what `leakscope top` takes of a core while a program changes 10,000 sites.

    .venv/bin/python benchmarks/top/run.py [SITES] [SECONDS]

Traces sites.c, shows it in a pseudo-terminal of 200 by 60 cells, and counts processor time of the
screen alone, from the kernel, after a start of 20 s. It also proves that there was something to
look at: rounds of the program, sites that changed meanwhile, and screens that were drawn. Exits 1
above 2 % of a core, or when nothing was proven.
"""

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
START_S = 20.0
MOST = 0.02


def processor_s(pid):
    """Seconds of processor time of a process with the children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def allocations(pid):
    """Blocks that each site ever allocated, as the recording tells now."""
    from leakscope.recording import live
    from leakscope.trace.live_files import find_live_file

    recording = live.read(find_live_file(pid).path)
    return dict(enumerate(recording.sites["allocs"].tolist()))


class Terminal:
    """A command in a terminal, and when it wrote how much."""

    def __init__(self, *command):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color"},
        )
        os.close(theirs)
        self.ours = ours
        self.writes = []
        self.last = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while self.process.poll() is None:
            if select.select([self.ours], [], [], 0.2)[0]:
                try:
                    part = os.read(self.ours, 1 << 16)
                except OSError:
                    return
                self.writes.append((time.monotonic(), len(part)))
                self.last = (self.last + part)[-200_000:]


def main():
    sites = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    folder = Path(tempfile.mkdtemp(prefix="leakscope-top-"))
    leakscope = (sys.executable, "-m", "leakscope")
    program = screen = None
    try:
        subprocess.run(["gcc", "-g", "-O1", "-o", folder / "sites", HERE / "sites.c"], check=True)
        rounds = (folder / "rounds").open("w")
        program = subprocess.Popen(
            [*leakscope, "run", "-q", "--no-report", "-o", folder / "end", "--",
             folder / "sites", str(sites)],
            stdout=rounds, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while (folder / "rounds").stat().st_size < 4:
            assert time.monotonic() < deadline, "the program does not come up"
            time.sleep(0.1)
        pid = int(subprocess.check_output(["pgrep", "-P", str(program.pid), "-x", "sites"]))
        screen = Terminal(*leakscope, "top", str(pid))
        time.sleep(START_S)
        assert screen.process.poll() is None, screen.last.decode(errors="replace")
        begun, before = time.monotonic(), allocations(pid)
        first, spent = lines(folder / "rounds"), processor_s(screen.process.pid)
        time.sleep(seconds)
        used = processor_s(screen.process.pid) - spent
        took = time.monotonic() - begun
        assert screen.process.poll() is None, screen.last.decode(errors="replace")
        after = allocations(pid)
        changed = sum(after[site] > count for site, count in before.items())
        ticks = {int(at - begun) for at, _ in screen.writes if at >= begun}
        share = used / took
        print(f"sites                 {len(after):10,}")
        print(f"  that changed        {changed:10,}")
        print(f"rounds of the program {lines(folder / 'rounds') - first:10,} in {took:.0f} s")
        print(f"seconds with a drawing{len(ticks):10,}")
        print(f"start, {START_S:.0f} s           {spent:10.2f} s of processor time")
        print(f"then                  {100 * share:10.2f} % of a core")
        proven = changed >= sites and len(ticks) >= 0.8 * took
        return 0 if share <= MOST and proven else 1
    finally:
        for one in (screen and screen.process, program):
            if one is not None and one.poll() is None:
                os.killpg(one.pid, 15)
                one.wait(20)
        shutil.rmtree(folder)


def lines(path):
    """How many lines a file has."""
    return path.read_bytes().count(b"\n")


if __name__ == "__main__":
    sys.exit(main())
