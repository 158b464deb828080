# SPDX-License-Identifier: Apache-2.0
"""Damaged files never raise, crash or hang, whatever part of them is damaged.

Each batch of damaged copies is read in a process of its own with a limit on its time and
memory, because debug information is parsed in C, where a fault would end the report.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from leakscope.model.frames import Address, Module
from leakscope.symbols import Symbolizer

COPIES = 150
ADDRESSES = [Address(0, offset) for offset in range(0x1000, 0x1200, 8)]


def damage(data: bytes, seed: int) -> bytes:
    """Cut `data`, or change bytes: headers, section headers and everything between."""
    chance = random.Random(seed)
    if seed % 3 == 0:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 20, 200))):
        anywhere = chance.randrange(len(data))
        ends = chance.choice((chance.randrange(64), len(data) - chance.randrange(1, 2500)))
        changed[anywhere if seed % 3 == 1 else ends] = chance.choice((0, 128, 255))
    return bytes(changed)


def read_damaged(original: Path, copy: Path, seed: int) -> None:
    """Resolve addresses in damaged copies. Runs in a process of its own."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 61))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    data = original.read_bytes()
    for number in range(seed, seed + COPIES):
        copy.write_bytes(damage(data, number))
        print(number, flush=True)
        module = Module(str(copy), None, 0, 1 << 40, 0)
        with Symbolizer([module], cache_dir="", debuginfod=False) as symbols:
            frames = symbols.resolve(ADDRESSES)
            assert len(frames) == len(ADDRESSES)
            assert all(frames.values())
            assert all(isinstance(note, str) for note in symbols.notes)


@pytest.mark.parametrize("seed", [0, 5100])
@pytest.mark.parametrize("flags", [["-g"], ["-g", "-gz"]], ids=["plain", "compressed"])
def test_damaged_files(tmp_path, flags, seed):
    source = tmp_path / "made.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "static void *make(int n) { return malloc(n); }\n"
        "int main(int c, char **v) { (void)v; return make(c) == 0; }\n"
    )
    original = tmp_path / "made"
    subprocess.run(["gcc", "-O1", *flags, source, "-o", original], check=True)
    done = subprocess.run(
        [sys.executable, __file__, original, tmp_path / "copy", str(seed)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stdout.split()[-1:]
    assert done.returncode == 0, f"copy {last}: {done.returncode}: {done.stderr[-800:]}"
    assert last == [str(seed + COPIES - 1)]


if __name__ == "__main__":
    read_damaged(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
