# SPDX-License-Identifier: Apache-2.0
"""Hold what leakscope saw outstanding at exit against valgrind, on programs from Debian packages.

Both are asked for every block that was never freed, with its whole call stack. The two
stacks are compared frame by frame as (object, address within its page), which needs no
symbols and no knowledge of where valgrind loaded what. Run it by hand for the table:

    python tests/integration/valgrind_agreement.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope import _native
from leakscope.model.recordings import Kind, Recording
from leakscope.recording import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

StackKey = tuple[tuple[str, int], ...]
HEAP_KINDS = {Kind.MALLOC, Kind.CALLOC, Kind.REALLOC, Kind.MEMALIGN, Kind.NEW, Kind.NEW_ARRAY}
NEW_KINDS = {Kind.NEW, Kind.NEW_ARRAY}
VALGRIND_NAMES = ("Unknown", "DefinitelyLost", "IndirectlyLost", "PossiblyLost", "StillReachable")


@dataclass
class Outstanding:
    """Blocks never freed, by call stack: number of blocks and of bytes, and names for people."""

    blocks: Counter[StackKey] = field(default_factory=Counter)
    bytes: Counter[StackKey] = field(default_factory=Counter)
    names: dict[StackKey, list[str]] = field(default_factory=dict)
    kinds: dict[StackKey, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def stack_key(frames: list[tuple[str, int]]) -> StackKey:
    """Make two unwinders comparable.

    Valgrind repeats an address for each inlined function, and unwinds on from `_start` into
    what the kernel left on the stack; both are taken off. An address that a recursion repeats
    is taken once as well, on both sides.
    """
    while frames and frames[-1][0] == "?":
        frames = frames[:-1]
    return tuple(frame for i, frame in enumerate(frames) if i == 0 or frame != frames[i - 1])


@dataclass
class Program:
    """A command whose run does not depend on who watches it."""

    name: str
    command: list[str]
    stdin: str = ""


def programs(folder: Path) -> list[Program]:
    """Return the commands, with their inputs written into `folder`."""
    text = folder / "text"
    text.write_text("".join(f"line {i} of {i * 7919 % 1000}\n" for i in range(2000)))
    other = folder / "other"
    other.write_text("".join(f"line {i} of {i * 7919 % 999}\n" for i in range(2000)))
    xml = folder / "data.xml"
    xml.write_text("<r>" + "".join(f"<i n='{i}'>v{i}</i>" for i in range(500)) + "</r>")
    json = folder / "data.json"
    json.write_text("[" + ",".join(f'{{"n":{i},"s":"v{i}"}}' for i in range(500)) + "]")
    sql = "create table t(a,b);" + "".join(f"insert into t values({i},'x{i}');" for i in range(200))
    sql += "select count(*), sum(a) from t;"
    tree = folder / "tree"
    for i in range(5):
        (tree / f"d{i}").mkdir(parents=True)
        (tree / f"d{i}" / "f").write_text("x")
    return [
        Program("ls", ["ls", "-lR", str(tree)]),
        Program("cat", ["cat", str(text)]),
        Program("sort", ["sort", "-k4", "--parallel=1", str(text)]),
        Program("grep", ["grep", "-c", "-E", "of [0-9]*7$", str(text)]),
        Program("sed", ["sed", "-n", "s/line \\([0-9]*\\)/\\1/p", str(text)]),
        Program("mawk", ["mawk", "{n[$4]++} END {print length(n)}", str(text)]),
        Program("diff", ["diff", str(text), str(other)]),
        Program("find", ["find", str(tree), "-name", "f", "-size", "-9"]),
        Program("tar", ["tar", "cf", "/dev/null", str(tree)]),
        Program("gzip", ["gzip", "-c", str(text)]),
        Program("od", ["od", "-c", str(text)]),
        Program(
            "perl", ["perl", "-e", "my %h; $h{$_ % 97} .= 'x' for 1..2000; print scalar keys %h"]
        ),
        Program("sqlite3", ["sqlite3", ":memory:", sql]),
        Program("xmllint", ["xmllint", "--xpath", "count(//i)", str(xml)]),
        Program("jq", ["jq", "map(.n) | add", str(json)]),
        Program("bc", ["bc", "-q"], stdin="for (i = 0; i < 50; i++) i ^ 3\n"),
        Program("make", ["make", "-n", "-f", "-", "all"], stdin="all: a b\na b:\n\techo $@\n"),
        Program("readelf", ["readelf", "-hlS", "/bin/true"]),
    ]


def environment(extra: dict[str, str]) -> dict[str, str]:
    """Return a small, fixed environment: some programs copy theirs to the heap."""
    fixed = {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "PERL_HASH_SEED": "0"}
    return {"PATH": os.environ["PATH"], **fixed, **extra}


def by_valgrind(program: Program, folder: Path) -> Outstanding:
    """Run under memcheck and return what it lists as not freed, whatever its kind."""
    xml = folder / "valgrind.xml"
    subprocess.run(
        [
            "valgrind", "--xml=yes", f"--xml-file={xml}", "--leak-check=full",
            "--show-leak-kinds=all", "--leak-resolution=high", "--num-callers=200",
            "--show-below-main=yes", "--run-libc-freeres=no", "--run-cxx-freeres=no",
            "--keep-debuginfo=yes", *program.command,
        ],
        input=program.stdin.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment({}), check=False, timeout=300,
    )  # fmt: skip
    found = Outstanding()
    for error in ET.parse(xml).getroot().iter("error"):
        if not (error.findtext("kind") or "").startswith("Leak_"):
            continue
        what = error.find("xwhat")
        frames = error.find("stack")
        assert what is not None
        assert frames is not None
        size = int(what.findtext("leakedbytes") or 0)
        direct = re.search(r"\(([\d,]+) direct", what.findtext("text") or "")
        if direct:  # the total counts indirect blocks, which have records of their own
            size = int(direct[1].replace(",", ""))
        key: list[tuple[str, int]] = []
        names: list[str] = []
        for frame in frames.iter("frame"):
            module = Path(frame.findtext("obj") or "?").name
            if module.startswith("vgpreload"):
                continue
            key.append((module, int(frame.findtext("ip") or "0", 16) & 0xFFF))
            names.append(frame.findtext("fn") or "?")
        stack = stack_key(key)
        count = int(what.findtext("leakedblocks") or 0)
        found.blocks[stack] += count
        found.kinds[stack][(error.findtext("kind") or "").removeprefix("Leak_")] += count
        found.bytes[stack] += size
        found.names[stack] = names
    return found


def by_leakscope(program: Program, folder: Path) -> Outstanding:
    """Run under the agent and return the blocks live at the end."""
    live = folder / "live"
    live.mkdir()
    agent = str(_native.path("libleakscope-agent.so"))
    # Valgrind adds five variables, we two: perl and make keep a copy of each on the heap.
    padding = {f"PADDING_{i}": "x" for i in range(3)}
    process = subprocess.Popen(
        program.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment({"LD_PRELOAD": agent, "LEAKSCOPE_DIR": str(live), **padding}),
    )  # fmt: skip
    process.communicate(program.stdin.encode(), timeout=300)
    return outstanding(load(live / f"{process.pid}.0.live"))


def kind_of(row: np.void) -> Kind:
    """Return how a site's memory was asked for."""
    return Kind(int(row["kind"]))


def outstanding(recording: Recording) -> Outstanding:
    """Return the live heap blocks of `recording` by stack, in valgrind's terms."""
    found = Outstanding()
    kinds = recording.reachability
    for site, row in enumerate(recording.sites):
        if not row["live_count"] or kind_of(row) not in HEAP_KINDS:
            continue
        frames = [
            (
                Path(recording.modules[a.module].path).name if a.module is not None else "?",
                (a.offset - (0 if a.exact else 1)) & 0xFFF,
            )
            for a in recording.stack(site)
        ]
        # Valgrind puts its own operator new in the place of this one.
        if kind_of(row) in NEW_KINDS and frames[0][0].startswith("libstdc++"):
            frames = frames[1:]
        key = stack_key(frames)
        found.blocks[key] += int(row["live_count"])
        found.bytes[key] += int(row["live_bytes"])
        if kinds is not None:
            here = kinds[recording.blocks["site"] == site]
            found.kinds[key].update(VALGRIND_NAMES[int(kind)] for kind in here)
    return found


@dataclass
class Disagreement:
    """A stack on which the two differ, and why."""

    key: StackKey
    blocks: tuple[int, int]
    bytes: tuple[int, int]
    reason: str


def compare(valgrind: Outstanding, leakscope: Outstanding) -> tuple[int, list[Disagreement]]:
    """Return how many stacks agree in blocks and bytes, and the disagreements with reasons."""
    agreed = 0
    left: list[StackKey] = []
    for key in valgrind.blocks | leakscope.blocks:
        same = valgrind.blocks[key] == leakscope.blocks[key] > 0
        if same and valgrind.bytes[key] == leakscope.bytes[key]:
            agreed += 1
        else:
            left.append(key)
    return agreed, [
        Disagreement(
            key,
            (valgrind.blocks[key], leakscope.blocks[key]),
            (valgrind.bytes[key], leakscope.bytes[key]),
            explain(key, valgrind, leakscope),
        )
        for key in left
    ]


def explain(key: StackKey, valgrind: Outstanding, leakscope: Outstanding) -> str:
    """Name the reason of a disagreement, or "unexplained"."""
    mine, other = valgrind, leakscope
    if key not in mine.blocks:
        mine, other = other, mine
    if key in other.blocks and mine.blocks[key] == other.blocks[key]:
        return "same blocks; the names and values of the environment differ in length"
    inner = key[:5]
    for candidate in other.blocks:
        if candidate[:5] == inner and candidate not in mine.blocks:
            return "same line, and valgrind unwinds the outer frames differently"
    return "unexplained"


def measure() -> Iterator[tuple[str, int, int, int, list[Disagreement]]]:
    """Yield (program, stacks of valgrind, stacks of leakscope, agreeing, disagreements)."""
    with tempfile.TemporaryDirectory(prefix="leakscope-agreement-") as name:
        for program in programs(Path(name)):
            if not shutil.which(program.command[0]):
                raise FileNotFoundError(f"{program.command[0]} is not installed")
            folder = Path(name) / f"run-{program.name}"
            folder.mkdir()
            valgrind = by_valgrind(program, folder)
            leakscope = by_leakscope(program, folder)
            agreed, disagreements = compare(valgrind, leakscope)
            yield program.name, len(valgrind.blocks), len(leakscope.blocks), agreed, disagreements


def main() -> int:
    """Print the table; exit status 1 when a disagreement has no explanation."""
    unexplained = 0
    print("| program | stacks valgrind | stacks leakscope | agree | differ, why |")
    print("|---|---:|---:|---:|---|")
    for name, of_valgrind, of_leakscope, agreed, disagreements in measure():
        why = Counter(d.reason for d in disagreements)
        text = "; ".join(f"{n}: {reason}" for reason, n in why.items())
        print(f"| {name} | {of_valgrind} | {of_leakscope} | {agreed} | {text} |", flush=True)
        for d in disagreements:
            if d.reason == "unexplained":
                unexplained += 1
                print(f"  {d.blocks} blocks, {d.bytes} bytes: {d.key}", file=sys.stderr)
    print(f"\n{unexplained} disagreements without an explanation")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
