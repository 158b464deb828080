# SPDX-License-Identifier: Apache-2.0
"""Hold what leakscope calls lost at exit against LeakSanitizer: same sources, same lines, same blocks.

LeakSanitizer knows lost (directly or through another lost block) and reachable, and any pointer
into a block reaches it; that is our definitely and indirectly lost. Run it by hand for the table:

    PYTHONPATH=src:tests python tests/integration/lsan_agreement.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.claims import FOLDER
from integration.valgrind_agreement import environment
from leakscope import analyse
from leakscope.model.reachability import Reachability
from leakscope.recording import load

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = Path(__file__).parents[2] / "src"
NAMES = (
    "reach_*", "leak_once", "leak_loop_fast", "leak_rare_error_path", "strdup_leak", "getline_leak",
    "realloc_leak", "cpp_new_leak", "cpp_statics", "cpp_containers_clean", "cpp_new_family",
    "list_freed_at_exit", "kinds", "clean", "thread_exit_leaks", "memalign_family", "cache_bound",
    "qsort_callback", "warmup", "longjmp_loop",
)  # fmt: skip
_LEAK = re.compile(r"^(?:Direct|Indirect) leak of \d+ byte\(s\) in (\d+) object\(s\)", re.MULTILINE)
_LOST = (Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST)
Lines = Counter[str]


@dataclass
class Comparison:
    """Lost blocks of one program by the line that asked for them."""

    name: str
    lsan: Lines
    ours: Lines

    @property
    def same(self) -> bool:
        """Whether both call the same number of blocks of each line lost."""
        return self.lsan == self.ours


def by_lsan(source: Path, folder: Path) -> Lines:
    """Build with LeakSanitizer in, run, and return its lost objects by line."""
    program = folder / f"{source.stem}.lsan"
    compiler = "gcc" if source.suffix == ".c" else "g++"
    flags = ["-O1", "-g", "-pthread", "-fsanitize=leak"]
    subprocess.run([compiler, *flags, source, "-o", program], check=True)
    options = {"LSAN_OPTIONS": "exitcode=0:max_leaks=0:fast_unwind_on_malloc=0"}
    said = subprocess.run(
        [program], capture_output=True, text=True, check=False, timeout=120,
        env=environment(options),
    ).stderr  # fmt: skip
    assert "LeakSanitizer has encountered a fatal error" not in said, said
    found: Lines = Counter()
    for part in said.split("\n\n"):
        match = _LEAK.search(part)
        if match:
            line = re.search(rf"{re.escape(source.name)}:(\d+)", part)
            found[line[1] if line else "elsewhere"] += int(match[1])
    return found


def by_leakscope(source: Path, folder: Path) -> Lines:
    """Build without, run under `leakscope run`, and return its lost blocks by line."""
    program, output = folder / source.stem, folder / f"{source.stem}.leakscope"
    compiler = "gcc" if source.suffix == ".c" else "g++"
    subprocess.run([compiler, "-O1", "-g", "-pthread", source, "-o", program], check=True)
    subprocess.run(
        [
            sys.executable, "-m", "leakscope", "run", "--no-report", "--no-children", "-q",
            "-o", output, "--", program,
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=120,
        env=environment({"PYTHONPATH": str(SOURCES)}),
    )  # fmt: skip
    recording = load(output)
    found: Lines = Counter()
    if recording.reachability is None:
        assert not len(recording.blocks), f"{source.name} was not scanned"
        return found
    for finding in analyse(recording).findings:
        if finding.site is None:
            continue
        kinds = recording.reachability[recording.blocks["site"] == finding.site]
        lost = sum(int((kinds == int(kind)).sum()) for kind in _LOST)
        lines = (f.line for f in finding.stack if f.file and Path(f.file).name == source.name)
        if lost:
            found[str(next(lines, None) or "elsewhere")] += lost
    return found


def measure() -> Iterator[Comparison]:
    """Compare program by program."""
    with tempfile.TemporaryDirectory(prefix="leakscope-lsan-") as name:
        folder = Path(name)
        for pattern in NAMES:
            for source in sorted(FOLDER.glob(f"{pattern}.c*")):
                yield Comparison(source.stem, by_lsan(source, folder), by_leakscope(source, folder))


def main() -> int:
    """Print the table; exit status 1 when the two differ somewhere."""
    print("| program | lost by LeakSanitizer | lost by leakscope | lines that differ |")
    print("|---|---:|---:|---|")
    same = True
    for each in measure():
        rest = {
            line: (each.lsan[line], each.ours[line])
            for line in each.lsan | each.ours
            if each.lsan[line] != each.ours[line]
        }
        print(f"| {each.name} | {each.lsan.total()} | {each.ours.total()} | {rest or ''} |")
        same = same and each.same
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
