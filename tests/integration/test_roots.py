# SPDX-License-Identifier: Apache-2.0
"""Pointers where one does not look first: in the kernel, in sealed memory, in ended threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests/programs/cases"
LEVELS = {"O0": ["-O0"], "O2": ["-O2", "-fno-builtin-malloc"]}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "KEEP": "1"}

# (program, its arguments): bytes that are lost, and in how many blocks
AT_THE_END = {
    ("kernel_holds/srv", ()): (888, 1),
    ("kernel_holds/alt", ()): (77, 1),
    ("kernel_holds/queue", ()): (1110, 2),
    ("sealed/sealed", ()): (999, 1),
    ("thread_result/retval", ()): (0, 0),
    ("disguised/disguised", ()): (999, 1),
    ("distances/distances", ()): (3879, 41),
    ("hidden/hidden", ()): (999, 1),
    ("hidden/plain", ()): (28488, 70),
    ("empty_array/empty", ()): (77, 1),
}
# The same while it runs; what it does next is to wait.
WHILE_IT_RUNS = {
    ("kernel_holds/srv", ("100000",)): (888, 1),
    ("kernel_holds/queue", ("1000",)): (1110, 2),
    ("sealed/sealed", ()): (999, 1),
    ("thread_result/retval", ("1000",)): (0, 0),
}
WAITS = ("-Dusleep(x)=pause()",)  # instead of a nap: sealed.c


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roots")

    def build(name: str, level: str, *more: str) -> Path:
        program = folder / f"{Path(name).name}-{level}{'-waits' if more else ''}"
        if not program.exists():
            (source,) = (CASES / name).parent.glob(f"{Path(name).name}.c*")
            compiler = "g++" if source.suffix == ".cc" else "gcc"
            command = [compiler, "-g", "-w", *LEVELS[level], *more, "-pthread"]
            subprocess.run([*command, source, "-o", program], check=True)
        return program

    return build


def leakscope(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, words)], env=ENVIRONMENT, text=True,
        capture_output=True, check=False, timeout=100,
    )  # fmt: skip


def lost_of(report: str) -> tuple[int, int]:
    """Bytes at places with lost blocks, and how many are lost."""
    found = [each for process in json.loads(report)["processes"] for each in process["findings"]]
    lost = [(each["live_bytes"], each["lost_count"]) for each in found if each["lost_count"]]
    return sum(size for size, _ in lost), sum(count for _, count in lost)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("case", "wanted"), AT_THE_END.items())
def test_at_the_end(agent, built, case, wanted, level, tmp_path):
    name, arguments = case
    report = tmp_path / "report.json"
    done = leakscope(
        "run", "--json", "--report-file", report, "-o", tmp_path / "out.leakscope", "--",
        built(name, level), *arguments,
    )  # fmt: skip
    assert lost_of(report.read_text()) == wanted, done.stderr


@pytest.mark.parametrize("level", LEVELS)
def test_stacks_of_threads_that_nobody_joins(agent, built, level, tmp_path):
    report = tmp_path / "report.json"

    def leaks(*arguments: object) -> list[dict]:
        out = tmp_path / "out.leakscope"
        words = ("--json", "--report-file", report, "-o", out, "--", built("unjoined/tone", level))
        leakscope("run", *words, *arguments)
        found = json.loads(report.read_text())["processes"][0]["findings"]
        return [each for each in found if each["is_leak"]]

    (leak,) = leaks(60)
    assert leak["verdict"] == "lost"
    assert "60 threads that were started here have ended, and nobody joined" in leak["sentence"]
    assert leak["source"]["function"] == "start_tone"
    assert leak["live_bytes"] > 60 * 4096  # what of the stacks is in memory
    assert not leaks(60, "good")
    assert not leaks(2)  # a program may end before it has joined all


@pytest.mark.parametrize("traced", [True, False], ids=["traced", "untraced"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("case", "wanted"), WHILE_IT_RUNS.items())
def test_while_it_runs(agent, built, case, wanted, level, traced, tmp_path):
    name, arguments = case
    program = built(name, level, *(WAITS if name == "sealed/sealed" else ()))
    command = [str(program), *arguments]
    if traced:
        out = str(tmp_path / "out.leakscope")
        command = [sys.executable, "-m", "leakscope", "run", "-q", "-o", out, "--", *command]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    pid = process.pid
    try:
        pid = waiting(process.pid, program)
        done = leakscope("scan", "--json", pid)
        # A register may still have the address of the block that sealed.c loses right before.
        allowed = {wanted, (0, 0)} if name == "sealed/sealed" else {wanted}
        if traced:
            assert lost_of(done.stdout) in allowed, done.stderr
        else:
            found = json.loads(done.stdout)
            kinds = ("definitely_lost", "indirectly_lost")
            count = sum(found["counts"][kind] for kind in kinds)
            # malloc rounds up: the sizes are those that can be used.
            size = sum(found["bytes"][kind] for kind in kinds)
            assert any(c == count and s <= size <= s + 16 * c for s, c in allowed), found
    finally:
        os.kill(pid, 9)
        process.kill()
        process.wait()


def waiting(parent: int, program: Path) -> int:
    """Wait until the program, this process or a child of it, has done what it had to, and sleeps."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *map(int, children)):
            try:
                name = Path(f"/proc/{pid}/exe").readlink()
                times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(times[19]) / os.sysconf(
                "SC_CLK_TCK"
            )
            if name == program and age > 1.0:
                return pid
        time.sleep(0.05)
    raise AssertionError("it did not start")
