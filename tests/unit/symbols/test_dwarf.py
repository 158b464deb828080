# SPDX-License-Identifier: Apache-2.0
"""Lines and inlined functions, with and without drgn, against binutils' addr2line."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from leakscope.proc.elf_file import ElfFile
from leakscope.symbols._activation import Activation
from leakscope.symbols._dwarf import Dwarf
from leakscope.symbols._dwarf_process import ask
from leakscope.symbols._lines import Lines

CODE = r"""
#include <functional>
#include <memory>
#include <string>
#include <vector>
#define OUT __attribute__((noinline))
static void keep(void *p) { asm volatile("" : : "r"(p) : "memory"); }
template <class T> static inline T *made(int n) { T *p = new T(n); keep(p); return p; }
std::vector<std::function<void(int)>> all;
template <class T> OUT void add(T value) {
  struct Inner {
    T value;
    OUT void take(int n) { auto *v = new std::vector<T>(n, value); keep(v); keep(made<long>(n)); }
  };
  Inner inner{value};
  inner.take(3);
  all.push_back([=](int n) { inner.value == T() ? keep(made<int>(n)) : keep(made<short>(n)); });
}
int main() {
  struct Local {
    OUT static void grow(int n) {
      auto v = std::make_unique<std::vector<long>>();
      if (n & 1) { v->push_back(n); } else { v->resize(n); }
      keep(v.release());
    }
  };
  struct Odd : std::string { Odd(int n) : std::string(n, (char)120) {} };
  auto lambda = [](int n) OUT { keep(made<Odd>(n)); };
  keep(made<Odd>(5));
  lambda(3);
  Local::grow(4);
  add(1);
  add(2.0);
  for (auto &f : all) f(3);
}
"""
WAYS = [
    "g++ -O2 -gdwarf-5",
    "g++ -O2 -gdwarf-4 -gstrict-dwarf",
    "g++ -O2 -gdwarf-5 -gz",
    "clang++ -O2 -gdwarf-4",
]
# The same code described in a way that addr2line 2.40 does not read well.
ALSO = [
    ("clang++ -O2 -gdwarf-4", "clang++ -O2 -gdwarf-5"),
    ("g++ -O1 -gdwarf-5", "g++ -O1 -gdwarf-5 -fdebug-types-section"),
]


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=True, **options
    )
    return done.stdout


def nested_code(program) -> list[int]:
    """Addresses in the functions whose symbol says that they are inside another function."""
    found = []
    for line in run("nm", "-S", "--defined-only", program).splitlines():
        parts = line.split()
        if len(parts) == 4 and parts[2] in "tTwW" and parts[3].startswith(("_ZZ", "_ZNSt17")):
            start, size = int(parts[0], 16), int(parts[1], 16)
            found += range(start, start + size)
    return found


def oracle(program, addresses) -> list[list[tuple[str, int]]]:
    text = run(
        *("addr2line", "-a", "-i", "-f", "-e", program), input="\n".join(map(hex, addresses))
    )
    answers: list[list[tuple[str, int]]] = []
    for line in text.splitlines():
        if line.startswith("0x"):
            answers.append([])
        elif ":" in line and not line.startswith("_Z"):
            file, _, rest = line.rpartition(":")
            number = rest.split()[0]
            answers[-1].append((file.rsplit("/", 1)[-1], int(number) if number.isdigit() else 0))
    return answers


def built(way: str, folder: Path) -> Path:
    compiler, *flags = way.split()
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed; tools/setup-debian --test does it")
    (folder / "nested.cc").write_text(CODE)
    program = folder / f"nested-{'-'.join(flags)}"
    run(compiler, *flags, "-std=c++17", folder / "nested.cc", "-o", program)
    return program


@pytest.fixture
def program(tmp_path):
    return built(WAYS[0], tmp_path)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("drgn", [True, False])
def test_inlined_functions_are_those_of_addr2line(way, drgn, tmp_path, monkeypatch):
    if not drgn:
        monkeypatch.setattr("leakscope.symbols._lines.has_drgn", lambda: False)
    program = built(way, tmp_path)
    addresses = nested_code(program)
    assert len(addresses) > 300
    found = Lines(ElfFile(str(program))).find(addresses)

    different, deep = [], 0
    for address, expected in zip(addresses, oracle(program, addresses), strict=True):
        chain = found.get(address, ())
        ours = [(str(a.file).rsplit("/", 1)[-1], a.line or 0) for a in chain]
        deep = max(deep, len(ours))
        if ours != expected:
            different.append((hex(address), ours, expected))
    assert deep >= 4
    assert len(different) <= len(addresses) / 100, different[:3]


@pytest.mark.parametrize(("one", "other"), ALSO)
def test_it_does_not_matter_how_the_same_code_is_described(one, other, tmp_path):
    first, second = built(one, tmp_path), built(other, tmp_path)
    addresses = nested_code(first)
    assert addresses == nested_code(second)
    assert Lines(ElfFile(str(first))).find(addresses) == Lines(ElfFile(str(second))).find(addresses)


@pytest.mark.timeout(600)  # hundreds of files are read, on whatever machine
def test_what_is_damaged_has_no_answer_and_no_error(program):
    """Each byte of the headers, and many of the rest: no exception, no hang."""
    data = bytearray(program.read_bytes())
    innermost = Activation("_Zx", "x.c", 1, 1)
    address = nested_code(program)[40]
    copy = program.with_name("copy")
    assert len(Dwarf(str(program)).find(address, innermost)) >= 1
    sections = run("readelf", "-S", "-W", program)
    for name in (".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_rnglists"):
        row = next((r for r in sections.splitlines() if f" {name} " in r), None)
        if row is None:
            continue
        fields = row.split("]", 1)[1].split()
        start, size = int(fields[3], 16), int(fields[4], 16)
        for at in range(start, start + size, max(1, size // 25)):
            for value in (0x00, 0xFF, data[at] ^ 0x15):
                damaged = bytearray(data)
                damaged[at] = value
                copy.write_bytes(damaged)
                dwarf = Dwarf(str(copy))
                dwarf.find(address, innermost)
                dwarf.find(address)
    for size in range(0, len(data), len(data) // 40):
        copy.write_bytes(data[:size])
        assert Dwarf(str(copy)).find(address, innermost) == ()


@pytest.mark.parametrize("drgn", [True, False])
def test_a_program_at_a_fixed_address_has_lines(drgn, tmp_path, monkeypatch):
    if not drgn:
        monkeypatch.setattr("leakscope.symbols._lines.has_drgn", lambda: False)
    program = built("g++ -O2 -gdwarf-5 -no-pie", tmp_path)
    addresses = nested_code(program)
    assert min(addresses) > 0x400000
    assert len(Lines(ElfFile(str(program))).find(addresses)) > len(addresses) * 0.98


def test_what_takes_too_long_is_ended_and_said(program, monkeypatch):
    begun = time.monotonic()
    answers = ask(ElfFile(str(program)), [(a, None) for a in nested_code(program)], 0.05)
    assert answers.gave_up
    assert time.monotonic() - begun < 5
    assert ask(ElfFile(str(program)), [(1, None)], 0).gave_up
    assert not ask(ElfFile(str(program)), [(1, None)], 60).gave_up


def test_a_line_table_that_claims_a_trillion_folders_is_bounded(program, tmp_path):
    """pyelftools believes it: one address costs as much as is allowed, and no more."""
    sections = run("readelf", "-S", "-W", program)
    row = next(r for r in sections.splitlines() if " .debug_line " in r)
    start = int(row.split("]", 1)[1].split()[3], 16)
    data = bytearray(program.read_bytes())
    # version 5: 4 length, 2 version, 2 sizes, 4 header length, 6 fields, opcode lengths, and then
    # the formats of a folder (none) and their number (2**40)
    at = start + 18 + data[start + 17] - 1
    data[at : at + 7] = b"\x00\x80\x80\x80\x80\x80\x20"
    copy = tmp_path / "copy"
    copy.write_bytes(data)
    begun = time.monotonic()
    answers = ask(ElfFile(str(copy)), [(nested_code(program)[40], None)], 2.0)
    assert answers.gave_up
    assert time.monotonic() - begun < 10
