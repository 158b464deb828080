# SPDX-License-Identifier: Apache-2.0
"""The gate of CI: what was there before passes, what is new or grown does not, on real builds."""

import json
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zlib

import jsonschema
import pytest

from conftest import ROOT
from integration.test_diff import CXX, MOVED, C, built, leakscope, recorded
from integration.test_schemas import schema_of

LEAKSCOPE = [sys.executable, "-m", "leakscope"]
PAGE = (ROOT / "docs/how-to/ci.md").read_text()


@pytest.fixture(scope="module")
def recording(tmp_path_factory, agent):
    """Of the program in which nothing is planted."""
    return recorded(built(tmp_path_factory.mktemp("gate") / "old", C, "-g", "-O0"))


@pytest.fixture(scope="module")
def baseline(recording):
    path = recording.with_name("leaks.json")
    leakscope("baseline", recording, "-o", path, status=0)
    return path


def test_a_baseline_has_its_schema_and_no_numbers_that_differ_each_time(baseline, recording):
    document = json.loads(baseline.read_text())
    jsonschema.validate(document, schema_of(document))
    again = recorded(recording.with_suffix(""))
    assert leakscope("baseline", again, status=0).stdout == baseline.read_text()


@pytest.mark.parametrize("plant", [0, 1, 2, 3])
def test_only_what_is_new_or_grown_fails(plant, baseline, tmp_path):
    program = built(tmp_path / "new", MOVED + C, "-g", "-O0", plant=plant)
    run = ["run", "-q", "--json", "--report-file", tmp_path / "report.json", "-o", tmp_path / "r"]
    leaks = plant in {1, 3}

    done = leakscope(*run, "--baseline", baseline, "--", program, status=1 if leaks else 0)
    document = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(document, schema_of(document))
    (process,) = document["processes"]
    changes = {(each["change"], each["source"]["function"]) for each in process["findings"]}
    expected = {1: ("new", "planted"), 2: ("grown", "keep"), 3: ("grown", "record")}
    assert {each for each in changes if each[0]} == ({expected[plant]} if plant else set())
    assert process["leak_place_count"] == leaks, done.stderr
    # What only holds more fails when that is asked for.
    leakscope(
        "report", tmp_path / "r", "--baseline", baseline, "--fail-on", "new,grown",
        status=1 if plant else 0,
    )  # fmt: skip


def test_a_json_report_is_a_baseline_as_well(recording, tmp_path):
    report = tmp_path / "report.json"
    leakscope("report", recording, "--json", "-o", report, status=1)

    text = leakscope("report", recording, "--baseline", report, status=0).stdout
    assert text.startswith("leakscope: no other leak found; 4 known places leak")
    assert "0 stacks new, 0 grown" in " ".join(text.split())


def test_a_budget_lets_pass_what_is_within_and_nothing_more(recording):
    within = ["--budget", "main=64KiB"]
    text = leakscope("report", recording, *within, "--all", status=0).stdout
    assert "Quiet, within the budget of 64.0 KiB for main" in text

    text = leakscope("report", recording, *within, "--budget", "record=1KiB", status=1).stdout
    text = " ".join(text.split())
    assert "over budget: record holds 5.3 KiB and may hold 1.0 KiB" in text
    # What leaks nothing can hold too much.
    text = leakscope("report", recording, *within, "--budget", "keep=1KiB", status=1).stdout
    assert "raise the budget, or hold less in keep" in text
    leakscope("report", recording, *within, "--budget", "program.c:33=1KiB", status=0)
    done = leakscope("report", recording, "--budget", "keep", status=2)
    assert "WHAT=SIZE" in done.stderr


@pytest.mark.parametrize("syntax", ["lsan", "valgrind"])
def test_a_suppression_hides_its_leak_and_says_what(syntax, recording, tmp_path):
    path = tmp_path / "app.supp"
    for number, until in (("1", "2999-01-01"), ("2", "2020-02-29")):
        leakscope(
            "suppress", recording, "--finding", number, "--syntax", syntax, "--until", until,
            "--why", "ticket 42", "-o", path, status=0,
        )  # fmt: skip
    text = path.read_text()
    assert text.count("# until:") == text.count("ticket 42") == (2 if syntax == "lsan" else 3)

    text = leakscope("report", recording, "--suppressions", path, status=1).stdout
    flat = " ".join(text.split())
    hidden = re.findall(r"hid \S+ \S+ in (\d+) blocks at \d sites?, until 2999-01-01", flat)
    assert sum(map(int, hidden)) == 80
    assert re.search(r"Expired: .* was to hold until 2020-02-29 \(ticket 42\): it no longer", flat)
    assert "in through" in flat
    assert "in record" not in flat


@pytest.mark.parametrize(("text", "level"), [(C, "-O0"), (CXX, "-O0"), (CXX, "-O2")])
def test_suppressions_are_read_by_the_tools_whose_syntax_it_is(text, level, tmp_path, agent):
    program = built(tmp_path / "src", text, "-g", level)
    recording = recorded(program)
    for syntax in ("lsan", "valgrind"):
        leakscope("suppress", recording, "--syntax", syntax, "-o", tmp_path / syntax, status=0)
    done = subprocess.run(
        ["valgrind", "-q", "--leak-check=full", "--error-exitcode=9",
         f"--suppressions={tmp_path / 'valgrind'}", program],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    checked = built(tmp_path / "asan", text, "-g", level, "-fsanitize=address")
    done = subprocess.run(
        [checked], capture_output=True, text=True, check=False, timeout=100,
        env={"LSAN_OPTIONS": f"suppressions={tmp_path / 'lsan'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Suppressions used" in done.stderr


def test_a_suppression_that_hides_more_than_it_is_for_says_so(tmp_path, agent):
    text = """
    #include <stdlib.h>
    static void *volatile sink;
    __attribute__((noinline)) static void inner(void) { sink = malloc(70); }
    int main(void) {
      for (int i = 0; i < 9; i++) { sink = malloc(500); inner(); }
      sink = 0;
      return 0;
    }"""
    recording = recorded(built(tmp_path / "src", text, "-g"))

    done = leakscope("suppress", recording, "--finding", "1", status=0)
    assert done.stdout.endswith("leak:^main$\n")
    assert "leak:^main$ also hides 1 other leak (630 B)" in done.stderr
    assert leakscope("suppress", recording, "--finding", "1", "--syntax", "valgrind").stderr == ""


@pytest.mark.parametrize("verb", ["suppress", "baseline", "export"])
def test_of_several_of_which_one_cannot_be_read_nothing_is_written(verb, recording, tmp_path):
    options = ["--to", "csv"] if verb == "export" else []
    broken = tmp_path / "broken.leakscope"
    broken.write_bytes(recording.read_bytes()[:900])

    for bad in (broken, "missing"):
        if verb != "baseline":
            assert leakscope(verb, recording, bad, *options, status=2).stdout == ""
        leakscope(verb, recording, bad, *options, "-o", tmp_path / "out", status=2)
        assert not (tmp_path / "out").exists()


def test_a_number_after_a_recording_is_known_for_a_leak(recording):
    done = leakscope("suppress", recording, "99999999", status=2)
    assert done.stdout == ""
    assert "there is no process 99999999" in done.stderr
    assert f"leakscope suppress {recording} --finding 99999999" in done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no whole JSON document"),
        ("{}", "nothing that leakscope wrote"),
        ('{"schema": "leakscope-baseline/1"', "no whole JSON document"),
        ('{"schema": "leakscope-baseline/1"}', "a damaged baseline"),
        ('{"schema": "leakscope-baseline/1", "stacks": [{}]}', "a damaged baseline"),
        ('{"schema": "leakscope-baseline/9", "stacks": []}', "no baseline"),
        ('{"schema": "leakscope-findings/1", "processes": 7}', "a damaged report"),
        ("[" * 100_000, "no whole JSON document"),
    ],
)
def test_a_baseline_that_is_none_is_refused_before_the_program_runs(text, why, tmp_path):
    path = tmp_path / "leaks.json"
    path.write_text(text)
    ran = tmp_path / "ran"

    done = leakscope("run", "--baseline", path, "--", "touch", ran, status=2)
    assert why in done.stderr
    assert not ran.exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["run", "--baseline", "missing", "--", "true"], "cannot read missing"),
        (["run", "--fail-on", "new", "--", "true"], "needs something to compare with"),
        (["run", "--export", "csv", "--", "true"], "no FORMAT=FILE"),
        (["run", "--export", "csv=/no/where", "--", "true"], "there is no directory"),
        (["run", "--no-report", "--export", "csv=x", "--", "true"], "--no-report leaves out"),
        (["suppress", "missing"], "neither a process nor a file"),
        (["suppress", "missing", "--until", "tomorrow"], "no date"),
        (["baseline", "missing"], "neither a process nor a file"),
    ],
)
def test_wrong_options_are_one_sentence(arguments, why, tmp_path):
    done = subprocess.run(
        [*LEAKSCOPE, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


# -- a real library, in real build systems ------------------------------------

TEST = r"""
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_NO_LINEAR
#include "stb_image.h"
static const unsigned char picture[] = {PICTURE};
int main(void)
{
    for (int i = 0; i < 30; i++) {
        int width, height, channels;
        unsigned char *pixels =
            stbi_load_from_memory(picture, sizeof picture, &width, &height, &channels, 1);
        if (!pixels || width != 16 || channels != 3)
            return 9;
        if (i % 3)
            stbi_image_free(pixels); /* a leak of the test, known for long */
        pixels = 0;
    }
    return 0;
}
"""


def png():
    """A picture of 16 x 16 pixels of 3 channels."""

    def part(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + bytes((x * 9 + y) % 256 for x in range(48)) for y in range(16))
    head = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    data = part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def recipe(language, after):
    """A block of the page, below a heading."""
    section = PAGE.partition(f"\n## {after}\n")[2]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture
def project(tmp_path, agent):
    """stb_image of Debian, with a test that has a leak of its own."""
    picture = ",".join(map(str, png()))
    (tmp_path / "test_app.c").write_text(TEST.replace("PICTURE", picture))
    shutil.copy("/usr/include/stb/stb_image.h", tmp_path)
    return tmp_path


def leak_into(project):
    """Forget to free the picture when its channels are converted; lines move as well."""
    path = project / "stb_image.h"
    clean = path.read_text()
    head, found, tail = clean.partition("static unsigned char *stbi__convert_format(")
    assert found
    leaking = (
        head
        + MOVED
        + found
        + tail.replace("   STBI_FREE(data);\n   return good;", "   return good;", 1)
    )
    assert len(leaking) < len(clean) + len(MOVED)
    path.write_text(leaking)
    return lambda: path.write_text(clean)


def shell(text, project, **names):
    for old, new in names.items():
        text = text.replace(old, new)
    return subprocess.run(
        ["sh", "-ec", text], cwd=project, capture_output=True, text=True, check=False, timeout=110
    )


def test_a_leak_added_to_a_real_library_and_removed_with_ctest(project):
    (project / "CMakeLists.txt").write_text(recipe("cmake", "CTest"))
    commands = recipe("sh", "CTest").replace(
        "cmake -B build",
        f"cmake -B build -DCMAKE_BUILD_TYPE=Debug '-DLEAKSCOPE={';'.join(LEAKSCOPE)}'",
    )
    first = shell(commands, project)
    assert first.returncode != 0, first.stdout  # the leak of the test, not known yet
    assert "1 place leaks" in first.stdout
    leakscope("baseline", project / "build/recordings", "-o", project / "leaks.json", status=0)
    known = shell(commands, project)
    assert known.returncode == 0, known.stdout + known.stderr

    remove = leak_into(project)
    added = shell(commands, project)
    assert added.returncode != 0
    assert re.search(r"1 place leaks 22\.5 KiB", added.stdout), added.stdout
    assert "stb_image.h" in added.stdout
    remove()
    assert shell(commands, project).returncode == 0


def test_a_leak_added_to_a_real_library_and_removed_with_meson(project):
    (project / "meson.build").write_text(recipe("meson", "Meson"))
    setup, test = recipe("sh", "Meson").splitlines()
    assert shell(setup, project).returncode == 0
    test = test.replace("leakscope run", f"{shlex.join(LEAKSCOPE)} run -o recordings/")
    assert shell(test.replace("--baseline ../leaks.json", ""), project).returncode != 0
    leakscope("baseline", project / "build/recordings", "-o", project / "leaks.json", status=0)
    known = shell(test, project)
    assert known.returncode == 0, known.stdout

    remove = leak_into(project)
    assert shell(test, project).returncode != 0
    remove()
    assert shell(test, project).returncode == 0
