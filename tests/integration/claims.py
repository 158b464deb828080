# SPDX-License-Identifier: Apache-2.0
"""The programs of tests/programs and what their header comments claim about them."""

import re
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "programs"

COMPILERS = {
    "O0": ("gcc", "g++", ["-O0"]),
    "O2": ("gcc", "g++", ["-O2", "-fomit-frame-pointer"]),
    "musl": ("musl-gcc", None, ["-O1"]),
    "aarch64": ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", ["-O2"]),
}

_HEADER = re.compile(r"// (expect(?= )|[a-z]+(?=:)):? (.+)")
_EXPECT = re.compile(r"(\w+): ([a-z -]+?)(?: \(([a-z -]+)\))?")
_MARK = re.compile(r"// (\w+) HERE$")


@dataclass(frozen=True)
class Expectation:
    """A verdict (and pattern) at one line."""

    place: tuple[str, int]  # file name, line
    verdicts: frozenset[str]
    pattern: str | None


@dataclass(frozen=True)
class Claim:
    """One program and everything its header says."""

    source: Path
    expectations: tuple[Expectation, ...]
    leaks: frozenset[tuple[str, int]]
    stdout: str
    status: int | None  # exit status, None: ended by a signal
    signal: str | None
    processes: int
    flags: tuple[str, ...]
    library: Path | None
    variants: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.source.stem

    def build(self, folder: Path, variant: str) -> Path:
        """Compile the program into `folder` and return it."""
        c_compiler, cpp_compiler, options = COMPILERS[variant]
        compiler = c_compiler if self.source.suffix == ".c" else cpp_compiler
        assert compiler is not None, f"no C++ compiler for {variant}"
        options = [*options, "-g", *self.flags]
        if self.library is not None:
            shared = folder / f"{self.name}.so"
            _compile([c_compiler, *options, "-fPIC", "-shared", self.library, "-o", shared])
            options.append(f'-DLIBRARY="{shared}"')
        program = folder / self.name
        _compile([compiler, self.source, "-o", program, *options])
        return program


def _compile(command: Iterable[object]) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"


def read(source: Path) -> Claim:
    """Read the header of one program. Unknown or malformed lines are errors, not comments."""
    text = source.read_text(encoding="utf-8")
    header: dict[str, list[str]] = {}
    for line in text.splitlines()[2:]:
        match = _HEADER.fullmatch(line)
        if match is None:
            break
        header.setdefault(match[1], []).append(match[2])
    library = FOLDER / header["library"][0] if "library" in header else None
    marks: dict[str, tuple[str, int]] = {}
    for file in filter(None, (source, library)):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if mark := _MARK.search(line):
                assert mark[1] not in marks, f"{source.name}: {mark[1]} is marked twice"
                marks[mark[1]] = (file.name, number)
    expectations = []
    for line in header.pop("expect", []):
        match = _EXPECT.fullmatch(line)
        assert match is not None, f"{source.name}: cannot read 'expect: {line}'"
        expectations.append(Expectation(marks[match[1]], frozenset(match[2].split(" ")), match[3]))
    single = {key: values[0] for key, values in header.items()}
    leaks = single.pop("leaks")
    status = single.pop("status", "0")
    killed = status.startswith("SIG")
    claim = Claim(
        source=source,
        expectations=tuple(expectations),
        leaks=frozenset(marks[name] for name in leaks.split() if name != "none"),
        stdout=single.pop("stdout", "").replace("\\n", "\n"),
        status=None if killed else int(status),
        signal=signal.Signals[status].name if killed else None,
        processes=int(single.pop("processes", "1")),
        flags=tuple(single.pop("build", "").split()),
        library=library,
        variants=tuple(single.pop("variants", "O0 O2").split()),
    )
    single.pop("library", None)
    assert not single, f"{source.name}: unknown lines {sorted(single)}"
    assert claim.expectations or not claim.leaks, f"{source.name} leaks without a verdict"
    return claim


CLAIMS = tuple(
    read(source)
    for source in sorted(FOLDER.iterdir())
    if source.suffix in {".c", ".cc"} and not source.name.endswith(".lib.c")
)


def claim(name: str) -> Claim:
    """The claim of the program called `name`."""
    return next(each for each in CLAIMS if each.name == name)
