# SPDX-License-Identifier: Apache-2.0
"""The small programs of tests/programs under the real command, and what of their findings is true."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from integration.claims import CLAIMS  # noqa: E402

__all__ = ["JOBS", "ROOT", "make_inputs", "programs"]

JOBS = (
    ("jq", "map(.id)|add", "big.json"),
    ("gawk", "{a[$1]=$2; l[n++]=$0} END {print length(a)}", "big.txt"),
    ("xmllint", "--format", "--output", "/dev/null", "big.xml"),
    ("tclsh", "big.tcl"),
    ("perl", "-ne", "@f=split; $a{$f[0]}=$f[1]; push @l,$_;", "big.txt"),
    ("sqlite3", ":memory:", ".read big.sql"),
    ("sort", "big.txt"),
)


def programs() -> tuple[list[tuple[bool, dict[str, Any]]], int, int]:
    """Return the findings called leaks, each with whether it is one; how many runs; how many jobs were calm."""
    found = []
    runs = calm = 0
    with tempfile.TemporaryDirectory(prefix="leakscope-verdicts-") as name:
        folder = Path(name)
        make_inputs(folder)
        for claim in CLAIMS:
            for variant in {"O0", "O2"} & set(claim.variants):
                runs += 1
                for each in _leaks([claim.build(folder, variant)], folder):
                    source = each["source"] or {}
                    place = Path(source.get("file") or "").name, source.get("line")
                    found.append((place in claim.leaks, each))
        for job in JOBS:
            leaks = _leaks(job, folder)
            calm += not leaks
            found += [(_proven(job, each), each) for each in leaks]
            runs += 1
    return found, runs, calm


def _leaks(command: Any, folder: Path) -> list[dict[str, Any]]:
    report = folder / "report.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "leakscope", "run", "--json", "--report-file", report),
            *("--wait-children", "--no-debuginfod", "--output", folder / "%n.%p.leakscope"),
            *("--", *command),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    document = json.loads(report.read_text())
    # What is not traced has no leaks either.
    if not sum(each["totals"]["allocation_count"] for each in document["processes"]):
        raise SystemExit(f"leakscope was not at work: {command} was not recorded")
    return [f for p in document["processes"] for f in p["findings"] if f["is_leak"]]


def _proven(job: Any, finding: dict[str, Any]) -> bool:
    """Of a real program nobody claims anything: a lost block is a leak when valgrind calls it one."""
    if finding["verdict"] != "lost":
        return False
    return finding["known"] is None and job[0] == "sort"  # 16 B, which valgrind calls lost as well


def make_inputs(folder: Path) -> None:
    dice = random.Random(2)
    (folder / "big.json").write_text(
        json.dumps([{"id": i, "name": f"row {i}"} for i in range(50_000)])
    )
    (folder / "big.txt").write_text(
        "\n".join(f"k{dice.randrange(10**6)} v{i}" for i in range(200_000))
    )
    cells = "".join(f"<row id='{i}'><name>row {i}</name></row>" for i in range(60_000))
    (folder / "big.xml").write_text(f"<r>{cells}</r>")
    inserts = "".join(f"insert into t values({i},'name {i}');" for i in range(60_000))
    (folder / "big.sql").write_text(f"create table t(a,b);begin;{inserts}commit;")
    (folder / "big.tcl").write_text(
        "set f [open big.txt]\nwhile {[gets $f line] >= 0} { lappend l $line; set a($line) 1 }\n"
    )
