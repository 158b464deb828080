# SPDX-License-Identifier: Apache-2.0
"""`leakscope.diff` and `leakscope.export` beside the commands of that name."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import leakscope
from conftest import ROOT

SOURCE = """
#include <stdlib.h>
#include <string.h>
static void lose(int bytes) { char *volatile lost = malloc(bytes); memset(lost, 1, bytes); }
static void once(void) { lose(50); }
static void often(void) { for (int i = 0; i < 100; i++) lose(1000); }
int main(int argc, char **argv) {
  once();
  if (argc > 1) often();
  return 0;
}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, agent):
    folder = tmp_path_factory.mktemp("sides")
    (folder / "sides.c").write_text(SOURCE)
    program = folder / "sides"
    subprocess.run(
        ["gcc", "-g", "-O1", "-fno-inline", folder / "sides.c", "-o", program], check=True
    )
    return [
        leakscope.run([program, *more], output=folder / name)
        for name, more in (("old.leakscope", []), ("new.leakscope", ["more"]))
    ]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, arguments)],
        capture_output=True, check=False,
    )  # fmt: skip


def test_what_is_new_is_told_whatever_the_sides_are_given_as(runs):
    old, new = runs
    paths = [str(run.files[0]) for run in runs]
    whole = leakscope.diff(*paths)
    assert [(each.change, each.bytes, each.source.function) for each in whole.worse] == [
        ("new", 100_000, "lose")
    ]
    assert [each.stack[1].function for each in whole.worse] == ["often"]
    for before, after in (
        (old, new),
        (old.findings, new.findings[0]),
        (old.recordings[0], Path(paths[1])),
        ([paths[0]], (new,)),
    ):
        got = leakscope.diff(before, after)
        assert [(each.change, each.bytes) for each in got.changes] == [
            (each.change, each.bytes) for each in whole.changes
        ]
    assert leakscope.diff(old, old).worse == ()
    assert [each.change for each in leakscope.diff(new, old).changes] == ["gone"]
    assert leakscope.diff([old, old], old).worse == ()


def test_report_and_document_are_those_of_the_command(runs):
    paths = [run.files[0] for run in runs]
    got = leakscope.diff(*paths)
    assert got.report() == command("diff", *paths).stdout.decode()
    assert got.to_dict() == json.loads(command("diff", "--json", *paths).stdout)
    schema = json.loads((ROOT / "docs/reference/json-schema/leakscope-diff-1.json").read_text())
    jsonschema.validate(got.to_dict(), schema)


def test_growth_within_the_tolerance_is_no_change(runs):
    old = runs[0]
    twice = leakscope.diff(old, [old, old])
    assert [each.change for each in twice.changes] == ["grown"]
    assert leakscope.diff(old, [old, old], tolerance=1.0).worse == ()


@pytest.mark.parametrize("to", ["pprof", "folded", "sarif", "csv", "massif"])
def test_an_export_is_that_of_the_command(runs, to, monkeypatch):
    new = runs[1]
    monkeypatch.chdir(new.files[0].parent)
    path = new.files[0].name
    wanted = command("export", "--to", to, path).stdout
    assert leakscope.export(path, to) == wanted != b""
    assert b"often" in leakscope.export(new, "folded", leaks=True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda old: leakscope.diff(old, 7), "after is int; it must be"),
        (lambda old: leakscope.diff(old, old, tolerance="much"), "tolerance is 'much'"),
        (lambda old: leakscope.diff(old, old, tolerance=-1), "tolerance is -1"),
        (lambda old: leakscope.diff(old, "/nowhere"), "/nowhere"),
        (lambda old: leakscope.export(old, "pdf"), "to is 'pdf'; it must be one of"),
        (lambda old: leakscope.export(None, "csv"), "the first argument is NoneType"),
    ],
)
def test_what_is_no_side_is_refused(runs, call, said):
    with pytest.raises(leakscope.LeakscopeError, match=said):
        call(runs[0])
