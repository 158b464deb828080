# SPDX-License-Identifier: Apache-2.0
"""The native tests again, built with the compiler's sanitizers: no access, shift or race out of order."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

NATIVE = ROOT / "native"
PARTS = {
    "test_blocks": ("blocks", "str", "sys"),
    "test_depot": ("depot", "str"),
    "test_kept": ("kept", "str"),
    "test_ranges": ("ranges", "str"),
    "test_timeline": ("timeline", "str", "sys"),
    "test_space": ("space", "str", "sys"),
    "test_rules": ("apart", "epilogue", "image", "loaded", "modules", "peek", "resolve", "rules", "str", "sys"),
}  # fmt: skip
OPTIONS = (
    *("-g", "-O2", "-fomit-frame-pointer", "-fasynchronous-unwind-tables", "-pthread"),
    *("-D_GNU_SOURCE", "-Wno-tsan", "-I", NATIVE / "agent", "-I", NATIVE / "include"),
)
# What the tests allocate for themselves they need not free.
ENVIRONMENT = os.environ | {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def run(*command: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=100, env=ENVIRONMENT
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def build(folder: Path, name: str, *options: str) -> Path:
    c = ("gcc", "-std=gnu11", "-fno-builtin", "-fexceptions", *options, *OPTIONS, "-c")
    sources = [NATIVE / "tests" / f"{name}.c", *(NATIVE / "agent" / f"{p}.c" for p in PARTS[name])]
    objects = [folder / f"{source.stem}.o" for source in sources]
    for source, output in zip(sources, objects, strict=True):
        run(*c, source, "-o", output)
    more = [NATIVE / "tests/test_rules_cxx.cc"] if name == "test_rules" else []
    run("g++", "-std=c++17", *options, *OPTIONS, *more, *objects, "-ldl", "-o", folder / name)
    return folder / name


@pytest.fixture(params=["address,undefined", "thread"])
def sanitizer(request):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; tools/setup-debian --test does it")
    return f"-fsanitize={request.param}"


@pytest.mark.parametrize(
    ("name", "ways"),
    [(name, [()]) for name in PARTS if name not in ("test_space", "test_rules")]
    + [("test_space", [("free",), ("blocked",)])],
)
def test_tables_and_space(sanitizer, name, ways, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = build(tmp_path, name, sanitizer)
    for way in ways:
        assert run(program, *way) == "ok\n"


@pytest.mark.timeout(200)
def test_rules_with_readers_against_scans(sanitizer, tmp_path):
    program = build(tmp_path, "test_rules", sanitizer)
    plugin = tmp_path / "plugin.so"
    run("gcc", "-shared", "-fPIC", "-O2", NATIVE / "tests/test_rules_plugin.c", "-o", plugin)
    said = run(program, plugin)
    assert " 0 failed" in said
    assert "Sanitizer" not in said


@pytest.mark.parametrize(
    ("option", "code", "said"),
    [
        ("address", "char *p = malloc(4); p[4] = 1;", "heap-buffer-overflow"),
        ("undefined", "volatile int big = 2147483647; big++;", "signed integer overflow"),
    ],
)
def test_the_sanitizers_are_at_work(option, code, said, tmp_path):
    (tmp_path / "wrong.c").write_text(
        f"#include <stdlib.h>\nint main(void) {{ {code} return 0; }}\n"
    )
    run("gcc", "-w", "-O0", f"-fsanitize={option}", tmp_path / "wrong.c", "-o", tmp_path / "wrong")
    done = subprocess.run(
        [tmp_path / "wrong"], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode != 0
    assert said in done.stderr
