# SPDX-License-Identifier: Apache-2.0
"""Time symbol look-ups: a small program, a big one, and that stripped with a separate debug file.

python benchmarks/symbols/run.py [--files N]

Prints a Markdown table. Cold is a first report, without a cache of answers; warm is the second.
Nothing is fetched from a network: DEBUGINFOD_URLS is not asked.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from leakscope.model.frames import Address, Module
from leakscope.symbols import Symbolizer

TEMPLATE = """
#include <map>
#include <string>
#include <vector>
template <int N> struct Item {{ std::map<int, std::vector<std::string>> m; int v[N + 1]; }};
{functions}
{main}
"""
FUNCTION = (
    'int f{n}(int a) {{ Item<{n}> *i = new Item<{n}>; i->m[a].push_back("x"); '
    "return (int)i->m.size() + i->v[a % ({n} + 1)]; }}"
)


def sh(*words: object) -> str:
    return subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, check=True
    ).stdout


def build(folder: Path, name: str, files: int) -> Path:
    """Compile `files` sources of 20 functions, two at a time, into one program."""

    def compile_one(number: int) -> Path:
        source = folder / f"{name}-{number}.cc"
        first = number * 20
        body = "\n".join(FUNCTION.format(n=n) for n in range(first, first + 20))
        main = "int main() { return 0; }" if number == 0 else ""
        source.write_text(TEMPLATE.format(functions=body, main=main))
        sh("g++", "-O1", "-g", "-c", source, "-o", source.with_suffix(".o"))
        return source.with_suffix(".o")

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, range(files)))
    sh("g++", *objects, "-o", folder / name)
    return folder / name


def calls(path: Path, most: int) -> list[int]:
    """Return addresses of instructions spread over the text section."""
    row = re.search(
        r"\.text +PROGBITS +([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+)", sh("readelf", "-SW", path)
    )
    assert row is not None
    start, size = int(row[1], 16), int(row[2], 16)
    return list(range(start + 1, start + size, max(size // most, 1)))[:most]


def measure(path: Path, cache: Path, offsets: list[int]) -> tuple[float, int, int]:
    found = re.search(r"Build ID: ([0-9a-f]+)", sh("readelf", "-n", path))
    module = Module(str(path), found[1] if found else None, 0, 1 << 40, 0)
    began = time.perf_counter()
    symbols = Symbolizer([module], debuginfod=False, cache_dir=cache)
    frames = symbols.resolve(Address(0, offset) for offset in offsets)
    symbols.close()
    seconds = time.perf_counter() - began
    lines = sum(1 for each in frames.values() if each[0].line is not None)
    if not lines:
        raise SystemExit(f"no address of {path} has a line: its debug information was not read")
    return seconds, lines, sum(len(each) for each in frames.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=120, help="source files of the big program")
    arguments = parser.parse_args()
    print("| file | MB | addresses | with a line | frames | cold s | µs an address | warm s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = build(folder, "small", 1)
        big = build(folder, "big", arguments.files)
        split = folder / "split"
        split.write_bytes(big.read_bytes())
        split.chmod(0o755)
        sh("objcopy", "--only-keep-debug", split, folder / "split.debug")
        sh("strip", split)
        sh("objcopy", f"--add-gnu-debuglink={folder / 'split.debug'}", split)
        for label, path, most in (
            ("small program", small, 1000),
            ("big program", big, 1000),
            ("big program", big, 100_000),
            ("big, stripped, separate debug file", split, 1000),
        ):
            cache = folder / f"cache-{label}-{most}"
            offsets = calls(path, most)
            cold, lines, frames = measure(path, cache, offsets)
            warm, _, _ = measure(path, cache, offsets)
            size = sum(p.stat().st_size for p in (path, path.with_suffix(".debug")) if p.exists())
            each = cold / len(offsets) * 1e6
            print(
                f"| {label} | {size / 1e6:.1f} | {len(offsets)} | {lines} | {frames} "
                f"| {cold:.3f} | {each:.1f} | {warm:.3f} |"
            )


if __name__ == "__main__":
    main()
