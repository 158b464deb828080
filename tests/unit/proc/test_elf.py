# SPDX-License-Identifier: Apache-2.0
"""One reader of ELF files: strict about symbols, and as lenient as the loader about programs."""

import struct
import subprocess

import pytest

from leakscope.errors import SymbolError, TargetError
from leakscope.proc.elf import ET_DYN, read_elf
from leakscope.proc.elf_file import ElfFile
from leakscope.symbols import find_debug_file


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The path of a program with debug information."""
    folder = tmp_path_factory.mktemp("elf")
    (folder / "p.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-g", "-o", "p", "p.c"], cwd=folder, check=True)
    return folder / "p"


def test_a_program_runs_without_sections_but_has_no_symbols_then(program, tmp_path):
    data = bytearray(program.read_bytes())
    struct.pack_into("<Q", data, 40, len(data) - 8)  # e_shoff
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)

    found = read_elf(damaged)

    assert found.type == ET_DYN
    assert found.interpreter == read_elf(program).interpreter
    assert found.needed == ("libc.so.6",)
    assert found.sections == frozenset()
    assert found.build_id == read_elf(program).build_id  # from its segments
    assert not found.has_debug_info
    with pytest.raises(SymbolError, match="damaged"):
        ElfFile(str(damaged))


def test_a_program_of_another_class_says_what_it_is(program, tmp_path):
    data = bytearray(program.read_bytes())
    data[4] = 1
    other = tmp_path / "other"
    other.write_bytes(data)
    assert (read_elf(other).bits, read_elf(other).interpreter) == (32, None)
    with pytest.raises(SymbolError, match="not a 64-bit"):
        ElfFile(str(other))


@pytest.mark.parametrize("size", [0, 3, 19, 40, 63, 100])
def test_a_program_that_is_cut_off_is_an_error_not_a_crash(program, tmp_path, size):
    short = tmp_path / "short"
    short.write_bytes(program.read_bytes()[:size])
    with pytest.raises(TargetError):
        read_elf(short)
    with pytest.raises(SymbolError):
        ElfFile(str(short))


def test_the_file_with_the_lines_is_found_and_is_the_right_one(program, tmp_path):
    assert find_debug_file(str(program), read_elf(program).build_id) == str(program)
    stripped = tmp_path / "q"
    subprocess.run(["objcopy", "--only-keep-debug", program, tmp_path / "q.dbg"], check=True)
    subprocess.run(["objcopy", "-g", program, stripped], check=True)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={tmp_path / 'q.dbg'}", stripped], check=True)
    build_id = read_elf(stripped).build_id
    assert find_debug_file(str(stripped), build_id) == str(tmp_path / "q.dbg")
    # A file of that name that belongs to another program is not taken.
    (tmp_path / "p.c").write_text("int main(void) { return 1; }\n")
    subprocess.run(["gcc", "-g", "-o", "q.dbg", "p.c"], cwd=tmp_path, check=True)
    assert find_debug_file(str(stripped), build_id) is None
