# SPDX-License-Identifier: Apache-2.0
"""From recordings to a report and a status: options, several processes, files, pipes."""

import argparse
import io
import json
import os
import stat
import time
from dataclasses import replace

import pytest

import leakscope._analysis
from leakscope.cli._output import add_report_options, report_recordings
from leakscope.cli._progress import Progress
from leakscope.errors import RecordingError
from leakscope.model.findings import Verdict
from leakscope.model.recordings import Coverage
from unit.report.built_findings import BOUNDED, finding, findings, frame

CLEAN = findings()
LEAKING = findings(finding())
GROWING = findings(finding(verdict=Verdict.GROWING, pattern=None), verdict=Verdict.GROWING)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def judged_already(monkeypatch):
    """What stands for a recording in these tests is its findings."""

    class Analyser:
        def __init__(self, **options):
            self.options = options

        def analyse(self, recording):
            return recording

    monkeypatch.setattr(leakscope._analysis, "Analyser", Analyser)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_report_options(parser)
    return parser.parse_args(["--no-source", *arguments])


def report(members, *arguments, stream=None):
    stream = io.StringIO() if stream is None else stream
    status = report_recordings(members, options(*arguments), stream)
    return status, stream.getvalue()


@pytest.mark.parametrize(
    ("members", "arguments", "status"),
    [
        ([CLEAN], [], 0),
        ([LEAKING], [], 1),
        ([CLEAN, LEAKING, CLEAN], [], 1),
        ([LEAKING], ["--exit-code", "0"], 0),
        ([LEAKING], ["--exit-code", "42"], 42),
        ([CLEAN], ["--exit-code", "42"], 0),
        ([findings(finding(known="suppressed: x"))], [], 0),
        ([], [], 0),
        ([GROWING], [], 0),
        ([GROWING], ["--fail-on", "growth"], 1),
        ([LEAKING], ["--fail-on", "growth"], 0),
        ([LEAKING], ["--fail-on", "lost"], 0),
        ([LEAKING], ["--fail-on", "lost,leaking", "--exit-code", "9"], 9),
        ([findings(verdict=Verdict.UNKNOWN)], ["--fail-on", "leaks,unknown"], 1),
        ([findings(finding(known="suppressed: x"))], ["--fail-on", "leaks,growth"], 0),
    ],
)
def test_the_status_tells_whether_anything_leaks(members, arguments, status):
    assert report([("a", each) for each in members], *arguments)[0] == status


def test_recordings_are_taken_one_by_one():
    taken = []

    def produce():
        for label in "ab":
            taken.append(label)
            yield label, CLEAN

    assert report(produce())[0] == 0
    assert taken == ["a", "b"]


def test_json_holds_every_process():
    _, text = report([("a", LEAKING), ("b", CLEAN)], "--json")

    document = json.loads(text)
    assert [each["recording"] for each in document["processes"]] == ["a", "b"]


def test_of_several_processes_the_leaking_ones_come_first_and_whole():
    elsewhere = frame("other", "/src/app/other.c", 7)
    heavier = findings(finding(live_bytes=2**40, fingerprint="f" * 16, source=elsewhere))

    _, text = report([("clean", CLEAN), ("light", LEAKING), ("heavy", heavier)])

    assert text.startswith("leakscope: 2 of 3 processes leak\n")
    assert text.index("── heavy ─") < text.index("── light ─") < text.index("── clean ─")
    assert text.count("1. LEAKING") == 2
    assert "no leak found" in text


def test_a_crowd_of_clean_processes_is_summed_up():
    _, text = report([(f"p{n}", CLEAN) for n in range(300)])

    assert "280 more processes without a leak; --all shows them" in text
    assert len(text.splitlines()) < 80
    assert "more processes" not in report([(f"p{n}", CLEAN) for n in range(300)], "--all")[1]


def test_a_loss_in_a_clean_process_is_still_said():
    lossy = findings(coverage=Coverage(dropped={"table_full": 5}))

    _, text = report([("a", LEAKING), ("b", lossy)])

    assert "warning: 5 blocks were not recorded" in text


@pytest.mark.parametrize(
    ("stream", "arguments", "environment", "coloured"),
    [
        (Terminal(), [], {}, True),
        (io.StringIO(), [], {}, False),
        (Terminal(), [], {"NO_COLOR": "1"}, False),
        (Terminal(), [], {"NO_COLOR": ""}, True),  # no-color.org: present and not empty
        (Terminal(), [], {"TERM": "dumb"}, False),
        (Terminal(), ["--colour", "never"], {}, False),
        (io.StringIO(), ["--colour", "always"], {"NO_COLOR": "1"}, True),
        (io.StringIO(), ["--color", "always"], {}, True),
    ],
)
def test_colour_is_for_terminals(stream, arguments, environment, coloured, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    _, text = report([("a", LEAKING)], *arguments, stream=stream)

    assert ("\x1b[" in text) is coloured


def test_a_terminal_is_used_in_its_whole_width_and_a_pipe_has_80_columns():
    wide = findings(finding(), headline="word " * 60)

    assert max(map(len, report([("a", wide)], stream=Terminal())[1].splitlines())) > 80
    assert max(map(len, report([("a", wide)])[1].splitlines())) <= 80


@pytest.mark.parametrize("columns", ["", "x", "0", "-4"])
def test_a_nonsensical_width_is_no_trouble(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)

    assert report([("a", LEAKING)], stream=Terminal())[0] == 1


def test_a_stream_without_unicode_gets_ascii_and_escapes():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    named = findings(finding(sentence="größer"), BOUNDED)

    status = report_recordings([("ä", named), ("b", CLEAN)], options(), stream)

    text = raw.getvalue().decode("ascii")
    assert status == 1
    assert "gr\\xf6\\xdfer" in text
    assert "-- \\xe4 ---" in text


def test_the_options_reach_the_report():
    many = findings(
        *(replace(finding(), source=None, fingerprint=f"{n:016x}") for n in range(9)), BOUNDED
    )

    assert report([("a", many)])[1].count("LEAKING") == 9
    assert report([("a", many)], "--limit", "2")[1].count("LEAKING") == 2
    assert "Bounded: 1 site" in report([("a", many)], "--all")[1]
    assert "_start" in report([("a", many)], "--verbose")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--limit", "-1"],
        ["--limit", "many"],
        ["--exit-code", "256"],
        ["--exit-code", "x"],
        ["--min-bytes", "lots"],
        ["--colour", "red"],
    ],
)
def test_a_wrong_value_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        options(*arguments)
    assert leaving.value.code == 2
    assert arguments[0].removesuffix("r").lstrip("-")[:4] in capsys.readouterr().err


def test_a_size_may_have_a_unit():
    assert options("--min-bytes", "64KiB").min_bytes == 65_536


def test_a_report_file_is_private_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")
    path.chmod(0o666)

    status, text = report([("a", LEAKING)], "--report-file", str(path))

    assert (status, text) == (1, "")
    assert path.read_text(encoding="utf-8").startswith("leakscope: ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["report.txt"]


def test_a_report_file_replaces_a_link_and_not_what_it_points_to(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "report.json"
    link.symlink_to(precious)

    report([("a", LEAKING)], "--json", "--report-file", str(link))

    assert precious.read_text() == "mine"
    assert json.loads(link.read_text())["leak_count"] == 1


@pytest.mark.parametrize("name", ["missing/report.txt", ".", "fifo"])
def test_a_report_file_that_cannot_be_is_one_sentence(tmp_path, name):
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(RecordingError):
        report([("a", LEAKING)], "--report-file", str(tmp_path / name))
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_full_disk_leaves_no_half_report(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", refuse)

    with pytest.raises(RecordingError, match="No space left on device"):
        report([("a", LEAKING)], "--report-file", str(tmp_path / "report.txt"))
    assert os.listdir(tmp_path) == []


def test_a_reader_that_leaves_early_does_not_change_the_verdict():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        assert report_recordings([("a", LEAKING)], options(), stream) == 1


def test_a_full_device_is_one_sentence():
    with open("/dev/full", "w", encoding="utf-8") as stream:
        with pytest.raises(RecordingError, match="No space left on device"):
            report_recordings([("a", LEAKING)], options(), stream)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def test_progress_shows_up_late_and_is_wiped():
    stream = Terminal()
    with Progress(delay_s=0.01, stream=stream) as progress:
        progress.stage("judging \x1b[2J")
        deadline = time.monotonic() + 5
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.005)
    shown = stream.getvalue()

    assert "leakscope: judging \\x1b[2J ..." in shown
    assert shown.endswith("\r\x1b[K")


def test_progress_that_is_quick_or_has_no_terminal_is_silent():
    for stream, delay in ((Terminal(), 60), (io.StringIO(), 0)):
        with Progress(delay_s=delay, stream=stream) as progress:
            progress.stage("judging")
            time.sleep(0.02)
        assert stream.getvalue() == ""
