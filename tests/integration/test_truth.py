# SPDX-License-Identifier: Apache-2.0
"""What is said of a program must be so: programs that 0.1 called leaking, or clean, and were not."""

import json
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Traced, describe, place

PROGRAMS = Path(__file__).parents[1] / "programs"
LEVELS = {"O0": ("-O0",), "O2": ("-O2", "-fno-builtin-malloc")}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Build a program of tests/programs at a level, once."""
    folder = tmp_path_factory.mktemp("truth")

    def run(source: str, level: str) -> Path:
        program = folder / f"{Path(source).stem}-{level}"
        if not program.exists():
            command = ["gcc", "-g", "-w", *LEVELS[level], str(PROGRAMS / source), "-o", program]
            subprocess.run(command, check=True)
        return program

    return run


@pytest.fixture(params=LEVELS)
def program(request, build) -> Callable[[str], Path]:
    return lambda source: build(source, request.param)


def at(traced: Traced, line: tuple[str, int]) -> dict:
    (found,) = (each for each in traced.findings if place(each) == line)
    return found


def is_calm(traced: Traced) -> bool:
    """No leak, exit 0, and nothing said that only a leak is said of."""
    sure = {each["confidence_words"] for each in traced.leaks}
    return traced.returncode == 0 and not traced.leaks and "almost certain" not in sure


@pytest.mark.parametrize("seconds", ["0.4", "2"])
def test_a_job_that_loads_works_and_ends_is_calm(seconds, program, trace):
    traced = trace([program("cases/batch_job/batch.c"), seconds])

    assert is_calm(traced), describe(traced)
    for each in traced.findings:
        assert each["pattern"] != "implicit growth", describe(traced)
        assert each["verdict"] not in {"leaking", "lost"}, describe(traced)


@pytest.mark.parametrize("times", [("1000", "1000"), ("300", "900"), ("150", "2000")])
def test_a_table_that_is_filled_and_kept_is_calm(times, program, trace):
    traced = trace([program("cases/plateau_freed/plateau.c"), *times])

    assert is_calm(traced), describe(traced)
    # It does not grow at the end either, however late the machine let it begin to serve.
    assert {each["verdict"] for each in traced.findings} <= {"one-off", "warm-up"}, describe(traced)


def test_the_bytes_of_a_leak_are_those_of_its_lost_blocks(program, trace, leakscope):
    traced = trace([program("cases/partly_lost/hash_leak.c")])

    found = at(traced, ("hash_leak.c", 5))
    assert (found["lost_count"], found["lost_bytes"], found["live_count"]) == (7, 16256, 8)
    assert found["leak_bytes"] == 16256
    assert "15.9 KiB" in traced.program["headline"]
    text = leakscope("report", "--no-debuginfod", *traced.recordings).stdout
    assert "1 place leaks 15.9 KiB" in text
    assert "15.9 KiB in 7 blocks, of 31.9 KiB in 8" in text
    assert "leaks 31.9" not in text


def test_one_block_that_grows_for_ever_is_growth(program, trace, leakscope):
    traced = trace([program("cases/one_block_grows/rlin.c"), "2"])

    found = at(traced, ("rlin.c", 7))
    assert found["verdict"] == "growing", describe(traced)
    assert found["growth_bytes_per_s"] > 0
    assert traced.returncode == 0
    text = leakscope("report", "--no-debuginfod", *traced.recordings).stdout
    assert "1 place grew until the end" in text
    assert "rlin.c:7" in text


def test_what_is_usual_does_not_excuse_what_is_proven(program, trace):
    traced = trace([program("cases/few_calls/gai.c"), "a", "4"])

    found = at(traced, ("gai.c", 11))
    assert (found["verdict"], found["lost_bytes"], found["lost_count"]) == ("lost", 256, 4)
    assert found["is_leak"]
    assert "resolve" in found["source"]["function"]
    assert traced.returncode == 1


def test_few_samples_are_no_verdict(program, trace):
    traced = trace([program("cases/sampled_few/parse.c")], options=["--sample", "64MiB"])

    assert traced.program["verdict"] == "unknown", describe(traced)
    assert traced.returncode == 3
    headline = traced.program["headline"]
    assert "not enough data" in headline
    assert "sample was" in headline
    assert "--sample" in headline
    enough = trace([program("cases/sampled_few/parse.c")], options=["--sample", "2KiB"])
    assert {place(each) for each in enough.leaks} == {("parse.c", 10)}, describe(enough)


def test_a_few_lost_samples_are_not_almost_certain(program, trace):
    traced = trace([program("cases/sampled_few/few_lost.c")], options=["--sample", "512KiB"])

    assert traced.program["totals"]["allocation_count"] > 0
    for each in traced.findings:
        assert each["confidence_words"] != "almost certain", describe(traced)
        assert "Allocated" not in each["sentence"]  # of all that a sample stands for


def test_where_most_addresses_have_another_form_the_rest_is_no_sure_loss(program, trace):
    traced = trace([program("cases/hidden/far.c")])

    (found,) = traced.findings
    assert found["live_count"] == 200
    assert found["confidence_words"] == "possible", describe(traced)


def test_what_is_possibly_lost_is_not_said_to_be_in_use(program, trace):
    traced = trace([program("cases/hidden/header.c")])

    (found,) = traced.findings
    assert (found["is_leak"], found["live_bytes"]) == (False, 9800)
    assert "so they may be lost" in found["sentence"]
    assert "in use" not in found["sentence"]
    assert "9.6 KiB possibly lost" in traced.program["headline"]
    assert "9.6 KiB may be lost" in " ".join(traced.program["notes"])


def test_a_program_that_dies_young_gets_the_same_answer_each_time(program, trace, tmp_path):
    dying = program("cases/dies_young/k.c")
    answers = set()
    for _ in range(5):
        traced = trace([dying])
        found = at(traced, ("k.c", 4))
        answers.add((found["verdict"], found["allocation_count"], traced.program["headline"]))
        for each in traced.recordings:
            each.unlink()
    assert len(answers) == 1, answers
    ((verdict, count, _),) = answers
    assert (verdict, count) == ("unknown", 5000)


@pytest.mark.parametrize("level", ["O2"])  # the calls of -O0 take a second more, and the same paths
def test_a_loss_at_a_place_met_after_the_table_was_full_is_told(level, trace, tmp_path):
    # Half of its paths fill the table as well, and half a million allocations take their time.
    text = (PROGRAMS / "harm" / "lateleak.c").read_text()
    assert "n=1500000" in text
    (tmp_path / "lateleak.c").write_text(text.replace("n=1500000", "n=700000"))
    program = tmp_path / "lateleak"
    subprocess.run(
        ["gcc", "-g", "-w", *LEVELS[level], tmp_path / "lateleak.c", "-o", program], check=True
    )

    traced = trace([program])

    (found,) = traced.leaks
    assert found["stack"] == []
    assert found["lost_count"] >= 398, describe(traced)
    assert found["lost_bytes"] == found["lost_count"] * 4096
    assert traced.program["verdict"] == "lost"
    assert traced.returncode == 1


def test_a_program_that_idled_until_it_was_killed_ran_for_so_long(program, trace):
    began = time.monotonic()
    traced = trace(["timeout", "-s", "KILL", "5", program("harm/busyidle.c")])
    took = time.monotonic() - began

    (process,) = (p for p in traced.report["processes"] if "busyidle" in p["recording"])
    seconds = process["totals"]["duration_ns"] / 1e9
    assert 4.0 < seconds <= took, describe(traced)
    (found,) = (each for each in process["findings"] if each["allocation_count"] == 400)
    assert place(found) == ("busyidle.c", 5)
    assert found["growth_bytes_per_s"] == pytest.approx(400_000 / seconds, rel=0.1)


# -- real programs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large inputs: tens of thousands of rows each."""
    folder, dice = tmp_path_factory.mktemp("inputs"), random.Random(1)
    rows = [
        {"id": i, "name": f"row {i}", "tags": [str(j) for j in range(i % 7)]} for i in range(40_000)
    ]
    (folder / "big.json").write_text(json.dumps(rows))
    lines = [f"key{dice.randrange(10**6)} value{i} {dice.random():f}" for i in range(120_000)]
    (folder / "big.txt").write_text("\n".join(lines))
    cells = "".join(f"<row id='{i}'><name>row {i}</name></row>" for i in range(60_000))
    (folder / "big.xml").write_text(f"<r>{cells}</r>")
    inserts = "".join(f"insert into t values({i},'name {i}');" for i in range(60_000))
    (folder / "big.sql").write_text(
        f"create table t(a,b);begin;{inserts}commit;select count(*) from t;"
    )
    (folder / "big.tcl").write_text(
        "set f [open big.txt]\nwhile {[gets $f line] >= 0} {\nset p [split $line]\n"
        "set a([lindex $p 0]) [lindex $p 1]\nlappend l $line\n}\nputs [array size a]\n"
    )
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["jq", "map(.name)|unique|length", "big.json"],
        ["gawk", "{a[$1]=$2; l[n++]=$0} END {print length(a)}", "big.txt"],
        ["gawk", "{l[n++]=$0} END {asort(l); for (i in l) s+=length(l[i]); print s}", "big.txt"],
        ["xmllint", "--format", "--output", "/dev/null", "big.xml"],
        ["tclsh", "big.tcl"],
        ["perl", "-ne", "@f=split; $a{$f[0]}=$f[1]; push @l,$_; END{print scalar(@l)}", "big.txt"],
        ["perl", "-e", 'open F,"big.txt"; while(<F>){@f=split; push @{$h{$f[0]}},[@f];}'],
        ["sqlite3", ":memory:", ".read big.sql"],
    ],
    ids=["jq", "gawk", "gawk-sort", "xmllint", "tclsh", "perl", "perl-tree", "sqlite3"],
)  # fmt: skip
def test_real_jobs_on_large_inputs_are_calm(command, inputs, trace):
    traced = trace(command, cwd=inputs)

    assert traced.program["process"]["exit_status"] == 0, traced.stderr
    assert is_calm(traced), describe(traced)


def test_a_child_that_lives_for_a_moment_is_examined(program, trace):
    traced = trace([program("cases/short_child/forkleak.c")])
    assert traced.returncode == 1, describe(traced)
    assert [(f["verdict"], f["lost_count"], f["lost_bytes"]) for f in traced.leaks] == [
        ("lost", 30, 3000)
    ]


def test_children_that_are_not_examined_are_counted(tmp_path, trace):
    (tmp_path / "storm.c").write_text(
        "#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n"
        "int main(void) { for (int i = 0; i < 400; i++) {\n"
        "  if (!fork()) { char *volatile p = malloc(100); p = 0; exit(0); } wait(0); } }"
    )
    subprocess.run(["gcc", "-O0", tmp_path / "storm.c", "-o", tmp_path / "storm"], check=True)
    traced = trace([tmp_path / "storm"])
    found = re.search(r"(\d+) process\(es\) not scanned: children that lived", traced.stderr)
    examined = sum(f["verdict"] == "lost" for f in traced.leaks)
    assert examined + (int(found[1]) if found else 0) == 400, traced.stderr
