# SPDX-License-Identifier: Apache-2.0
"""Hold what leakscope calls lost at exit against valgrind: same programs, same stacks, same kinds.

The programs are those of Debian packages (`valgrind_agreement`) and the reach_* programs here,
each about one way in which a pointer can exist or not. Run it by hand for the table:

    python tests/integration/reachability_agreement.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.claims import FOLDER
from integration.valgrind_agreement import (
    Outstanding,
    Program,
    by_valgrind,
    environment,
    outstanding,
    programs,
)
from leakscope.recording import load

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = Path(__file__).parents[2] / "src"


@dataclass
class Agreement:
    """Blocks of one program by the kinds that valgrind and leakscope gave them."""

    name: str
    pairs: Counter[tuple[str, str]]  # (valgrind, leakscope): blocks

    @property
    def blocks(self) -> int:
        """Blocks that both saw."""
        return sum(self.pairs.values())

    @property
    def agree(self) -> int:
        """Blocks of the same kind."""
        return sum(count for (one, other), count in self.pairs.items() if one == other)

    @property
    def false_lost(self) -> int:
        """Blocks that we call definitely lost and valgrind can reach."""
        return self.pairs["StillReachable", "DefinitelyLost"]

    @property
    def missed(self) -> int:
        """Blocks that valgrind calls definitely lost and we can reach."""
        return self.pairs["DefinitelyLost", "StillReachable"]


def cases(folder: Path) -> list[Program]:
    """Build the reach_* programs."""
    built = []
    for source in sorted(FOLDER.glob("reach_*.c*")):
        program = folder / source.stem
        compiler = "gcc" if source.suffix == ".c" else "g++"
        subprocess.run([compiler, "-O1", "-g", "-pthread", source, "-o", program], check=True)
        built.append(Program(source.stem, [str(program)]))
    return built


def by_leakscope(program: Program, folder: Path) -> Outstanding:
    """Run under `leakscope run`, which scans at exit."""
    output = folder / "out.leakscope"
    subprocess.run(
        [
            sys.executable, "-m", "leakscope", "run", "--no-report", "--no-children", "-q",
            "-o", output, "--", *program.command,
        ],
        input=program.stdin.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment({"PYTHONPATH": str(SOURCES), "PADDING": "x", "PADDING2": "x"}),
        check=False, timeout=300,
    )  # fmt: skip
    recording = load(output)
    scanned = recording.reachability is not None or not len(recording.blocks)
    assert scanned, f"{program.name} was not scanned"
    return outstanding(recording)


def compare(name: str, valgrind: Outstanding, leakscope: Outstanding) -> Agreement:
    """Pair the kinds of each stack's blocks: equal ones first, the rest in order."""
    pairs: Counter[tuple[str, str]] = Counter()
    for stack in valgrind.kinds.keys() & leakscope.kinds.keys():
        theirs, ours = valgrind.kinds[stack].copy(), leakscope.kinds[stack].copy()
        for kind, count in (theirs & ours).items():
            pairs[kind, kind] += count
        left, right = theirs - ours, ours - theirs
        pairs.update(zip(left.elements(), right.elements(), strict=False))
    return Agreement(name, pairs)


def measure() -> Iterator[Agreement]:
    """Compare program by program."""
    with tempfile.TemporaryDirectory(prefix="leakscope-reachability-") as name:
        folder = Path(name)
        for program in [*cases(folder), *programs(folder)]:
            here = folder / f"run-{program.name}"
            here.mkdir()
            yield compare(program.name, by_valgrind(program, here), by_leakscope(program, here))


def main() -> int:
    """Print the table; exit status 1 when a block that valgrind reaches is called lost."""
    print("| program | blocks | same kind | differ (valgrind → leakscope) |")
    print("|---|---:|---:|---|")
    false_lost = missed = blocks = agree = 0
    for each in measure():
        rest = {pair: n for pair, n in each.pairs.items() if pair[0] != pair[1]}
        text = "; ".join(f"{n}: {one} → {other}" for (one, other), n in rest.items())
        print(f"| {each.name} | {each.blocks} | {each.agree} | {text} |", flush=True)
        false_lost += each.false_lost
        missed += each.missed
        blocks += each.blocks
        agree += each.agree
    print(f"\n{agree} of {blocks} blocks have the same kind")
    print(f"{false_lost} reachable blocks called definitely lost, {missed} lost blocks missed")
    return 1 if false_lost else 0


if __name__ == "__main__":
    sys.exit(main())
