# SPDX-License-Identifier: Apache-2.0
"""The agent asks nothing of the programs it is loaded into, and shows them only its hooks."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT, build_agent

MOST = 5120  # bytes of stack for one function; the largest reads a page of /proc into a buffer
MAP = ROOT / "native" / "agent" / "agent.map"


@pytest.fixture(
    scope="session",
    params=[
        "gcc",
        "clang",
        pytest.param("aarch64-linux-gnu-gcc", marks=pytest.mark.aarch64),
    ],
)
def built(request) -> Path:
    """The agent as each compiler makes it, without a warning."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed; tools/setup-debian --test does it")
    options = ["-DLEAKSCOPE_WERROR=ON", f"-DCMAKE_C_COMPILER={request.param}"]
    if request.param.startswith("aarch64"):
        options = [
            "-DLEAKSCOPE_WERROR=ON",
            f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/native/cmake/aarch64-linux-gnu.cmake",
        ]
    return build_agent(ROOT / "build" / f"architecture-{request.param}", *options)


def readelf(*arguments: object) -> str:
    return subprocess.run(
        ["readelf", "-W", *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout


def dynamic_symbols(agent: Path) -> list[list[str]]:
    """Rows of the dynamic symbol table: number, value, size, type, binding, …, index, name."""
    rows = [line.split() for line in readelf("--dyn-syms", agent).splitlines()]
    return [row for row in rows if len(row) >= 8 and row[0].rstrip(":").isdigit()]


def test_exports_are_those_of_the_version_script(built):
    text = re.sub(r"/\*.*?\*/", "", MAP.read_text(encoding="utf-8"), flags=re.DOTALL)
    promised = set(text.split("global:")[1].split("local:")[0].replace(";", " ").split())
    exported = {
        row[7].split("@")[0]
        for row in dynamic_symbols(built)
        if row[6] != "UND" and row[4] != "LOCAL"
    }
    assert exported == promised


def test_nothing_is_needed_of_the_host(built):
    assert "NEEDED" not in readelf("-d", built)
    undefined = {
        row[7] for row in dynamic_symbols(built)[1:] if row[6] == "UND" and row[4] != "WEAK"
    }
    assert undefined == set()


def test_no_text_relocations_and_no_writable_code(built):
    assert "TEXTREL" not in readelf("-d", built)
    segments = [line.split() for line in readelf("-l", built).splitlines() if " LOAD " in line]
    assert segments
    assert not [line for line in segments if {"W", "E"} <= set("".join(line[6:-1]))]


def test_thread_local_storage_is_small_and_static(built):
    """Spare static TLS is shared by all libraries, and dynamic TLS may call malloc."""
    rows = [line.split() for line in readelf("-l", built).splitlines() if "TLS" in line]
    rows = [row for row in rows if row[0] == "TLS"]
    assert len(rows) == 1
    assert int(rows[0][5], 16) <= 64
    relocations = readelf("-r", built)
    assert "DTPMOD" not in relocations
    assert "TLSDESC" not in relocations
    assert "__tls_get_addr" not in relocations


def test_the_stack_is_not_executable(built):
    (row,) = [line for line in readelf("-l", built).splitlines() if "GNU_STACK" in line]
    assert "E" not in row.split()[6]


def test_agent_can_be_identified_and_debugged(built):
    assert "Build ID" in readelf("-n", built)
    assert ".debug_info" in readelf("-S", built)
    assert "libleakscope-agent.so" in readelf("-d", built)


@pytest.mark.timeout(600)  # half a hundred compilations
def test_no_function_needs_a_large_stack(built, tmp_path):
    """Hooks run on threads' smallest stacks (16 KiB) and on signal stacks."""
    compiler = "aarch64-linux-gnu-gcc" if "aarch64" in str(built) else "gcc"
    large = []
    for source in sorted((ROOT / "native" / "agent").glob("*.c")):
        output = tmp_path / f"{source.stem}.o"
        command = [
            compiler,
            *("-std=gnu11", "-O2", "-fPIC", "-fno-builtin", "-ftls-model=initial-exec"),
            "-fstack-usage",
            f"-I{ROOT}/native/include",
            "-c",
            source,
            "-o",
            output,
        ]
        subprocess.run(command, check=True, capture_output=True)
        for line in output.with_suffix(".su").read_text().splitlines():
            where, size, kind = line.split("\t")
            if int(size) > MOST or "unbounded" in kind:
                large.append((where.rsplit(":", 1)[-1], int(size), kind))
    assert large == []


COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
DECLARED = re.compile(
    r"^(?!static|LS_HOT|#|typedef|extern|return|  )[\w* ()]*?\b(ls_\w+)\([^;{}]*\)\s*;",
    re.MULTILINE,
)
DEFINED = re.compile(r"^(?!static|#)[\w* ()]*?\b(ls_\w+)\([^;{}]*\)\s*\{", re.MULTILINE)
DOORS = {"door_inject.c", "door_preload.c"}
"""They define what they do in another way than the rest of the agent, or leave out."""


def strays(folder: Path) -> list[str]:
    """Functions that a header declares and that another file than its own defines."""
    defined: dict[str, set[str]] = {}
    for source in sorted(folder.glob("*.c")):
        for name in DEFINED.findall(COMMENT.sub("", source.read_text(encoding="utf-8"))):
            defined.setdefault(name, set()).add(source.name)
    return [
        f"{header.name}: {name} is in {found or 'no file'}"
        for header in sorted(folder.glob("*.h"))
        for name in DECLARED.findall(COMMENT.sub("", header.read_text(encoding="utf-8")))
        if not (found := defined.get(name, set())) or found - DOORS - {f"{header.stem}.c"}
    ]


def test_a_header_declares_what_its_own_file_defines(tmp_path):
    assert strays(ROOT / "native" / "agent") == []
    (tmp_path / "one.h").write_text(
        "void ls_here(void);\nvoid ls_there(int a);\nint ls_no(void);\n"
    )
    (tmp_path / "one.c").write_text("void ls_here(void) {\n}\n")
    (tmp_path / "two.c").write_text("void ls_there(int a) {\n}\n")
    assert strays(tmp_path) == ["one.h: ls_there is in {'two.c'}", "one.h: ls_no is in no file"]
