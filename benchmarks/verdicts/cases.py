# SPDX-License-Identifier: Apache-2.0
"""Run the cases of tests/programs/cases again and again, and count how often the answer is the right one.

    python benchmarks/verdicts/cases.py [--times 10] [--busy] [--only NAME] [--others]

`--busy` runs them beside two processes for each processor that never rest. `--others` adds real programs on large
inputs. The exit status is 1 when an answer was wrong; what was said then stands below the table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from programs import JOBS, ROOT, make_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CASES = ROOT / "tests/programs/cases"
LEVELS = {"O0": ("-O0",), "O2": ("-O2", "-fno-builtin-malloc")}


@dataclass(frozen=True)
class Answer:
    """What leakscope said in one run."""

    status: int
    document: dict[str, Any]
    text: str

    @property
    def findings(self) -> list[dict[str, Any]]:
        return [each for one in self.document["processes"] for each in one["findings"]]

    @property
    def lost(self) -> list[tuple[int, int]]:
        """Blocks and bytes of what is called lost, fewest first."""
        return sorted(
            (each["lost_count"], each["lost_bytes"])
            for each in self.findings
            if each["is_leak"] and each["verdict"] == "lost"
        )

    @property
    def is_calm(self) -> bool:
        seen = sum(each["totals"]["allocation_count"] for each in self.document["processes"])
        return bool(seen) and not self.status and not any(f["is_leak"] for f in self.findings)

    def __str__(self) -> str:
        said = [
            (
                each["verdict"],
                each["live_bytes"],
                each["lost_bytes"],
                (each["source"] or {}).get("line"),
            )
            for each in self.findings
            if each["known"] is None
        ]
        headlines = [each["headline"] for each in self.document["processes"]] or [self.text]
        return f"status {self.status}, {headlines[0]!r}, {said[:6]}"


def is_lost(*wanted: tuple[int, int], status: int = 1) -> Callable[[Answer], bool]:
    return lambda answer: answer.lost == sorted(wanted) and answer.status == status


def has(verdicts: set[str], status: int = 0) -> Callable[[Answer], bool]:
    """Every finding that counts has one of these verdicts."""

    def check(answer: Answer) -> bool:
        found = {each["verdict"] for each in answer.findings if each["known"] is None}
        return bool(found) and found <= verdicts and answer.status == status

    return check


@dataclass(frozen=True)
class Case:
    """A program, how it is run, and what is right."""

    source: str
    right: Callable[[Answer], bool]
    arguments: Sequence[str] = ()
    options: Sequence[str] = ()
    flags: Sequence[str] = ("-pthread", "-ldl")
    before: Sequence[str] = ()  # put before the program: a shell, an interpreter
    objects: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def _cases() -> dict[str, Case]:
    calm: Callable[[Answer], bool] = lambda answer: answer.is_calm  # noqa: E731
    return {
        "deepbind": Case(
            "deepbind/host.c",
            is_lost((100, 33300)),
            ["deep"],
            objects={"plugin.so": "deepbind/plugin.c"},
        ),
        "ctypes_free": Case(
            "",
            lambda answer: answer.lost in ([(300, 1296300)], [(300, 300 * 4321)]),
            before=[sys.executable, str(CASES / "ctypes_free/use.py")],
            objects={"libmake.so": "ctypes_free/make.c"},
        ),
        "plateau 1000 1000": Case("plateau_freed/plateau.c", calm, ["1000", "1000"]),
        "plateau 300 900": Case("plateau_freed/plateau.c", calm, ["300", "900"]),
        "plateau 150 2000": Case("plateau_freed/plateau.c", calm, ["150", "2000"]),
        "batch 0.4": Case("batch_job/batch.c", calm, ["0.4"]),
        "batch 2": Case("batch_job/batch.c", calm, ["2"]),
        "short_child": Case("short_child/forkleak.c", is_lost((30, 3000))),
        "partly_lost": Case("partly_lost/hash_leak.c", is_lost((7, 16256))),
        "thread_result": Case("thread_result/retval.c", calm),
        "one_block_grows": Case(
            "one_block_grows/rlin.c",
            lambda answer: (
                not answer.status and any(f["verdict"] == "growing" for f in answer.findings)
            ),
            ["2"],
        ),
        "few_calls": Case("few_calls/gai.c", is_lost((4, 256)), ["a", "4"]),
        "own_preload": Case(
            "own_preload/app.c",
            is_lost((60, 6000)),
            before=["sh", str(CASES / "own_preload/start.sh")],
        ),
        "kernel_holds srv": Case("kernel_holds/srv.c", is_lost((1, 888))),
        "kernel_holds alt": Case("kernel_holds/alt.c", is_lost((1, 77))),
        "sealed": Case("sealed/sealed.c", is_lost((1, 999)), environment={"KEEP": "1"}),
        "sparse_mapping": Case(
            "sparse_mapping/mm.c",
            lambda answer: not answer.status and not any(f["is_leak"] for f in answer.findings),
            ["sparse", "64"],
        ),
        "seccomp kill": Case(
            "seccomp/jail2.c",
            lambda answer: answer.status in {1, 4} and bool(answer.findings),
            ["kill", "300"],
        ),
        "main_thread_ends": Case(
            "main_thread_ends/leader.c",
            # -O2 drops the table, which is never read: then that is lost as well.
            lambda answer: answer.status == 1 and (200, 100000) in answer.lost,
            ["400"],
        ),
        "many_freed": Case("many_freed/freekeep.c", calm, ["400000"]),
        "sampled_few": Case(
            "sampled_few/parse.c",
            lambda answer: [p["verdict"] for p in answer.document["processes"]] == ["unknown"],
            options=["--sample", "64MiB"],
        ),
        "dies_young": Case("dies_young/k.c", has({"unknown"}, 137)),
        "unjoined": Case(
            "unjoined/tone.c",
            lambda answer: (
                answer.status == 1
                and any(f["is_leak"] and f["live_count"] == 60 for f in answer.findings)
            ),
            ["60"],
        ),
    }


def _build(case: Case, level: str, folder: Path) -> list[str]:
    command = ["gcc", "-g", "-w", *LEVELS[level]]
    for name, source in case.objects.items():
        subprocess.run(
            [*command, "-shared", "-fPIC", CASES / source, "-o", folder / name], check=True
        )
    if not case.source:
        return list(case.before)
    program = folder / Path(case.source).stem
    subprocess.run([*command, CASES / case.source, "-o", program, *case.flags], check=True)
    return [*case.before] if case.before else [str(program), *case.arguments]


def _run(command: Sequence[str], case: Case, folder: Path) -> Answer:
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "leakscope", "run", "--json", "--report-file", report),
            *("--no-debuginfod", "--output", folder / "%n.%p.leakscope"),
            *(*case.options, "--", *command),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | case.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    for each in folder.glob("*.leakscope"):
        each.unlink()
    document = json.loads(report.read_text()) if report.exists() else {"processes": []}
    return Answer(done.returncode, document, done.stderr)


def _spin() -> None:
    while True:
        pass


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--only", action="append")
    parser.add_argument("--others", action="store_true")
    options = parser.parse_args()
    hogs = [
        multiprocessing.Process(target=_spin, daemon=True)
        for _ in range(2 * (os.cpu_count() or 1) * options.busy)
    ]
    for each in hogs:
        each.start()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="leakscope-cases-") as name:
        wrong += _table(Path(name), options)
        if options.others:
            wrong += _others(Path(name), options.times)
    for each in hogs:
        each.kill()
    print(
        f"\nload average when it ended: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, {len(hogs)} of it ours"
    )
    for text in wrong:
        print(text)
    return int(bool(wrong))


def _table(folder: Path, options: argparse.Namespace) -> list[str]:
    print("| case | level | right answers |\n|---|---|---:|")
    wrong = []
    for name, case in _cases().items():
        if options.only and name.split()[0] not in options.only:
            continue
        for level in LEVELS:
            here = folder / f"{name.replace(' ', '-')}-{level}"
            here.mkdir()
            command = _build(case, level, here)
            answers = [_run(command, case, here) for _ in range(options.times)]
            good = sum(case.right(each) for each in answers)
            wrong += [f"{name} {level}: {each}" for each in answers if not case.right(each)]
            print(f"| {name} | {level} | {good} of {len(answers)} |", flush=True)
            shutil.rmtree(here)
    return wrong


def _others(folder: Path, times: int) -> list[str]:
    wrong = []
    make_inputs(folder)
    for job in [*JOBS[:-1], ("php", "-r", "echo 1;")]:
        case = Case("", lambda answer: answer.is_calm)
        answers = [_run(job, case, folder) for _ in range(times)]
        good = sum(each.is_calm for each in answers)
        wrong += [f"{job[0]}: {each}" for each in answers if not each.is_calm]
        print(f"| {job[0]} | - | {good} of {len(answers)} |", flush=True)
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
