# SPDX-License-Identifier: Apache-2.0
"""Real programs under each tool: wall time, peak memory, and what is left on disk."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parents[1]), str(ROOT / "src")]
from tools import IdleToolError, Tool, allocations, prove, tools  # noqa: E402

LEFT_OUT = {"tcmalloc", "jemalloc"}
PYTHON = """
import json
rows = [{"id": i, "name": "row %d" % i, "tags": [str(j) for j in range(i % 7)]} for i in range(60000)]
text = json.dumps(rows)
back = json.loads(text)
index = {}
for row in back:
    index.setdefault(len(row["tags"]), []).append(row["name"].upper())
print(sum(len(v) for v in index.values()))
"""


class ToolError(Exception):
    """The program did not survive the tool; the argument is its status, negative for a signal."""


@dataclass
class Run:
    """One run: seconds, peak resident KiB, bytes left on disk."""

    seconds: float
    peak_kib: int
    disk: int


class Peak:
    """The highest resident memory of a process, read a hundred times a second.

    ru_maxrss would do, if it did not count what the forking parent had before exec.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._kib = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            try:
                text = self._status.read_text()
            except OSError:
                return
            for line in text.splitlines():
                if line.startswith("VmHWM:"):
                    self._kib = max(self._kib, int(line.split()[1]))

    def kib(self) -> int:
        """Return it, after the end of the process."""
        self._ended.set()
        self._thread.join()
        return self._kib


def disk_of(tool: Tool, folder: Path) -> int:
    """Bytes of what the tool leaves; for leakscope, of the packed recordings."""
    if not tool.name.startswith("leakscope"):
        return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    from leakscope.recording import load, packed

    if not allocations(folder):
        raise IdleToolError(f"{tool.name} was not at work: it recorded nothing")
    total = 0
    for live in folder.glob("*.live"):
        out = folder / "packed.leakscope"
        packed.write(load(live), out)
        total += out.stat().st_size
        out.unlink()
    return total


def command(arguments: list[str], **kw: str) -> Callable[[Tool], Run]:
    def run(tool: Tool) -> Run:
        with tool.prepared() as (env, folder):
            env.update(kw)
            before = time.perf_counter()
            process = subprocess.Popen(
                [*tool.wrapper, *arguments],
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            peak = Peak(process.pid)
            _, status, _ = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - before
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise ToolError(process.returncode)
            return Run(seconds, peak.kib(), disk_of(tool, folder))

    return run


def redis(folder: Path) -> Callable[[Tool], Run]:
    def run(tool: Tool) -> Run:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        with tool.prepared() as (env, kept):
            server = subprocess.Popen(
                [*tool.wrapper, "redis-server", "--port", port, "--save", "", "--dir", str(folder),
                 "--enable-debug-command", "no"],
                env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            peak = Peak(server.pid)
            deadline = time.monotonic() + 60
            while subprocess.run(
                ["redis-cli", "-p", port, "ping"], capture_output=True, check=False
            ).returncode:
                if time.monotonic() > deadline:
                    raise SystemExit(f"redis-server under {tool.name} does not answer")
                time.sleep(0.05)
            before = time.perf_counter()
            work = ["redis-benchmark", "-p", port, "-q", "-n", "60000", "-r", "50000", "-P", "8"]
            subprocess.run(
                [*work, "-t", "set,get,lpush,lpop,sadd,hset"], capture_output=True, check=True
            )
            seconds = time.perf_counter() - before
            subprocess.run(
                ["redis-cli", "-p", port, "shutdown", "nosave"], capture_output=True, check=False
            )
            os.wait4(server.pid, 0)
            server.returncode = 0
            return Run(seconds, peak.kib(), disk_of(tool, kept))

    return run


def workloads(folder: Path, *, quick: bool) -> dict[str, Callable[[Tool], Run]]:
    """Write the inputs into `folder`; programs that are not installed are an error."""
    scale = 1 if quick else 4
    sql = folder / "big.sql"
    with sql.open("w") as file:
        file.write("create table t(a integer primary key, b text, c real);begin;\n")
        for i in range(30000 * scale):
            file.write(f"insert into t values({i},'name {i * 7919 % 100003}',{i / 7});\n")
        file.write(
            "commit;create index i on t(b);select count(*),sum(c) from t where b like 'name 1%';\n"
        )
        file.write("select b,count(*) from t group by b order by 2 desc limit 5;\n")
    script = folder / "work.py"
    script.write_text(PYTHON)
    data = folder / "big.json"
    data.write_text(
        json.dumps(
            [{"id": i, "name": f"n{i}", "v": [i, i / 3, str(i)]} for i in range(40000 * scale)]
        )
    )
    xml = folder / "big.xml"
    rows = "".join(
        f"<row id='{i}'><name>n{i}</name><v>{i / 3}</v></row>" for i in range(40000 * scale)
    )
    xml.write_text(f"<rows>{rows}</rows>")
    code = folder / "big.cc"
    functions = "\n".join(
        f"int f{i}(int a){{std::map<int,std::vector<std::string>> m;m[a].push_back(std::to_string({i}));"
        f"return (int)m.size();}}"
        for i in range(60 * scale)
    )
    code.write_text(
        f"#include <map>\n#include <regex>\n#include <string>\n#include <vector>\n{functions}\n"
    )
    subprocess.run(["g++", "-E", code, "-o", folder / "big.ii"], check=True)
    cc1plus = subprocess.run(
        ["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True, check=True
    )
    for name in ("sqlite3", "jq", "xmllint", "redis-server", "redis-benchmark"):
        if shutil.which(name) is None:
            raise SystemExit(f"{name} is not installed; run benchmarks/setup")
    return {
        "sqlite3, script": command(["sqlite3", "-init", str(sql), ":memory:", ".quit"]),
        "python3, json": command(["/usr/bin/python3", str(script)], PYTHONMALLOC="malloc"),
        "jq, big file": command(["jq", "map(.v[2]) | length", str(data)]),
        "xmllint, big file": command(["xmllint", "--noout", str(xml)]),
        "cc1plus -O1": command(
            [
                cc1plus.stdout.strip(),
                "-fpreprocessed",
                str(folder / "big.ii"),
                "-quiet",
                "-O1",
                "-o",
                "/dev/null",
            ]
        ),
        "redis-server": redis(folder),
    }


def measure(folder: Path, *, quick: bool, rounds: int) -> list[str]:
    """Return the table as lines of Markdown."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = {n: t for n, t in tools().items() if n not in LEFT_OUT}
    prove(tools().values())
    lines = [
        f"Median of {rounds} rounds, all tools of a round one after the other; valgrind once. Peak is of"
        " the process itself. On disk: what the tool leaves behind (leakscope: the packed recording).",
        "",
        "| program | tool | wall s | × native | peak MiB | added MiB | on disk |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    ahead, all_of_them = 0, 0
    for program, run in workloads(folder, quick=quick).items():
        runs: dict[str, list[Run]] = {}
        broken: dict[str, str] = {}
        bases = {n: t for n, t in tools().items() if n in LEFT_OUT}
        for round_number in range(rounds):
            for name, tool in {**found, **bases}.items():
                if name == "valgrind" and (round_number or quick):
                    continue
                if name in broken:
                    continue
                print(f"real: {program} under {name}", file=sys.stderr)
                try:
                    runs.setdefault(name, []).append(run(tool))
                except ToolError as failed:
                    if name == "native":
                        raise
                    broken[name] = f"fails with status {failed}"
                    runs.pop(name, None)
        seconds = {n: statistics.median(r.seconds for r in rs) for n, rs in runs.items()}
        peak = {n: statistics.median(r.peak_kib for r in rs) for n, rs in runs.items()}
        if "heaptrack" in seconds:
            all_of_them += 1
            ahead += seconds["leakscope"] < seconds["heaptrack"]
        for name in runs:
            if name in LEFT_OUT:
                continue
            base = found[name].base
            ratio = seconds[name] / seconds[base]
            note = "" if base == "native" else f" (× {base})"
            more = f"{(peak[name] - peak[base]) / 1024:.1f}"
            disk = statistics.median(r.disk for r in runs[name])
            left = "" if name == base else f"{disk / 1024:.0f} KiB"
            label = f"**{name}**" if name.startswith("leakscope") else name
            lines.append(
                f"| {program} | {label} | {seconds[name]:.2f} | {ratio:.2f}{note} "
                f"| {peak[name] / 1024:.1f} | {more} | {left} |"
            )
        lines += [f"| {program} | {name} | {why} | | | | |" for name, why in broken.items()]
    return [*lines, "", f"leakscope is ahead of heaptrack in {ahead} of {all_of_them} programs."]
