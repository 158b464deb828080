# SPDX-License-Identifier: Apache-2.0
"""Lines of a module that is not linked, with functions in several sections that all begin at zero."""

import subprocess

import pytest

from leakscope.errors import SymbolError
from leakscope.kernel.lines import KernelLines
from leakscope.kernel.linked import build_id_of, link_module, read_image
from leakscope.proc.kernel_frames import KernelFrame

SOURCE = """
extern void *give(int);
void *kept;
__attribute__((noinline)) static void twice(void) { kept = give(1); }
__attribute__((noinline, section(".init.text"))) void first(void)
{
  kept =
    give(2);
}
static inline __attribute__((always_inline)) void inner(void)
{
  kept = give(3);
}
__attribute__((noinline)) void outer(void)
{
  inner();
  twice();
}
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    (folder / "drv.c").write_text(SOURCE)
    command = ["gcc", "-g", "-O1", "-c", "-mcmodel=kernel", "-fno-pie", "-Wa,--build-id"]
    command = [part for part in command if part != "-Wa,--build-id"]
    subprocess.run([*command, "drv.c", "-o", "drv.ko"], cwd=folder, check=True)
    return folder


def calls(module):
    """function: (offset behind its first call, size)"""
    dump = subprocess.run(["objdump", "-d", "--no-show-raw-insn", module / "drv.ko"], capture_output=True, text=True, check=True).stdout  # fmt: skip
    image = read_image(str(module / "drv.ko"), {"first", "outer", "twice"})
    found, function, called = {}, None, False
    for line in dump.split("\n"):
        if line.endswith(">:"):
            function, start = line.split("<")[1].rstrip(">:"), int(line.split()[0], 16)
        elif function and called and ":" in line:
            found.setdefault(function, int(line.split(":")[0], 16) - start)
            called = False
        if "call" in line:
            called = True
    return {name: (offset, image.functions[name][0].size) for name, offset in found.items()}


def test_frames_have_the_lines_of_their_calls(module):
    frames = {
        name: KernelFrame(name, offset, size, "drv") for name, (offset, size) in calls(module).items()
    }  # fmt: skip
    assert set(frames) == {"first", "outer", "twice"}
    lines = KernelLines([str(module)], debuginfod=False)
    found = lines.resolve(frames.values())
    told = {name: [(f.function, f.line, f.inlined) for f in found[frame]] for name, frame in frames.items()}  # fmt: skip
    assert told == {
        "first": [("first", 8, False)],
        "outer": [("inner", 12, True), ("outer", 16, False)],
        "twice": [("twice", 4, False)],
    }
    assert all(f.module == "drv" for chain in found.values() for f in chain)


def test_a_function_of_another_size_is_another_build_and_gets_no_line(module):
    offset, size = calls(module)["first"]
    lines = KernelLines([str(module)], debuginfod=False)
    assert lines.resolve([KernelFrame("first", offset, size + 100, "drv")]) == {}
    assert any("no lines for drv" in note for note in lines.notes)
    assert lines.resolve([KernelFrame("first", offset, size, "other")]) == {}


@pytest.mark.parametrize("cut", [0, 3, 40, 64, 500, 2000])
def test_damaged_modules_are_refused(module, tmp_path, cut):
    data = (module / "drv.ko").read_bytes()
    (tmp_path / "drv.ko").write_bytes(data[:cut])
    with pytest.raises(SymbolError):
        read_image(str(tmp_path / "drv.ko"), {"first"})
    with pytest.raises(SymbolError):
        link_module(str(tmp_path / "drv.ko"), str(tmp_path / "out"))


def test_rubbish_inside_a_module_is_refused_or_read(module, tmp_path):
    data = bytearray((module / "drv.ko").read_bytes())
    for at in range(0, len(data), 61):
        wrong = bytes(data[:at]) + b"\xff" * 8 + bytes(data[at + 8 :])
        (tmp_path / "drv.ko").write_bytes(wrong)
        try:
            read_image(str(tmp_path / "drv.ko"), {"first"})
            link_module(str(tmp_path / "drv.ko"), str(tmp_path / "out"))
        except SymbolError:
            continue


def test_the_build_id_of_what_runs():
    note = (4).to_bytes(4, "little") + (2).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"GNU\0" + b"\xab\xcd\0\0"  # fmt: skip
    other = (6).to_bytes(4, "little") + (1).to_bytes(4, "little") + (9).to_bytes(4, "little") + b"Linux\0\0\0" + b"x\0\0\0"  # fmt: skip
    assert build_id_of(other + note) == "abcd"
    assert build_id_of(other + note[:10]) is None
    assert build_id_of(b"\xff" * 64) is None
