# SPDX-License-Identifier: Apache-2.0
"""Heap dumps of real virtual machines: planted leaks by name, healthy programs, and the judges."""

import re
import subprocess
from collections import Counter

import numpy as np
import pytest

from java_dumps import JVM, ORACLE_JAR, PROGRAMS, Program, environment, java_classes, validated
from leakscope.cli import main
from leakscope.java._core import NONE
from leakscope.java._names import plain_name
from leakscope.java.attach import jcmd
from leakscope.java.dump import open_heap, visualvm_rules
from leakscope.java.machines import find_machine

# Virtual machines are found by name: those of two workers would be taken for one another.
pytestmark = pytest.mark.xdist_group("java")

LEAKS = {
    "static": (1500, "place", "Leaks.SESSIONS", "a static collection that is never emptied"),
    "list": (1500, "place", "Leaks.QUEUE", "a static collection that is never emptied"),
    "buffers": (1500, "place", "Leaks.KEPT", "a static collection that is never emptied"),
    "listeners": (1500, "place", "Leaks.MODEL.listeners", "listeners that are not removed"),
    "local": (1500, "place", "java.lang.Thread … java.lang.Object[]", "a variable of a thread that runs"),
    "threadlocal": (800, "place", "java.lang.Thread … java.lang.Object[]", "thread locals that are not removed"),
    "classloader": (20, "place", "Leaks.PLUGINS", "class loaders that are not let go"),
    "strings": (3000, "place", "Leaks.NAMES", "a pool of strings that only grows"),
    "streams": (60, "pattern", "open java.io.FileInputStream", "streams that are not closed"),
    "finalizer": (400, "pattern", "objects to be finalized", "objects that wait for their finalizer"),
    "direct": (40, "pattern", "direct buffers", "direct buffers"),
}  # fmt: skip
HEALTHY = {"soft": 1500, "warmup": 2000, "bounded": 1500, "churn": 3000}


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return java_classes(tmp_path_factory.mktemp("classes"))


def dumped(classes, kind, count, folder, times=4):
    with Program(classes, kind, env=environment()) as program:
        return [str(program.dump(folder / f"{n}.hprof", count, n)) for n in range(times)]


def report(capsys, *arguments):
    status = main(["report", *arguments])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("kind", LEAKS)
def test_a_planted_leak_is_named(classes, kind, tmp_path, capsys):
    count, subject, name, pattern = LEAKS[kind]
    files = dumped(classes, kind, count, tmp_path, 3)
    status, out = report(capsys, *files, "--json")
    found = validated(out)
    assert status == 1
    assert found["verdict"] == "leaking"
    first = next(one for one in found["grown"] if one["subject"] == subject)
    assert (first["name"], first["verdict"], first["pattern"]) == (name, "leaking", pattern)
    assert first["counts"] == sorted(first["counts"])
    # One dump alone: the same as a suspicion, and no verdict.
    status, out = report(capsys, files[-1])
    assert status == 3
    said = " ".join(out.split())
    assert pattern in said
    assert "no verdict" in said


@pytest.mark.parametrize("kind", HEALTHY)
def test_what_looks_like_a_leak_and_is_none(classes, kind, tmp_path, capsys):
    files = dumped(classes, kind, HEALTHY[kind], tmp_path)
    status, out = report(capsys, *files)
    assert status == 0, out
    assert "leaking" not in out
    if kind == "soft":
        assert "given back when memory is short" in " ".join(out.split())


def test_two_dumps_are_no_proof(classes, tmp_path, capsys):
    files = dumped(classes, "static", 1500, tmp_path, 2)
    status, out = report(capsys, *files)
    assert status == 3
    assert "growing" in out.splitlines()[0]
    assert report(capsys, *files, "--fail-on", "growth")[0] == 1


@pytest.fixture(scope="module")
def large(classes, tmp_path_factory):
    """A dump with threads, listeners and garbage, with the class histogram at its time."""
    path = tmp_path_factory.mktemp("large") / "d.hprof"
    with Program(classes, "threadlocal", env=environment()) as program:
        program.grow(2000)
        machine = find_machine(program.pid)
        jcmd(machine, "GC.class_histogram")
        histogram = jcmd(machine, "GC.class_histogram")
        jcmd(machine, f"GC.heap_dump {path}")
        jcmd(machine, f"GC.heap_dump -gz=1 {path}.gz")
    return path, histogram


def test_sizes_are_those_of_the_virtual_machine(large):
    """But for classes, and the two or three objects of threads, which have more than is told."""
    path, histogram = large
    told = {
        plain_name(name): (int(count), int(size))
        for count, size, name in re.findall(
            r"^\s*\d+:\s+(\d+)\s+(\d+)\s+(\S+)", histogram, re.MULTILINE
        )
    }
    counts, sizes = Counter(), Counter()
    with open_heap(path) as dump:
        for number in range(len(dump.objects)):
            counts[dump.class_name(number)] += 1
            sizes[dump.class_name(number)] += dump.size(number)
    same = [name for name, (count, _) in told.items() if counts[name] == count]
    assert len(same) > 200
    wrong = {name for name in same if told[name][1] != sizes[name]}
    wrong -= {"java.lang.Class"}
    assert all(told[name][0] < 3 for name in wrong), wrong
    assert sizes["Leaks$Session"] == told["Leaks$Session"][1] > 0


def test_a_dump_that_the_virtual_machine_packed_says_the_same(large, capsys):
    path, _ = large
    first, second = (validated(report(capsys, str(p), "--json")[1]) for p in (path, f"{path}.gz"))
    for each in (first, second):
        each["places"] = [p["key"] for p in each["places"]]
        assert each["suspects"][0]["pattern"] == "thread locals that are not removed"
    assert first["objects"] - second["objects"] in range(-200, 200)
    assert first["places"][0] == second["places"][0]


@pytest.mark.timeout(200)
def test_retained_sizes_are_those_of_visualvm(large, tmp_path):
    """Object for object. Its library adds a reference from the first instance that it meets to a
    class that is no root; what has such a class below it may differ, and nothing else."""
    if not ORACLE_JAR.exists():
        pytest.skip("visualvm is not installed; tools/setup-debian --test does it")
    path, _ = large
    subprocess.run(
        ["javac", "-cp", ORACLE_JAR, "-d", tmp_path, PROGRAMS / "Oracle.java"], check=True
    )
    done = subprocess.run(
        ["java", *JVM[1:], "-Xmx256m", "-cp", f"{ORACLE_JAR}:{tmp_path}", "Oracle", path],
        capture_output=True, text=True, check=True, timeout=150,
    )  # fmt: skip
    told = {}
    for line in done.stdout.splitlines():
        address, size, retained, _ = line.split(" ", 3)
        told[int(address, 16)] = (int(size), int(retained))
    with open_heap(path, visualvm_rules(8)) as dump:
        loose = np.zeros(len(dump.objects), bool)  # above a class that is no root
        for index in range(len(dump.classes)):
            number = int(dump.classes["number"][index])
            while number != NONE and not loose[number]:
                loose[number] = True
                number = int(dump.idom[number])
        compared = wrong = 0
        for number, address in enumerate(dump.objects["id"].tolist()):
            if address not in told or loose[number]:
                continue
            compared += 1
            wrong += told[address] != (dump.size(number), dump.retained(number))
    assert compared > 0.99 * len(told) > 20_000
    assert wrong == 0
