# SPDX-License-Identifier: Apache-2.0
"""Functions, lines and inlined frames of real programs, wherever their debug information is."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from leakscope.model.frames import Address, Module
from leakscope.symbols import Symbolizer, source_context

SOURCE = """\
#include <cstdlib>
#include <string>
namespace shop {
struct Cart {
  static inline __attribute__((always_inline)) void *grow(int n) {
    return malloc(n); // GROW
  }
  void *add(const std::string &name, int n);
};
__attribute__((noinline)) void *Cart::add(const std::string &name, int n) {
  void *block = grow(n + (int)name.size()); // ADD
  __asm__ volatile("" : : "r"(block) : "memory");
  return block;
}
}
int main(int argc, char **) { return shop::Cart().add("x", argc) == nullptr; }
"""
GROW, ADD = (
    next(i for i, line in enumerate(SOURCE.splitlines(), 1) if f"// {mark}" in line)
    for mark in ("GROW", "ADD")
)


def sh(*words: object) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("symbols")
    (folder / "shop.cc").write_text(SOURCE)
    sh("g++", "-O2", "-g", "-fomit-frame-pointer", folder / "shop.cc", "-o", folder / "shop")
    return folder


@pytest.fixture
def program(built, tmp_path) -> Path:
    return Path(shutil.copy(built / "shop", tmp_path / "shop"))


def build_id(path: Path) -> str:
    found = re.search(r"Build ID: ([0-9a-f]+)", sh("readelf", "-n", path))
    assert found is not None
    return found[1]


def call_of_malloc(path: Path) -> int:
    """The return address of the call to malloc in Cart::add."""
    lines = sh("objdump", "-d", "--no-show-raw-insn", path).splitlines()
    start = next(i for i, line in enumerate(lines) if "<_ZN4shop4Cart3add" in line and ">:" in line)
    at = next(i for i in range(start, len(lines)) if "<malloc@plt>" in lines[i])
    return int(lines[at + 1].split(":")[0], 16)


def module_of(path: Path, **kw) -> Module:
    return Module(str(path), kw.get("id") or build_id(path), 0x1000, 0x900000, 0)


def resolve(path: Path, offset: int, *, module: Module | None = None, **kw):
    kw.setdefault("cache_dir", "")
    kw.setdefault("debuginfod", False)
    symbols = Symbolizer([module or module_of(path)], **kw)
    address = Address(0, offset)
    return symbols.resolve([address])[address], symbols.notes


def check(frames) -> None:
    inner, outer = frames
    assert (inner.function, inner.line, inner.inlined) == ("grow", GROW, True)
    assert inner.file.endswith("shop.cc")
    assert outer.function.startswith("shop::Cart::add(")
    assert (outer.line, outer.inlined) == (ADD, False)
    assert outer.symbol.startswith("_ZN4shop4Cart3add")


def test_inlined_frames_lines_and_demangled_names(program):
    frames, notes = resolve(program, call_of_malloc(program))
    check(frames)
    assert notes == ()


def test_the_call_is_what_counts_and_not_the_return_address(program):
    """A return address is looked up one byte before: the next instruction may be elsewhere."""
    offset = call_of_malloc(program)
    symbols = Symbolizer([module_of(program)], cache_dir="", debuginfod=False)
    call, exact = Address(0, offset), Address(0, offset, exact=True)
    found = symbols.resolve([call, exact])
    assert found[call][0].line == GROW
    assert found[exact] != found[call]


def split(program: Path, debug: Path) -> None:
    debug.parent.mkdir(parents=True, exist_ok=True)
    sh("objcopy", "--only-keep-debug", program, debug)
    sh("strip", program)


def test_a_debug_file_by_debuglink(program):
    offset, debug = call_of_malloc(program), program.with_suffix(".debug")
    split(program, debug)
    sh("objcopy", f"--add-gnu-debuglink={debug}", program)
    check(resolve(program, offset)[0])


def test_a_debug_file_by_build_id_in_a_given_folder(program, tmp_path):
    offset, identity = call_of_malloc(program), build_id(program)
    split(program, tmp_path / "dbg" / ".build-id" / identity[:2] / f"{identity[2:]}.debug")
    check(resolve(program, offset, debug_dirs=[str(tmp_path / "dbg")])[0])


def test_compressed_debug_sections(program):
    offset = call_of_malloc(program)
    sh("objcopy", "--compress-debug-sections=zlib", program)
    check(resolve(program, offset)[0])


def test_a_symbol_table_alone_gives_functions_and_a_note(program):
    offset = call_of_malloc(program)
    sh("strip", "--strip-debug", program)
    (frame,), notes = resolve(program, offset)
    assert frame.function.startswith("shop::Cart::add(")
    assert frame.line is None
    assert "no lines for shop" in " ".join(notes)


def test_a_stripped_program_gives_an_address_and_a_note(program):
    offset = call_of_malloc(program)
    sh("strip", program)
    (frame,), notes = resolve(program, offset)
    assert frame.function is None
    assert frame.module_path == str(program)
    assert "no function names for shop" in " ".join(notes)


def test_a_file_that_was_rebuilt_is_refused(program):
    module = module_of(program, id="ab" * 20)
    (frame,), notes = resolve(program, call_of_malloc(program), module=module)
    assert frame.function is None
    assert str(program) in " ".join(notes)


def test_a_missing_file(tmp_path):
    (frame,), notes = resolve(
        tmp_path / "gone", 0x1234, module=module_of(tmp_path / "gone", id="ab" * 20)
    )
    assert frame.function is None
    assert "gone" in " ".join(notes)


@pytest.mark.parametrize("keep", [0, 3, 20, 64, 1000, 5000])
def test_truncated_files_never_raise(program, keep):
    offset, module = call_of_malloc(program), module_of(program)
    program.write_bytes(program.read_bytes()[:keep])
    frames, notes = resolve(program, offset, module=module)
    assert frames
    assert notes


def test_an_address_in_no_module():
    symbols = Symbolizer([], cache_dir="", debuginfod=False)
    address = Address(None, 0xDEAD)
    assert symbols.resolve([address])[address][0].function is None


def test_the_cache_answers_the_second_time(program, tmp_path, monkeypatch):
    offset, cache = call_of_malloc(program), tmp_path / "cache"
    check(resolve(program, offset, cache_dir=cache)[0])
    assert cache.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(
        "leakscope.symbols._lines.Lines.find", lambda *_: pytest.fail("looked up again")
    )
    check(resolve(program, offset, cache_dir=cache)[0])


def test_a_damaged_cache_is_no_cache(program, tmp_path):
    offset, cache = call_of_malloc(program), tmp_path / "cache"
    resolve(program, offset, cache_dir=cache)
    for file in cache.iterdir():
        file.write_bytes(b"\0" * 100)
    check(resolve(program, offset, cache_dir=cache)[0])


def test_debuginfod_fetches_by_build_id(program, tmp_path, monkeypatch):
    offset, identity = call_of_malloc(program), build_id(program)
    debug = tmp_path / "www" / "buildid" / identity / "debuginfo"
    split(program, debug)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kw):
            super().__init__(*args, directory=str(tmp_path / "www"), **kw)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DEBUGINFOD_URLS", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "fetched"))
    try:
        check(resolve(program, offset, debuginfod=True)[0])
    finally:
        server.shutdown()
        server.server_close()


def test_a_dead_debuginfod_costs_a_note_and_little_time(program, tmp_path, monkeypatch):
    offset = call_of_malloc(program)
    sh("strip", program)
    monkeypatch.setenv("DEBUGINFOD_URLS", "http://127.0.0.1:9")
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "fetched"))
    began = time.monotonic()
    (frame,), notes = resolve(program, offset, debuginfod=True)
    assert time.monotonic() - began < 5
    assert frame.function is None
    assert "127.0.0.1:9" in " ".join(notes)


def test_source_lines_around_a_frame(built, program):
    frames, _ = resolve(program, call_of_malloc(program))
    lines = source_context(frames[0], 1)
    assert [number for number, _ in lines] == [GROW - 1, GROW, GROW + 1]
    assert "// GROW" in lines[1][1]


def test_a_source_that_is_no_file_is_not_opened(program, tmp_path):
    from dataclasses import replace

    os.mkfifo(tmp_path / "pipe")
    frames, _ = resolve(program, call_of_malloc(program))
    assert source_context(replace(frames[0], file=str(tmp_path / "pipe")), 1) == []


# -- other compilers, languages and circumstances ------------------------------

C_SOURCE = """\
#include <stdlib.h>
static void *make(int n) {
  void *p = malloc(n); // MAKE
  __asm__ volatile("" : : "r"(p) : "memory");
  return p;
}
int main(int c, char **v) { (void)v; return make(c) == 0; } // MAIN
"""
MAKE, MAIN = 3, 7


def after_malloc(path: Path) -> int:
    """The return address of the only call to malloc."""
    lines = sh("objdump", "-d", "--no-show-raw-insn", path).splitlines()
    at = next(i for i, line in enumerate(lines) if "call" in line and "<malloc@plt>" in line)
    return int(lines[at + 1].split(":")[0], 16)


@pytest.fixture
def compile_c(tmp_path):
    def compiled(*flags: str, compiler: str = "gcc") -> Path:
        (tmp_path / "made.c").write_text(C_SOURCE)
        path = tmp_path / "made"
        # In two steps: split DWARF goes beside the object file.
        sh(compiler, *flags, "-c", tmp_path / "made.c", "-o", tmp_path / "made.o")
        sh("gcc", tmp_path / "made.o", "-o", path)
        return path

    return compiled


@pytest.mark.parametrize("debug", ["-gdwarf-3", "-gdwarf-4", "-gdwarf-5", "-gsplit-dwarf"])
def test_unoptimised_and_optimised_code_in_each_kind_of_dwarf(compile_c, debug):
    path = compile_c("-O0", "-g", debug)
    (frame,), _ = resolve(path, after_malloc(path))
    assert (frame.function, frame.line, frame.inlined) == ("make", MAKE, False)
    path = compile_c("-O2", "-g", debug)
    (inner, outer), _ = resolve(path, after_malloc(path))
    assert (inner.function, inner.line, inner.inlined) == ("make", MAKE, True)
    assert (outer.function, outer.line, outer.inlined) == ("main", MAIN, False)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
def test_debug_information_of_64_bits(compile_c, compiler, version):
    path = compile_c("-O2", "-g", version, "-gdwarf64", compiler=compiler)
    inner, outer = resolve(path, after_malloc(path))[0][:2]
    assert (inner.function, inner.line, inner.inlined) == ("make", MAKE, True)
    assert (outer.function, outer.line) == ("main", MAIN)


def test_a_c_library_gives_functions_of_its_dynamic_symbols():
    with open("/proc/self/maps") as maps:
        path = next(Path(x.split()[-1]) for x in maps if x.rstrip().endswith("/libc.so.6"))
    rows = sh("readelf", "-W", "--dyn-syms", path).splitlines()
    value = next(int(row.split()[1], 16) for row in rows if " strdup@" in row)
    frames, _ = resolve(path, value + 5)
    assert frames[-1].function in {"strdup", "__strdup"}


def test_a_module_that_was_unloaded_is_still_named(program):
    from dataclasses import replace

    gone = replace(module_of(program), unloaded=True)
    check(resolve(program, call_of_malloc(program), module=gone)[0])


def test_without_drgn_there_is_all_of_it_as_well(program, monkeypatch):
    with_drgn = resolve(program, call_of_malloc(program))
    monkeypatch.setattr("leakscope.symbols._lines.has_drgn", lambda: False)
    assert resolve(program, call_of_malloc(program)) == with_drgn
    check(with_drgn[0])


def test_without_drgn_what_takes_too_long_is_said_and_not_kept(program, monkeypatch, tmp_path):
    offset = call_of_malloc(program)
    monkeypatch.setattr("leakscope.symbols._lines.has_drgn", lambda: False)
    monkeypatch.setattr("leakscope.symbols._symbolizer.has_drgn", lambda: False)
    monkeypatch.setattr("leakscope.symbols._lines._INSTEAD_S", -1.0)
    (frame,), notes = resolve(program, offset, cache_dir=tmp_path / "cache")
    assert frame.function.startswith("shop::Cart::add(")
    assert frame.line is None
    assert "not all lines are shown, as without drgn they take too long" in " ".join(notes)
    monkeypatch.undo()
    check(resolve(program, offset, cache_dir=tmp_path / "cache")[0])


def test_a_name_that_is_not_utf8_does_not_cost_the_lines(compile_c):
    path = compile_c("-O0", "-g")
    offset = after_malloc(path)
    data = path.read_bytes()
    assert b"made.c\0" in data
    path.write_bytes(data.replace(b"made.c\0", b"m\xe9de.c\0"))
    frames, notes = resolve(path, offset)
    assert frames[0].function == "make"
    assert notes == ()


def test_a_file_of_the_cache_is_private(program, tmp_path):
    cache = tmp_path / "cache"
    resolve(program, call_of_malloc(program), cache_dir=cache)
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_cache_folder_that_is_a_symbolic_link_is_left_alone(program, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    check(resolve(program, call_of_malloc(program), cache_dir=tmp_path / "cache")[0])
    assert list((tmp_path / "elsewhere").iterdir()) == []


# -- servers that misbehave -----------------------------------------------------


@pytest.fixture
def serve():
    """Start a server on this machine that treats each connection in a given way."""
    listening: list[socket.socket] = []

    def start(treat) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=treat, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in listening:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def silent(connection: socket.socket) -> None:
    with connection:
        time.sleep(8)


def trickle(connection: socket.socket) -> None:
    """Send headers byte by byte, so that no single read ever times out."""
    with connection, contextlib.suppress(OSError):
        connection.recv(4096)
        for byte in b"HTTP/1.0 200 OK\r\nX-Filler: " + b"a" * 80:
            connection.send(bytes([byte]))
            time.sleep(0.1)


@pytest.mark.parametrize("treat", [silent, trickle])
def test_a_server_that_never_answers_is_asked_once_for_all_modules(
    program, tmp_path, monkeypatch, serve, treat
):
    offset = call_of_malloc(program)
    sh("strip", program)
    modules = []
    for number in range(4):
        identity = f"{number:02x}" * 20
        copy = tmp_path / f"copy{number}"
        copy.write_bytes(
            program.read_bytes().replace(bytes.fromhex(build_id(program)), bytes.fromhex(identity))
        )
        modules.append(module_of(copy, id=identity))
    url = serve(treat)
    monkeypatch.setenv("DEBUGINFOD_URLS", url)
    monkeypatch.setenv("DEBUGINFOD_TIMEOUT", "1")
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "fetched"))
    symbols = Symbolizer(modules, cache_dir="")
    began = time.monotonic()
    symbols.resolve(Address(number, offset) for number in range(4))
    assert time.monotonic() - began < 3
    assert [note for note in symbols.notes if url in note] == [
        f"the debuginfod server {url} cannot be used: it does not answer"
    ]


def test_a_server_that_sends_another_file_is_not_believed(
    program, built, tmp_path, monkeypatch, serve
):
    offset = call_of_malloc(program)
    sh("strip", program)
    other = tmp_path / "other"
    theirs = bytes.fromhex(build_id(program))
    other.write_bytes((built / "shop").read_bytes().replace(theirs, b"\xcd" * 20))

    def send_other(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + other.read_bytes())

    monkeypatch.setenv("DEBUGINFOD_URLS", serve(send_other))
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "fetched"))
    (frame,), notes = resolve(program, offset, debuginfod=True)
    assert frame.line is None
    assert "not the one asked for" in " ".join(notes)
    assert [path for path in (tmp_path / "fetched").rglob("*") if path.is_file()] == []


def test_no_server_is_asked_without_the_variable(program, tmp_path, monkeypatch):
    offset = call_of_malloc(program)
    sh("strip", program)
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    monkeypatch.setattr(
        "leakscope.symbols._debuginfod._Download.start", lambda _: pytest.fail("asked a server")
    )
    _, notes = resolve(program, offset, debuginfod=True)
    assert "set DEBUGINFOD_URLS" in " ".join(notes)
