# SPDX-License-Identifier: Apache-2.0
"""Each exported file is opened by what it is for, or checked by the schema of its format."""

import csv
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import jsonschema
import junitparser
import pyarrow.parquet
import pytest

from conftest import ROOT
from foreign import SAMPLES, findings_of
from integration.test_diff import CXX, C, built, leakscope, recorded
from leakscope.errors import LeakscopeError
from leakscope.formats import read_foreign
from leakscope.judge.diff import compare, looked_at
from leakscope.model.frames import Frame
from leakscope.model.recordings import Process
from leakscope.report.export import EXPORTS, Exported, exported
from unit.report.built_findings import STACK, finding, findings, frame

SCHEMAS = ROOT / "tests/data/schemas"
DHAT_VIEWER = "/usr/libexec/valgrind/dh_view.js"


@pytest.fixture(scope="module")
def program(tmp_path_factory, agent):
    return built(tmp_path_factory.mktemp("export") / "src", C, "-g", "-O0", plant=1)


@pytest.fixture(scope="module")
def files(program):
    """Every format of one recording, and the report on it; sources are relative to its folder."""
    recording = recorded(program)
    report = program.with_suffix(".json")
    asked = [f"--export={name}={program.with_suffix('.' + name)}" for name in EXPORTS]
    done = subprocess.run(
        [sys.executable, "-m", "leakscope", "report", recording, "--json", "-o", report, *asked],
        cwd=program.parent, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = {name: program.with_suffix(f".{name}") for name in EXPORTS}
    return found | {"report": report, "recording": recording}


@pytest.fixture(scope="module")
def told(files):
    (process,) = json.loads(files["report"].read_text())["processes"]
    return process


def output(*command, **kw):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True, timeout=100, **kw
    ).stdout


def by_function(told, value):
    """Sums of a number of the findings by the innermost function."""
    sums = Counter()
    for each in told["findings"]:
        sums[each["stack"][0]["function"]] += each[value]
    return {name: size for name, size in sums.items() if size}


def test_go_tool_pprof_shows_the_same_numbers(files, told):
    for index, value in (
        ("inuse_space", "live_bytes"), ("inuse_objects", "live_count"),
        ("lost_space", "lost_bytes"), ("lost_objects", "lost_count"),
    ):  # fmt: skip
        text = output(
            "go", "tool", "pprof", "-top", "-unit=B", "-nodefraction=0",
            f"-sample_index={index}", files["pprof"],
        )  # fmt: skip
        rows = re.findall(r"^\s*(\d+)B?\s+\S+%\s+\S+%\s+\S+\s+\S+%\s+(\S+)", text, re.MULTILINE)
        flat = {name: int(size) for size, name in rows if size != "0"}
        assert flat == by_function(told, value), text
    assert "Type: inuse_space" in output("go", "tool", "pprof", "-top", files["pprof"])
    assert "planted" in output("go", "tool", "pprof", "-traces", files["pprof"])
    lines = output(
        "go", "tool", "pprof", "-list=planted", files["pprof"], cwd=files["pprof"].parent
    )
    assert "checked(500)" in lines


def test_the_program_is_what_pprof_says_was_profiled(tmp_path):
    """Its first mapping; a report of valgrind names libraries, and the program by its command."""
    library = Frame(None, function="make", module_path="/usr/lib/libstdc++.so.6")
    main = Frame(None, function="main", module_path="/work/app")
    for stack in ((library, Frame(None, function="main")), (library, main)):
        found = findings(finding(stack=stack), process=Process(pid=1, exe="/work/app"))
        path = tmp_path / "profile"
        path.write_bytes(exported("pprof", [Exported("app", found)], "/"))
        assert "File: app\n" in output("go", "tool", "pprof", "-top", path)


def test_folded_stacks_add_up(files, told):
    lines = files["folded"].read_text().splitlines()
    rows = [re.fullmatch(r"([^ ;][^;]*(?:;[^;]+)*) (\d+)", line) for line in lines]
    assert all(rows)
    assert sum(int(row[2]) for row in rows) == told["totals"]["live_bytes"]
    planted = next(row for row in rows if "planted" in row[1])
    assert planted[1].endswith("main;planted;checked")


def test_speedscope_has_its_schema(files, told):
    document = json.loads(files["speedscope"].read_text())
    jsonschema.validate(document, json.loads((SCHEMAS / "speedscope.json").read_text()))
    (profile,) = document["profiles"]
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert sum(profile["weights"]) == profile["endValue"] == told["totals"]["live_bytes"]
    assert {names[stack[-1]] for stack in profile["samples"]} == set(
        by_function(told, "live_bytes")
    )


def test_ms_print_shows_the_tree(files, told):
    text = output("ms_print", files["massif"])
    total = told["totals"]["live_bytes"]
    assert f"100.00% ({total:,}B) (heap allocation functions)" in text
    assert re.search(r"->\d+\.\d+% \(6,000B\) 0x\w+: planted \(program.c:\d+\)", text)
    (again,) = read_foreign(files["massif"])
    assert int(again.sites["live_bytes"].sum()) == total


def test_callgrind_annotate_shows_bytes(files, told):
    text = output("callgrind_annotate", "--threshold=100", files["callgrind"])
    total = told["totals"]
    assert re.search(
        rf"^{total['live_bytes']:,} \(100.0%\) +{total['live_count']:,} ", text, re.MULTILINE
    )
    rows = re.findall(r"^ *([\d,]+) \([ \d.]+%\) .* \S*:(\w+) \[", text, re.MULTILINE)
    flat = {name: int(size.replace(",", "")) for size, name in rows}
    assert flat == by_function(told, "live_bytes")
    inclusive = output("callgrind_annotate", "--inclusive=yes", files["callgrind"])
    assert re.search(r"^ *6,000 .*:planted \[", inclusive, re.MULTILINE)


def test_heaptrack_print_shows_the_leaks(files, told):
    text = output("heaptrack_print", "-f", files["heaptrack"], "-l1")
    assert f"calls to allocation functions: {told['totals']['live_count']} " in text
    assert "6.00K leaked over 12 calls" in text
    (again,) = read_foreign(files["heaptrack"])
    assert int(again.sites["live_bytes"].sum()) == told["totals"]["live_bytes"]
    assert int(again.sites["live_count"].sum()) == told["totals"]["live_count"]


def test_dhats_viewer_builds_its_tree(files, told, tmp_path):
    script = tmp_path / "view.js"
    script.write_text(
        "const fs = require('fs'), vm = require('vm');\n"
        "const context = vm.createContext({document: {}, window: {}, URLSearchParams, console,\n"
        "  text: fs.readFileSync(process.argv[2], 'utf8'), out: null});\n"
        f"const viewer = fs.readFileSync('{DHAT_VIEWER}', 'utf8');\n"
        "vm.runInContext(viewer + `;\n"
        "gSelect = {childNodes: gSelectData.map(() => ({})), selectedIndex: 0};\n"
        "gData = JSON.parse(text); buildTree();\n"
        "out = [gRoot._atTEndBytes, gRoot._atTEndBlocks, gRoot._totalBytes];`, context);\n"
        "console.log(JSON.stringify(context.out));\n"
    )
    total = told["totals"]
    shown = json.loads(output("node", script, files["dhat"]))
    assert shown == [total["live_bytes"], total["live_count"], total["live_bytes"]]
    (again,) = read_foreign(files["dhat"])
    assert int(again.sites["live_bytes"].sum()) == total["live_bytes"]


def check_sarif(document):
    """The schema, and what GitHub's code scanning asks for besides."""
    jsonschema.validate(document, json.loads((SCHEMAS / "sarif-2.1.0.json").read_text()))
    (run,) = document["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(rules) == len(set(rules))
    assert len(run["results"]) <= 5000
    prints = [tuple(each["partialFingerprints"].items()) for each in run["results"]]
    assert len(prints) == len(set(prints))
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["message"]["text"]
        (place,) = result["locations"]
        physical = place["physicalLocation"]
        uri = physical["artifactLocation"]["uri"]
        assert uri
        assert not uri.startswith(("/", "file:", ".."))
        assert physical["region"]["startLine"] >= 1
        for flow in result["codeFlows"]:
            for step in flow["threadFlows"][0]["locations"]:
                assert step["location"]["physicalLocation"]["artifactLocation"]["uri"]
    return run["results"]


def test_sarif_is_what_code_scanning_takes(files, told):
    results = check_sarif(json.loads(files["sarif"].read_text()))
    leaks = {each["stable_fingerprint"] for each in told["findings"] if each["is_leak"]}
    planted = next(each for each in results if "planted" in each["message"]["text"])
    place = planted["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "program.c", "uriBaseId": "SRCROOT"}
    assert "checked(500)" in C.splitlines()[place["region"]["startLine"] - 1]
    assert {each["partialFingerprints"]["leakscopeStack/v1"] for each in results} <= leaks
    steps = planted["codeFlows"][0]["threadFlows"][0]["locations"]
    assert steps[-1]["location"]["message"]["text"] == "checked"


def test_junit_is_read_by_a_parser_of_it(files, told):
    suites = junitparser.JUnitXml.fromfile(str(files["junit"]))
    (suite,) = suites
    assert (suite.tests, suite.failures) == (told["leak_place_count"],) * 2
    failed = [case for case in suite if case.result]
    assert any("planted" in case.result[0].text for case in failed)
    clean = exported("junit", [Exported("clean", findings())], "/")
    (suite,) = junitparser.JUnitXml.fromstring(clean)
    assert (suite.tests, suite.failures) == (1, 0)


def test_annotations_of_github_name_lines(files, told):
    lines = files["github"].read_text().splitlines()
    assert len(lines) == told["leak_place_count"]
    form = re.compile(r"::error file=[^:,]+,line=\d+,title=[^:,]+::[^\n]+")
    assert all(form.fullmatch(line) for line in lines)
    assert any(line.startswith("::error file=program.c,") for line in lines)


def test_gitlabs_code_quality(files, told):
    issues = json.loads(files["gitlab"].read_text())
    assert len(issues) == told["leak_place_count"]
    assert len({each["fingerprint"] for each in issues}) == len(issues)
    for issue in issues:
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert {"description", "check_name"} <= set(issue)
        assert not issue["location"]["path"].startswith(("/", "./"))
        assert issue["location"]["lines"]["begin"] >= 1


def test_tables_have_a_row_for_each_finding(files, told):
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text(), newline="")))
    table = pyarrow.parquet.read_table(files["parquet"]).to_pylist()
    for found in (rows, table):
        sizes = [int(row["live_bytes"]) for row in found]
        assert sizes == [each["live_bytes"] for each in told["findings"]]
        assert [row["stable_fingerprint"] for row in found] == [
            each["stable_fingerprint"] for each in told["findings"]
        ]
    assert [row["is_leak"] for row in table] == [each["is_leak"] for each in told["findings"]]


def test_flamegraph_like_readers_get_the_process_of_several(files, tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for name in "ab":
        shutil.copy(files["recording"], folder / f"{name}.leakscope")
    out = tmp_path / "out"
    leakscope("export", folder, "--to", "folded", "--leaks", "-o", out, status=0)
    lines = out.read_text().splitlines()
    assert all(re.match(r"program \(\d+\);", line) for line in lines)
    assert not any(";keep;" in line for line in lines)  # it leaks nothing


NASTY = 'evil;name\n\x1b[31m::error::%0A,"<&>\udcff\u2028 \0{} |'


def nasty():
    """Findings whose every text is hostile, and one about which nothing is known."""
    bad = frame(NASTY, f"/src/{NASTY}.c", 3, module_path=f"/opt/{NASTY}", symbol=NASTY)
    return [
        Exported(NASTY, findings(
            finding(stack=(bad, bad, *STACK), source=bad, sentence=NASTY, kind=NASTY),
            finding(stack=(), source=None, live_count=None, lost_count=None, fingerprint="1" * 16),
            finding(stack=(frame(None, address=None, module_path=None),), source=None,
                    fingerprint="2" * 16),
            headline=NASTY,
        )),
        Exported("none", findings()),
    ]  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_hostile_names_break_no_format(name, tmp_path):
    data = exported(name, nasty(), "/src")
    path = tmp_path / "file"
    path.write_bytes(data)
    if name == "pprof":
        assert "evil;name" in output("go", "tool", "pprof", "-raw", path)
    elif name in {"massif", "heaptrack", "dhat"}:
        (recording,) = read_foreign(path)
        assert int(recording.sites["live_bytes"].sum()) == 3 * 10_590_208 + 12_345_678
    elif name == "callgrind":
        assert "PROGRAM TOTALS" in output("callgrind_annotate", path)
    elif name in {"speedscope", "gitlab"}:
        json.loads(data)
    elif name == "sarif":
        results = check_sarif(json.loads(data))
        assert "\n" not in unquote(
            results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        )
    elif name == "junit":
        ET.fromstring(data)
        assert b"\x1b" not in data
    elif name == "github":
        assert all(line.startswith(b"::") for line in data.splitlines())
        assert data.count(b"\n") == len(data.splitlines())
    elif name == "csv":
        assert len(list(csv.DictReader(io.StringIO(data.decode(), newline="")))) == 3
    elif name == "parquet":
        assert pyarrow.parquet.read_table(path).num_rows == 3
    else:
        assert all(re.fullmatch(rb".+ \d+", line) for line in data.splitlines())


@pytest.mark.parametrize("name", EXPORTS)
def test_nothing_at_all_is_a_whole_file(name):
    assert isinstance(exported(name, [], "/"), bytes)
    assert isinstance(exported(name, [Exported("none", findings(live_bytes=None))], "/"), bytes)


def test_a_large_heap_is_a_file_of_bounded_size():
    many = finding(live_count=10**9, live_bytes=64 * 10**9)
    every = [Exported("big", findings(many, live_bytes=64 * 10**9))]
    data = exported("heaptrack", every, "/")
    assert len(data) < 16 << 20
    assert gzip.decompress(exported("pprof", every, "/"))


def test_cplusplus_and_a_report_that_was_written_before(agent, tmp_path):
    recording = recorded(built(tmp_path / "src", CXX, "-g", "-O2", plant=1))
    report = tmp_path / "report.json"
    leakscope("report", recording, "--json", "--no-debuginfod", "-o", report, status=1)
    results = []
    for source in (recording, report):
        out = tmp_path / "out.sarif"
        root = ["--source-root", tmp_path]
        leakscope("export", source, "--to", "sarif", "--no-debuginfod", *root, "-o", out, status=0)
        document = json.loads(out.read_text())
        results.append([
            (each["partialFingerprints"], each["locations"]) for each in check_sarif(document)
        ])  # fmt: skip
    assert results[0] == results[1]
    assert results[0][0][1][0]["physicalLocation"]["artifactLocation"]["uri"] == "src/program.cc"


def test_files_of_all_tools_are_exported_and_are_no_change_to_themselves():
    files = [path for path in sorted(SAMPLES.rglob("*")) if path.is_file()]
    seen = 0
    for path in files:
        try:
            judged = [(str(path), findings_of(each)) for each in read_foreign(path) or ()]
        except LeakscopeError:
            continue
        if not judged:
            continue
        looked = looked_at(judged)
        assert compare(looked, looked).changes == (), path
        every = [Exported(label, each) for label, each in judged]
        written = {name: exported(name, every, "/") for name in EXPORTS}
        held = sum(max(each.live_bytes or 0, sum(f.live_bytes for f in each.findings))
                   for _, each in judged)  # fmt: skip
        folded = [int(line.rsplit(b" ", 1)[1]) for line in written["folded"].splitlines()]
        assert sum(folded) == held, path
        check_sarif(json.loads(written["sarif"]))
        seen += 1
    assert seen > 60


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["missing", "--to", "csv"], "neither a process nor a file"),
        (["rubbish", "--to", "csv"], "is not a core file"),
        (["rubbish", "--to", "word"], "is none of pprof"),
        (["rubbish"], "--to"),
        (["rubbish", "--to", "csv", "-o", "rubbish"], "cannot be written as well"),
        (["rubbish", "--to", "csv", "-o", "no/where"], "there is no directory"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(arguments, why, tmp_path):
    (tmp_path / "rubbish").write_bytes(b"\0\1\2 no recording" * 99)
    done = subprocess.run(
        [sys.executable, "-m", "leakscope", "export", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_without_pyarrow_parquet_says_what_to_install(files, tmp_path):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "leakscope", "export", files["report"], "--to", "parquet", "-o",
         tmp_path / "out"],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2] / 'src'}", "PATH": "/usr/bin"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'leakscope[parquet]'" in done.stderr
    assert not (tmp_path / "out").exists()
