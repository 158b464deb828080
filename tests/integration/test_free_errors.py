# SPDX-License-Identifier: Apache-2.0
"""Wrong frees: each is told once, with its stacks, and healthy programs have none."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from allocators import NAMES, library
from integration.conftest import describe

PROGRAMS = Path(__file__).parents[1] / "programs" / "frees"
LEVELS = {"O0": ["-O0"], "O2": ["-O2", "-fomit-frame-pointer"]}
TWICE, INSIDE, INVALID = "double free", "interior free", "invalid free"


def build(folder, source, *flags, compiler=None, name=None):
    compiler = compiler or ("g++" if source.endswith(".cc") else "gcc")
    program = folder / (name or Path(source).stem)
    command = [compiler, "-g", "-w", "-pthread", *flags, PROGRAMS / source, "-o", program]
    subprocess.run([str(word) for word in command], check=True)
    return program


def errors(traced):
    return [each for process in traced.report["processes"] for each in process["free_errors"]]


def preload(name):
    return {} if name is None else {"LD_PRELOAD": str(library(name))}


def line_of(mark, source="frees.c"):
    lines = (PROGRAMS / source).read_text(encoding="utf-8").splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.endswith(f"// {mark} HERE"))


def lines(stack):
    """The marks that a stack passes, innermost first."""
    return [frame["line"] for frame in stack if frame["function"] in ("make", "first", "again")]


def valgrind_counts(*command):
    done = subprocess.run(
        ["valgrind", "-q", "--trace-children=yes", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return Counter(re.findall(r"== (Invalid free|Mismatched free|Invalid)", done.stderr))


@pytest.fixture(scope="module", params=LEVELS)
def frees(request, tmp_path_factory):
    return build(tmp_path_factory.mktemp(request.param), "frees.c", *LEVELS[request.param])


@pytest.mark.parametrize(
    ("what", "kind", "size", "offset", "first", "ending"),
    [
        ("small", TWICE, 100, None, True, -6),
        ("large", TWICE, 5000, None, True, -6),
        ("mapped", TWICE, 1 << 20, None, True, -11),
        ("accepted", TWICE, 24, None, True, 0),
        ("thread", TWICE, 100, None, True, 0),
        ("long-ago", TWICE, None, None, False, -6),
        ("interior", INSIDE, 100, 16, False, -6),
        ("far-interior", INSIDE, 3 << 20, (2 << 20) + 16, False, -6),
        ("stack", INVALID, None, None, False, -6),
        ("data", INVALID, None, None, False, -6),
        ("wild", INVALID, None, None, False, -11),
    ],
)
def test_a_wrong_free_is_told_with_its_stacks(
    trace, frees, what, kind, size, offset, first, ending
):
    plain = subprocess.run([frees, what], capture_output=True, check=False)
    traced = trace([frees, what])
    (error,) = errors(traced)
    assert (error["kind"], error["function"], error["count"]) == (kind, "free", 1)
    assert (error["block_bytes"], error["offset_bytes"]) == (size, offset), error["sentence"]
    assert lines(error["stack"]) == [line_of("AGAIN")]
    assert error["source"]["line"] == line_of("AGAIN")
    assert lines(error["first_free_stack"]) == ([line_of("FIRST")] if first else [])
    assert lines(error["allocation_stack"]) == ([line_of("MAKE")] if size else [])
    # What became of the program is what becomes of it without us.
    if what != "thread":  # one thread's list of freed blocks is not another's: by its version
        assert plain.returncode == ending
    ended = traced.program["process"]["ended"]
    if plain.returncode < 0:
        assert ended == f"killed by {'SIGABRT' if plain.returncode == -6 else 'SIGSEGV'}"
        assert error["fatal"]
    else:
        assert not error["fatal"]
    if kind == TWICE and first:
        main = [f["function"] for f in error["first_free_stack"]]
        assert ("main" in main) == (what != "thread"), main


def test_realloc_of_a_freed_block(trace, frees):
    (error,) = errors(trace([frees, "realloc"]))
    assert (error["kind"], error["function"], error["block_bytes"]) == (TWICE, "realloc", 100)
    assert error["stack"][0]["line"] == line_of("REALLOC")
    assert lines(error["first_free_stack"]) == [line_of("FIRST")]


def test_a_child_may_free_what_it_inherited(trace, frees):
    (error,) = errors(trace([frees, "child"]))
    assert (error["kind"], error["block_bytes"]) == (TWICE, 200)


def test_as_many_as_valgrind_finds(frees, trace, tmp_path):
    for what in ("small", "accepted"):
        counts = valgrind_counts(frees, what)
        assert counts["Invalid free"] == sum(e["count"] for e in errors(trace([frees, what])))
    program = build(tmp_path, "mismatched.cc")
    counts = valgrind_counts(program)
    assert counts["Mismatched free"] == len(errors(trace([program])))


WRONG = {
    ("new", "free"): 3,
    ("new[]", "free"): 3,
    ("malloc", "delete"): 1,
    ("new[]", "delete"): 1,
    ("malloc", "delete[]"): 1,
    ("new", "delete[]"): 1,
    ("new", "realloc"): 1,
}


@pytest.mark.parametrize(
    ("level", "allocator"), [("O0", None), ("O2", None), *(("O0", name) for name in NAMES)]
)
def test_each_function_against_each_other(trace, tmp_path, level, allocator):
    program = build(tmp_path, "mismatched.cc", *LEVELS[level])
    found = errors(trace([program], env=preload(allocator)))
    counts = {(e["allocated_by"], e["function"]): e["count"] for e in found}
    assert counts == WRONG
    assert {e["kind"] for e in found} == {"mismatched free"}
    sizes = {e["allocated_by"]: e["block_bytes"] for e in found}
    assert sizes == {"malloc": 40, "new": 50, "new[]": 60}
    makers = {"malloc": "take", "new": "one", "new[]": "many"}
    for each in found:
        names = [frame["function"] for frame in each["allocation_stack"]]
        maker = makers[each["allocated_by"]]
        # With optimisation the operator is jumped to, and its maker leaves no frame.
        assert any(maker in str(name) for name in names) or level == "O2", names
        assert "main" in names


@pytest.mark.parametrize("allocator", NAMES)
def test_other_allocators_are_told_by_what_was_recorded(trace, tmp_path, allocator):
    program = build(tmp_path, "frees.c", "-O0")
    for what, kind in (
        ("small", TWICE),
        ("interior", INSIDE),
        ("stack", INVALID),
        ("deep-stack", INVALID),
    ):
        found = errors(trace([program, what], env=preload(allocator)))
        assert [each["kind"] for each in found] == [kind]


def test_musl(trace, tmp_path):
    program = build(tmp_path, "frees.c", "-O1", compiler="musl-gcc")
    for what, kind in (("small", TWICE), ("interior", INSIDE), ("stack", INVALID)):
        traced = trace([program, what])
        assert [each["kind"] for each in errors(traced)] == [kind], describe(traced)


def test_sampled_what_was_not_recorded_is_no_evidence(trace, tmp_path, frees):
    assert errors(trace([frees, "small"], options=["--sample", "1GiB"])) == []
    program = build(tmp_path, "mismatched.cc")
    found = errors(trace([program], options=["--sample", "1"]))
    assert {(e["allocated_by"], e["function"]): e["count"] for e in found} == WRONG


def test_the_allocators_marks_are_evidence_without_a_record(trace, frees):
    (error,) = errors(trace([frees, "small"], options=["--min-size", "1000"]))
    assert (error["kind"], error["allocated_by"]) == (TWICE, None)
    assert "where it was freed first is not known" in error["sentence"]


def test_the_exit_status_is_asked_for(leakscope, frees, tmp_path):
    recording = tmp_path / "r.leakscope"
    leakscope("run", "-o", recording, "--", frees, "interior")
    text = leakscope("report", recording)
    assert text.returncode == 0 or "leak" in text.stdout
    assert "Wrong frees: 1 interior free; the program ended in one" in text.stdout
    assert "nothing to mend" not in text.stdout
    assert "Next: mend the errors below; " in text.stdout
    assert "An address 16 bytes into a block of 100 bytes was freed with free." in text.stdout
    assert leakscope("report", "--fail-on", "errors", recording).returncode == 1
    clean = tmp_path / "clean.leakscope"
    leakscope("run", "-o", clean, "--", "true")
    assert leakscope("report", "--fail-on", "errors", clean).returncode == 0


# ---- healthy programs


HEALTHY = {
    "usual": ("-O0",),
    "optimised": ("-O2",),
    "own": ("-O1", "-DOWN"),
    "own-delete": ("-O2", "-DOWN_DELETE"),
    "static": ("-O2", "-static-libstdc++"),
}


@pytest.mark.parametrize("flags", HEALTHY.values(), ids=HEALTHY)
def test_healthy_cpp_programs(trace, tmp_path, flags):
    program = build(tmp_path, "healthy.cc", *flags)
    for allocator in (None, *NAMES):
        traced = trace([program], env=preload(allocator))
        assert errors(traced) == [], allocator
        assert not any(
            "may have been wrong" in note for p in traced.report["processes"] for note in p["notes"]
        )


@pytest.mark.parametrize("strip", [(), ("-s",)], ids=["symbols", "stripped"])
@pytest.mark.parametrize("static", [(), ("-static-libstdc++",)], ids=["shared", "static"])
def test_operators_of_a_plugin_beside_those_of_the_library(trace, tmp_path, strip, static):
    shared = ("-O2", "-shared", "-fPIC", "-Wl,-Bsymbolic")
    plugin = build(tmp_path, "plugin.cc", *shared, *strip, name="plugin.so")
    flags = ("-O2", *strip, *static, f'-DPLUGIN="{plugin}"')
    assert errors(trace([build(tmp_path, "healthy.cc", *flags)])) == []


@pytest.mark.parametrize(
    "command",
    [
        ["perl", "-e", "%h = map { $_ => 'x' x ($_ % 100) } 1 .. 20000; print scalar(%h)"],
        [sys.executable, "-c", "import json, re, sqlite3, ctypes; json.dumps(list(range(9999)))"],
        ["git", "-C", Path(__file__).parents[2], "log", "--oneline", "-n", "20"],
        ["g++", "-O1", "-c", PROGRAMS / "mismatched.cc", "-o", "/dev/null"],
        ["bash", "-c", "for i in 1 2 3; do ls / | sort | head -2; (echo $i); done"],
    ],
    ids=lambda command: Path(command[0]).name,
)
def test_healthy_programs(trace, command):
    assert shutil.which(str(command[0])), command
    traced = trace(command, env={"PYTHONMALLOC": "malloc"})
    assert traced.report["processes"]
    assert errors(traced) == []
