# SPDX-License-Identifier: Apache-2.0
"""What a malloc/free pair costs under each tool, by stack depth, threads and live set."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tools import Tool, check_preload, prove, tools

DEPTHS, THREADS, LIVE = (8, 16, 40), (1, 2), (1_000, 100_000, 1_000_000)
# Timed on a fifth of the pairs: microseconds a pair, beside which a colder start is nothing. The
# peer of the ratio must run as many pairs as leakscope, or its colder start counts against it.
SLOW = {"tcmalloc heap profile"}
LEFT_OUT = {"valgrind"}
FORWARD = "forwarding only"  # the floor for everything that is preloaded
NOTHING = "500 no-ops"  # and of what takes as many instructions, without a cache miss of its own
TARGET, SAMPLED_NS = 0.25, 5.0


def build(folder: Path) -> Path:
    program = folder / "pairs"
    source = Path(__file__).with_name("pairs.c")
    flags = ["-O2", "-g", "-fomit-frame-pointer", "-pthread"]
    subprocess.run(["gcc", *flags, source, "-o", program], check=True)
    for name, flag in (("forward.so", "-DFIFTIES=0"), ("nothing.so", "-DFIFTIES=10")):
        forward = [flag, source.with_name("forward.c"), "-o", folder / name]
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", *forward], check=True)
    return program


def once(program: Path, tool: Tool, arguments: list[str], pairs: int) -> float:
    """Return nanoseconds of processor time for a pair."""
    if tool.name in SLOW:
        pairs //= 5
    with tool.prepared() as (env, _):
        if tool.name == "heaptrack":
            env["DUMP_HEAPTRACK_OUTPUT"] = "/dev/null"
        if tool.name == "LeakSanitizer":
            env["LSAN_OPTIONS"] = "detect_leaks=0"
        done = subprocess.run(
            [program, *arguments, "--pairs", str(pairs)],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
    check_preload(tool, done.stderr)
    return float(done.stdout.split()[1])


def added(program: Path, arguments: list[str], rounds: int, pairs: int) -> dict[str, float]:
    """Return the median of each tool; all tools of a round run one after the other."""
    times: dict[str, list[float]] = {}
    here = {name: tool for name, tool in tools().items() if name not in LEFT_OUT}
    here[FORWARD] = Tool(FORWARD, str(program.with_name("forward.so")))
    here[NOTHING] = Tool(NOTHING, str(program.with_name("nothing.so")))
    for _ in range(rounds):
        for name, tool in here.items():
            times.setdefault(name, []).append(once(program, tool, arguments, pairs))
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        name: median[name] - (median[here[name].base] if name != "native" else 0.0)
        for name in here
        if name not in {"tcmalloc", "jemalloc"}
    }


def measure(folder: Path, *, quick: bool, rounds: int) -> list[str]:
    """Return the table as lines of Markdown."""
    program = build(folder)
    prove(tool for name, tool in tools().items() if name not in LEFT_OUT)
    prove(Tool(name, str(folder / name)) for name in ("forward.so", "nothing.so"))
    pairs = 200_000 if quick else 500_000
    configurations = [
        (f"{depth}", f"{threads}", f"{live:.0e}".replace("e+0", "e"), [
            "--depth", str(depth), "--threads", str(threads), "--live", str(live)])
        for depth, threads, live in itertools.product(DEPTHS, THREADS, LIVE)
        if not quick or (live < 1_000_000 and depth == 16)
    ]  # fmt: skip
    configurations += [
        ("16, 16 sites", "1", "1e3", ["--depth", "16", "--live", "1000", "--sites", "16"]),
        ("16, 16 ways down", "1", "1e3", ["--depth", "16", "--live", "1000", "--sites", "16", "--walk"]),
    ]  # fmt: skip
    names = [n for n in tools() if n not in {*LEFT_OUT, "tcmalloc", "jemalloc"}]
    others = [
        n for n in names if n not in {"native", "leakscope", "heaptrack", "leakscope sampled"}
    ]
    head = [
        "depth",
        "threads",
        "live",
        "native",
        "leakscope",
        "heaptrack",
        "ratio",
        "sampled",
        FORWARD,
        NOTHING,
        *others,
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * 3}{'---:|' * (len(head) - 3)}"]
    met = total = sampled_met = above_met = out_of_reach = 0
    for depth, threads, live, arguments in configurations:
        print(f"micro: depth {depth}, {threads} threads, {live} live", file=sys.stderr)
        cost = added(program, arguments, rounds, pairs)
        ratio = cost["leakscope"] / cost["heaptrack"] if "heaptrack" in cost else float("nan")
        total += 1
        met += ratio <= TARGET
        out_of_reach += cost[NOTHING] > TARGET * cost.get("heaptrack", float("nan"))
        sampled = cost["leakscope sampled"]
        sampled_met += sampled <= SAMPLED_NS
        above_met += sampled - cost[FORWARD] <= SAMPLED_NS
        row = [depth, threads, live, f"{cost['native']:.0f}", f"{cost['leakscope']:.0f}"]
        row += [
            f"{cost.get('heaptrack', float('nan')):.0f}",
            f"{ratio:.2f}{_mark(ratio <= TARGET)}",
        ]
        row += [f"{sampled:.1f}{_mark(sampled <= SAMPLED_NS)}"]
        row += [f"{cost[FORWARD]:.1f}", f"{cost[NOTHING]:.1f}"]
        row += [*(f"{cost[name]:.1f}" for name in others)]
        lines.append(f"| {' | '.join(row)} |")
    return [
        "Nanoseconds of processor time that a malloc/free pair costs: the native pair, then what each",
        "tool adds to it (an allocator's profiler, to that allocator). Median of"
        f" {rounds} rounds; ratio is leakscope : heaptrack. * is what meets its target. Forwarding only is a",
        "preloaded library that hands malloc and free on and does nothing else; 500 no-ops is the same",
        "library with that many no-operations before each call.",
        "",
        *lines,
        "",
        f"leakscope adds at most a quarter of what heaptrack adds in {met} of {total} configurations,"
        f" and at most {SAMPLED_NS:.0f} ns in sampled mode in {sampled_met} of {total}; in {above_met} it is at most"
        f" {SAMPLED_NS:.0f} ns above forwarding only. In {out_of_reach} configurations 500 no-operations"
        " a call already cost more than a quarter of what heaptrack adds.",
    ]


def _mark(met: bool) -> str:
    return "*" if met else ""
