# SPDX-License-Identifier: Apache-2.0
"""Compare the agent's compiled unwind rules of an ELF file with readelf's reading of it.

Usage: ``check_rules.py TEST_RULES FILE [FILE ...]`` with TEST_RULES the command that runs
the built ``test_rules`` (``qemu-aarch64 -L ... test_rules`` for foreign files). For each
file it asks for the rule at every return address objdump finds and, exactly, at the first
and last byte of every row of ``readelf --debug-dump=frames-interp``, and prints the rate
of agreement. Exits 1 when any rule contradicts readelf; a rule "none" where readelf has a
row that no rule can express is counted apart.
"""

from __future__ import annotations

import bisect
import collections
import re
import shlex
import subprocess
import sys
from typing import NamedTuple


class Row(NamedTuple):
    """One row of the unwind table: valid from ``start`` up to ``end``."""

    start: int
    end: int
    cfa: str
    ra: str
    fp: str
    signal: bool


class Machine(NamedTuple):
    """The names readelf gives to the registers, and how a call looks."""

    fp: str
    sp: str
    call: re.Pattern[str]
    prefix: str


MACHINES = {
    "X86-64": Machine("rbp", "rsp", re.compile(r"^\s*([0-9a-f]+):\s+(?:\w+ )?call"), ""),
    "AArch64": Machine("x29", "sp", re.compile(r"^\s*([0-9a-f]+):\s+blr?\s"), "aarch64-linux-gnu-"),
}


def _output(*command: str) -> str:
    """What a binutils command prints; readelf's exit code means nothing here."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, errors="replace"
    ).stdout


def machine_of(path: str) -> Machine:
    """The machine that the file is for."""
    header = _output("readelf", "-h", path)
    return next(machine for name, machine in MACHINES.items() if name in header)


def rows_of(path: str, machine: Machine) -> list[Row]:
    """All rows, sorted by address."""
    rows: list[Row] = []
    end = 0
    columns: list[str] = []
    signal_cies: set[str] = set()
    cies: dict[str, tuple[str, str, str]] = {}
    cie = ""
    signal = False
    pending: tuple[int, str, str, str] | None = None

    def flush(until: int) -> None:
        nonlocal pending
        if pending and until > pending[0]:
            rows.append(Row(pending[0], until, *pending[1:], signal))
        pending = None

    for line in _output(
        machine.prefix + "readelf", "--wide", "--debug-dump=frames-interp", path
    ).splitlines():
        if match := re.match(r"([0-9a-f]+) [0-9a-f]+ [0-9a-f]+ CIE \"([^\"]*)\"", line):
            flush(end)
            columns = []
            cie = match[1]
            if "S" in match[2]:
                signal_cies.add(match[1])
        elif match := re.match(r".* FDE cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)", line):
            flush(end)
            end = int(match[3], 16)
            signal = match[1] in signal_cies
            # Rows follow only where the FDE says more than its CIE.
            pending = (int(match[2], 16), *cies.get(match[1], ("?", "?", "?")))
            columns = []
            cie = ""
        elif line.lstrip().startswith("LOC"):
            columns = line.split()
        elif " ZERO terminator" in line:
            flush(end)
            columns = []
        elif columns and re.match(r"[0-9a-f]{16} ", line):
            fields = re.sub(r" \(\w*\)", "", line).split()  # "r10 (r10)" is one column
            at = int(fields[0], 16)
            named = dict(zip(columns, fields, strict=False))
            fp = named.get(machine.fp, "u")
            state = (named["CFA"], named.get("ra", "u"), "same" if fp in ("u", "s") else fp)
            if cie:
                cies[cie] = state
            elif pending:
                flush(at)
                pending = (at, *state)
    flush(end)
    return sorted(rows)


def return_addresses(path: str, machine: Machine) -> list[int]:
    """The address after every call instruction."""
    result: list[int] = []
    after_call = False
    for line in _output(machine.prefix + "objdump", "-d", "--no-show-raw-insn", path).splitlines():
        if match := re.match(r"^\s*([0-9a-f]+):\s", line):
            if after_call:
                result.append(int(match[1], 16))
            after_call = bool(machine.call.match(line))
        elif line:
            after_call = False
    return result


def expected(row: Row, machine: Machine) -> tuple[str, ...] | None:
    """The rule the row means, None when no rule can express it."""
    if row.signal:
        return ("signal",)
    if row.ra == "u" and machine.sp == "rsp":
        return ("end",)
    if row.cfa == "exp":
        return ("expression",)
    match = re.fullmatch(r"(\w+)([+-]\d+)", row.cfa)
    if not match or match[1] not in (machine.sp, machine.fp):
        return None
    kind = "sp" if match[1] == machine.sp else "fp"
    if row.ra == "u":
        return ("unsaved", str(int(match[2]))) if kind == "sp" else None
    if not (ra := re.fullmatch(r"c([+-]\d+)", row.ra)):
        return None
    if row.fp == "same":
        return (kind, str(int(match[2])), str(int(ra[1])), "same")
    if not (fp := re.fullmatch(r"c([+-]\d+)", row.fp)):
        return None
    return (kind, str(int(match[2])), str(int(ra[1])), str(int(fp[1])))


def check(command: list[str], path: str) -> bool:
    """Print the agreement for one file; False when there was a contradiction."""
    machine = machine_of(path)
    rows = rows_of(path, machine)
    starts = [row.start for row in rows]
    wanted: list[tuple[str, int, int]] = [
        ("call", address, address - 1) for address in return_addresses(path, machine)
    ]
    for row in rows:
        wanted.append(("row", row.start, row.start))
        wanted.append(("row", row.end - 1, row.end - 1))
    asked = "".join(f"{'=' if what == 'row' else ''}{at:x}\n" for what, at, _ in wanted)
    answers = subprocess.run(
        [*command, "--rules", path], input=asked, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if len(answers) != len(wanted):
        print(f"{path}: {len(answers)} answers to {len(wanted)} questions")
        return False
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    shown = 0
    for (what, at, target), answer in zip(wanted, answers, strict=True):
        _, kind, *rest = answer.split()
        index = bisect.bisect_right(starts, target) - 1
        row = rows[index] if index >= 0 and rows[index].end > target else None
        want = expected(row, machine) if row else ("none",)
        if want is None:
            result = "not expressible" if kind == "none" else "WRONG"
        elif row is None:
            # Without a row the instructions themselves are asked.
            result = "equal" if kind in ("none", "signal", "end", "link") else "WRONG"
        elif want == ("expression",):
            result = "expression: " + ("none" if kind == "none" else f"as {kind}")
        elif want[0] == "unsaved":
            # readelf writes "u" for undefined (the end) and for "still in the register".
            good = kind == "end" or (kind == "link" and rest[0] == want[1])
            result = "equal" if good else "WRONG"
        elif want in (("signal",), ("end",)):
            result = "equal" if kind == want[0] else "WRONG"
        else:
            result = "equal" if (kind, *rest) == want else "WRONG"
        counts[what, result] += 1
        if result == "WRONG" and shown < 10:
            shown += 1
            print(f"  {what} {at:#x}: readelf {row}, rule {answer}")
    print(path)
    for what, name in (("call", "return addresses"), ("row", "rows, first and last byte")):
        total = sum(n for (kind, _), n in counts.items() if kind == what)
        parts = ", ".join(
            f"{result} {n}" for (kind, result), n in sorted(counts.items()) if kind == what
        )
        equal = counts[what, "equal"]
        print(f"  {name}: {100 * equal / max(total, 1):.3f} % of {total} equal ({parts})")
    return not any(result == "WRONG" for _, result in counts)


def main() -> int:
    """Check every file named on the command line."""
    command = shlex.split(sys.argv[1])
    results = [
        check(command, path) for path in sys.argv[2:]
    ]  # all of them, whatever the first says
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
