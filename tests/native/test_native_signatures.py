# SPDX-License-Identifier: Apache-2.0
"""The signatures of C functions that Python repeats are those of the C sources."""

import ctypes
import re

from conftest import ROOT
from leakscope.target import library

DEFINITION = re.compile(
    r"^([a-z][\w ]*?[ *]+)lss_(\w+)\(((?:[^(){};]|\([^()]*\))*)\)\s*\{", re.MULTILINE
)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
VALUES = {
    "uint64_t": {ctypes.c_uint64},
    "uintptr_t": {ctypes.c_uint64},
    "size_t": {ctypes.c_size_t},
    "long": {ctypes.c_long},
    "int": {ctypes.c_int},
    "bool": {ctypes.c_bool},
    "void": {None},
}


def parameters(text):
    """Split at the commas that are not inside brackets."""
    parts = re.split(r",(?![^()]*\))", " ".join(text.split()))
    return [] if [part.strip() for part in parts] == ["void"] else parts


def fits(declared, python):
    declared = declared.strip()
    if "(*" in declared or declared.endswith("_fn") or re.search(r"\breader\b|\[", declared):
        return python in (ctypes.c_void_p, library.READER)
    if "*" in declared:
        return python in (ctypes.c_void_p, ctypes.c_char_p, library.READER)
    kinds = [word for word in re.findall(r"\w+", declared) if word in VALUES]
    return bool(kinds) and python in VALUES[kinds[-1] if kinds[-1] != "int" else kinds[0]]


def sources():
    found = {}
    for path in sorted((ROOT / "native/scan").glob("*.c")):
        text = COMMENT.sub(" ", path.read_text(encoding="utf-8"))
        for result, name, arguments in DEFINITION.findall(text):
            found[name] = (result, parameters(arguments))
    return found


def wrong(repeated, defined):
    problems = []
    for name, (result, arguments) in repeated.items():
        if name not in defined:
            problems.append(f"lss_{name} is not defined")
            continue
        given, wanted = defined[name]
        if not fits(given, result):
            problems.append(f"lss_{name} returns {given.strip()}")
        if len(arguments) != len(wanted):
            problems.append(f"lss_{name} takes {len(wanted)} arguments, not {len(arguments)}")
        problems += [
            f"lss_{name}: {declared.strip()} is no {python}"
            for declared, python in zip(wanted, arguments, strict=False)
            if not fits(declared, python)
        ]
    return problems


def test_the_scanners_functions_are_called_as_they_are_defined():
    assert len(library._FUNCTIONS) > 10
    assert wrong(library._FUNCTIONS, sources()) == []


def test_the_check_sees_what_is_wrong():
    defined = {"one": ("int ", ["uint64_t a", "void *b"])}
    good = (ctypes.c_int, [ctypes.c_uint64, ctypes.c_void_p])
    assert wrong({"one": good}, defined) == []
    for bad in (
        (None, good[1]),
        (ctypes.c_int, good[1][:1]),
        (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p]),
        (ctypes.c_int, [ctypes.c_uint64, ctypes.c_size_t]),
    ):
        assert len(wrong({"one": bad}, defined)) == 1
    assert wrong({"two": good}, defined) == ["lss_two is not defined"]


def test_numbers_of_system_headers_are_those_of_the_headers(tmp_path):
    """ptrace and the demangler: their prototypes, as the compiler knows them."""
    import subprocess

    from leakscope.target.ptrace import libc

    assert libc.ptrace.restype is ctypes.c_long
    assert libc.ptrace.argtypes == [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    (tmp_path / "signatures.cc").write_text(
        "#include <cxxabi.h>\n#include <stdlib.h>\n#include <sys/ptrace.h>\n"
        "long (*p)(enum __ptrace_request, ...) = ptrace;\n"
        "char *(*d)(const char *, char *, size_t *, int *) = abi::__cxa_demangle;\n"
        "void (*f)(void *) = free;\n"
        "static_assert(sizeof(enum __ptrace_request) <= sizeof(long) && sizeof(pid_t) <= sizeof(long));\n"
    )
    subprocess.run(["g++", "-std=c++17", "-fsyntax-only", tmp_path / "signatures.cc"], check=True)
