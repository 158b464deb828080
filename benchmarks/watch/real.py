# SPDX-License-Identifier: Apache-2.0
"""Real programs that leak or do not, watched together, and what the verdicts on them are.

    python benchmarks/watch/real.py record FILE [--for 75m]    runs the programs (needs root)
    python benchmarks/watch/real.py judge FILE [--from 40]     prints the table, any time later

`judge` replays the recording and asks for a verdict after each 5 minutes, as somebody at the
screen would: the time to verdict is the first look from which a leak is called for good, a false
alarm is a healthy gauge that is called a leak at any look. The programs are in programs.c. The
recording starts with them, and no process younger than 40 minutes is called a leak; `--from 40`
judges as if the watch had begun when they were that old, as daemons are.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from leakscope.judge.trends import judge_series
from leakscope.model.series import TrendVerdict
from leakscope.observe.collect import Collection
from leakscope.observe.store_reader import StoreReader
from leakscope.proc.slabinfo import merged_caches

HERE = Path(__file__).parent
# Shape -> the gauge of the process, machine or cache that leaks.
LEAKS = {
    "leak-60": ("process", "leak-60", "anon"),
    "leak-12": ("process", "leak-12", "anon"),
    "leak-bursts": ("process", "leak-bursts", "anon"),
    "leak-late": ("process", "leak-late", "anon"),
    "leak-gc": ("process", "leak-gc", "anon"),
    "leak-fds": ("process", "leak-fds", "fds"),
    "leak-sockets": ("process", "leak-sockets", "fds"),
    "leak-threads": ("process", "leak-threads", "threads"),
    "leak-maps": ("process", "leak-maps", "mappings"),
    "leak-zombies": ("process", "leak-zombies", "zombies"),
    "leak-children": ("process", "leak-children", "children"),
    "leak-sysv": ("sysv", "System V shared memory", "shm"),
    "leak-tmpfs": ("tmpfs", "/dev/shm", "tmpfs"),
    "leak-slab": ("slab", "posix_timers_cache", "unreclaimable"),
}
HEALTHY = ["warm-up", "cache-bounded", "sawtooth", "step", "fragmentation", "fork-pool"]
HEALTHY += ["log-tmpfs", "dentries", "flat"]
LOOK_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True, dest="command")
    record = commands.add_parser("record")
    record.add_argument("file")
    record.add_argument("--for", dest="duration", default="75m")
    judge = commands.add_parser("judge")
    judge.add_argument("file")
    judge.add_argument("--from", dest="begin", type=float, default=0.0, help="minutes to skip")
    options = parser.parse_args()
    if options.command == "record":
        run(options.file, options.duration)
    else:
        tell(options.file, options.begin)


def run(file: str, duration: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "programs")
        source = str(HERE / "programs.c")
        subprocess.run(["cc", "-O1", "-pthread", source, "-o", program, "-lm"], check=True)
        crowd = [subprocess.Popen([program, shape]) for shape in [*LEAKS, *HEALTHY]]
        try:
            command = [sys.executable, "-m", "leakscope", "watch", "--for", duration, "--plain"]
            environment = os.environ | {"PYTHONPATH": str(HERE.parents[1] / "src")}
            subprocess.run([*command, "--record", file], env=environment, check=False)
        finally:
            for one in crowd:
                one.kill()
                one.wait()
            for path in glob.glob("/dev/shm/leakscope-bench-*"):
                os.unlink(path)
            for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
                if int(line.split()[4]) in {one.pid for one in crowd}:
                    with contextlib.suppress(OSError):
                        subprocess.run(["ipcrm", "-m", line.split()[1]], check=False)


def tell(file: str, begin: float) -> None:
    reader = StoreReader(Path(file))
    collection = Collection(interval_s=float(reader.about["interval_s"]), keep_ended=True)
    called: dict[tuple[str, str, str], list[float]] = {}
    judged: set[tuple[str, str, str]] = set()
    last: dict[tuple[str, str, str], str] = {}
    looks: list[float] = []
    first = due = 0
    start = next(one for one, _ in reader.passes()).time_ns + int(begin * 6e10)
    for one, asleep in reader.passes(since_ns=start):
        collection.add(one, asleep_ns=asleep)
        first = first or one.time_ns
        due = due or first + int(LOOK_S * 1e9)
        if one.time_ns < due:
            continue
        due += int(LOOK_S * 1e9)
        minute = (one.time_ns - first) / 6e10
        looks.append(minute)
        for trend in judge_series(collection.judged()):
            subject = trend.series.subject
            key = (subject.kind, subject.key, trend.series.metric)
            judged.add(key)
            last[key] = str(trend.verdict)
            if trend.verdict is TrendVerdict.LEAK:
                called.setdefault(key, []).append(minute)
    names = {s.subject.key: s.subject.name for s in collection.series()}
    named = {(kind, names[key], metric): (kind, key, metric) for kind, key, metric in judged}
    for key in judged:  # merged caches show one name of several
        if key[0] == "slab" and "posix_timers_cache" in _caches(key[1]):
            named[LEAKS["leak-slab"]] = key
    print(f"{reader.frames} looks of the recorder, {len(judged)} gauges, a look every 5 minutes.\n")
    print("| program | gauge | called a leak after | verdict at the end |\n|---|---|---:|---|")
    times: list[float] = []
    missed: list[str] = []
    for shape, gauge in LEAKS.items():
        key = named.get(gauge)
        when = _for_good(called.get(key, []), looks) if key else None
        if when is None:
            missed.append(shape)
        else:
            times.append(when)
        shown = "never" if when is None else f"{when:.0f} min"
        print(f"| {shape} | {gauge[1]} {gauge[2]} | {shown} | {last.get(key, 'no such gauge')} |")
    expected = {named.get(gauge) for gauge in LEAKS.values()}
    wrong = [key for key in called if key not in expected and _healthy(key, names)]
    for key in wrong:
        kind, ident, metric = key
        when = ", ".join(f"{m:.0f}" for m in called[key])
        print(f"| false alarm | {kind} {names[ident]} {metric} | at {when} min | {last[key]} |")
    hours = sum(_healthy(key, names) for key in judged - expected) * (looks[-1] / 60)
    found = len(LEAKS) - len(missed)
    print(f"\nFound {found} of {len(LEAKS)} leaks", end="")
    print(f", after {statistics.median(times):.0f} min in the median." if times else ".")
    print(f"{len(wrong)} false alarms in {hours:.0f} gauge-hours of healthy gauges.")


def _caches(name: str) -> tuple[str, ...]:
    return (name, *merged_caches().get(name, ()))


def _for_good(called: list[float], looks: list[float]) -> float | None:
    """Return the first look from which all looks called it."""
    when = None
    for look in reversed(looks):
        if look not in called:
            break
        when = look
    return when


def _healthy(key: tuple[str, str, str], names: dict[str, str]) -> bool:
    """Whether it is a gauge of one of the programs that nothing that leaks moves.

    Other processes of the machine are unknown, and its sums are moved by what leaks.
    """
    kind, ident, metric = key
    if kind == "process" and names[ident] in {*LEAKS, *HEALTHY, "pool-worker", "child"}:
        name = names[ident]
        both = {"leak-threads": {"anon", "mappings", "page_tables"}}
        moved = {"leak-children": {"anon"}, "leak-sysv": {"shmem"}} | both
        own = {gauge[2] for shape, gauge in LEAKS.items() if shape == name}
        memory = {"anon", "page_tables"} if own == {"anon"} else set()
        return metric not in own | memory | moved.get(name, set())
    return False


if __name__ == "__main__":
    main()
