# SPDX-License-Identifier: Apache-2.0
"""`compare`: what leakscope and another tool say of one program, and why they differ."""

import json
import subprocess

import pytest

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static void *kept, *mapped;
static void __attribute__((noinline)) lose(void) {
    for (int i = 0; i < 3; i++) { char *volatile p = malloc(100); p[0] = 1; }
}
static void __attribute__((noinline)) keep(void) { kept = malloc(70000); }
static void __attribute__((noinline)) map(void) {
    mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(mapped, 1, 1 << 20);
}
static void __attribute__((noinline)) clear(void) {
    volatile char room[4096];
    for (unsigned i = 0; i < sizeof room; i++) room[i] = 0;
}
int main(int argc, char **argv) {
    char line[100] = "";
    if (fgets(line, sizeof line, stdin)) puts(line);
    keep(); map(); clear();
    if (argc < 3) lose();
    clear();
    return argc > 1 ? atoi(argv[1]) : 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    (folder / "c.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-g", "-O0", "-o", folder / "c", folder / "c.c"], check=True)
    return folder / "c"


@pytest.fixture
def compared(leakscope, program, tmp_path):
    def run(tool, *arguments, **how):
        report = tmp_path / "report.json"
        done = leakscope(
            *("compare", "--with", tool, "--json", "--report-file", report, "--no-debuginfod"),
            *("--", program, *arguments),
            cwd=tmp_path,
            **how,
        )
        assert [path.name for path in tmp_path.iterdir() if path != report and path.suffix] == []
        done.document = json.loads(report.read_text())
        done.places = {row["place"].split("  ")[0]: row for row in done.document["places"]}
        return done

    return run


@pytest.mark.parametrize(
    ("tool", "keep", "lose"),
    [
        ("valgrind", ("retained", 70000, 1), ("lost", 300, 3)),
        ("lsan", None, ("lost", 300, 3)),
        ("dhat", ("held", 70000, 1), ("held", 300, 3)),
        ("massif", ("held", 70000, None), ("held", 300, None)),
        ("mtrace", ("held", 70000, 1), ("held", 300, 3)),
        ("jemalloc", ("held", 81920, 1), ("held", 336, 3)),
    ],
)
def test_places_are_side_by_side(tool, keep, lose, compared):
    done = compared(tool)
    assert done.returncode == 1, done.stderr
    for function, wanted, ours in (("keep", keep, 70000), ("lose", lose, 300)):
        row = done.places[function]
        assert row["leakscope"]["bytes"] == ours
        told = row["tool"] and tuple(row["tool"][key] for key in ("verdict", "bytes", "count"))
        assert told == wanted
        assert row["agree"] == (wanted is not None or tool == "lsan"), row
        assert row["matched_by"] == ("function" if tool == "mtrace" and wanted else "stack")
    assert done.places["lose"]["leakscope"]["verdict"] == "lost"
    assert "mappings" in done.places["map"]["why"]
    if tool == "lsan":
        assert done.places["keep"]["why"] == "lsan lists only what is lost"


def test_the_text_says_where_they_differ_first(leakscope, program, tmp_path):
    done = leakscope("compare", "--with", "dmalloc", "--no-debuginfod", "--", program, cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "leakscope: leakscope and dmalloc differ on 3 places, and agree on 1" in lines
    assert "1. (no call stack)" in lines
    assert "3. lose  c.c:8" in lines
    at = lines.index("3. lose  c.c:8")
    assert lines[at + 1 : at + 3] == [
        "   leakscope  lost, 300 B in 3 blocks",
        "   dmalloc    nothing",
    ]
    assert "dmalloc has blocks without a place" in lines[at + 3]
    assert at < lines.index("Agreed:")
    assert list(tmp_path.iterdir()) == []


def test_both_runs_get_the_same_input(program, compared, tmp_path):
    (tmp_path / "input").write_text("hello\n")
    with (tmp_path / "input").open() as file:
        done = compared("lsan", stdin=file)
    assert done.stdout.split() == ["hello", "hello"]


def test_the_status_of_the_program_is_kept_without_leaks(program, compared):
    assert compared("valgrind", "7", "without").returncode == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--",), "there is no program to run"),
        (("--with", "nothing", "--", "true"), "there is no tool 'nothing'"),
        (("--with", "memwatch", "--", "true"), "compiled into a program"),
        (("--", "./missing"), "there is no program ./missing"),
    ],
)
def test_what_cannot_be_is_said_at_once(arguments, said, leakscope, tmp_path):
    done = leakscope("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
