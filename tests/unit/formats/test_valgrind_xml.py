# SPDX-License-Identifier: Apache-2.0
"""valgrind's XML: real files with the values that others worked out, and hostile ones."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import foreign
from foreign import findings_of, reached
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import read_foreign
from leakscope.model.findings import Verdict
from leakscope.recording import packed

SAMPLES = foreign.SAMPLES / "valgrind-xml"
OF_ALL = ((716, 8), (224, 9), (5000, 1), (320, 20))


def one(name):
    return foreign.one(SAMPLES / name)


@pytest.mark.parametrize(
    ("name", "expected", "pid", "mode"),
    [
        ("vg319-all.xml", OF_ALL, 28405, "valgrind memcheck 3.19.0"),
        ("vg319-origins-supp.xml", OF_ALL, 28550, "valgrind memcheck 3.19.0"),
        (
            "vg319-usercomment.xml",
            ((716, 8), (0, 0), (5000, 1), (0, 0)),
            28852,
            "valgrind memcheck 3.19.0",
        ),
        (
            "jenkins-aux-data.xml",
            ((4, 1), (0, 0), (0, 0), (0, 0)),
            10418,
            "valgrind memcheck 3.7.0",
        ),
        (
            "sonar-vg36-possibly.xml",
            ((0, 0), (0, 0), (1074, 14), (0, 0)),
            3245,
            "valgrind memcheck 3.6.0.SVN-Debian",
        ),
        (
            "warnings-ng-valgrind.xml",
            ((16, 1), (0, 0), (0, 0), (0, 0)),
            36556,
            "valgrind memcheck 3.18.1",
        ),
    ],
)
def test_real_files_have_their_right_values(name, expected, pid, mode):
    recording = one(name)
    assert reached(recording) == expected
    assert recording.process.pid == pid
    assert recording.coverage.mode == mode
    found = findings_of(recording)
    assert found.verdict is (Verdict.LOST if expected[0][1] else Verdict.RETAINED)
    assert sum(f.lost_bytes for f in found.findings) == expected[0][0] + expected[1][0]
    assert not found.undecided


def test_places_are_found_behind_valgrinds_frames_and_the_wrapper():
    found = findings_of(one("vg319-all.xml")).findings
    assert found[0].source.function == "keep_interior"
    assert found[0].source.line == 13
    lost = next(f for f in found if f.verdict is Verdict.LOST)
    assert (lost.lost_bytes, lost.lost_count) == (700, 7)
    assert (lost.source.function, lost.source.line) == ("lose_buffers", 10)
    assert lost.source.file == "/tmp/demo/leaky.c"
    assert [(f.function, f.line) for f in lost.through] == [("my_alloc", 9)]
    assert all("vgpreload" not in (f.module_path or "") for f in lost.stack)
    (small,) = findings_of(one("warnings-ng-valgrind.xml")).leaks
    assert small.kind == "new[]"
    assert (small.source.function, small.source.line) == ("main", 3)


def test_what_is_lost_behind_an_owner_is_counted_once():
    assert findings_of(one("vg319-all.xml")).headline == "2 places leak 940 B"
    short = findings_of(one("vg319-usercomment.xml"))
    assert short.headline == "2 places leak 716 B"
    assert any("224 more bytes are lost" in note for note in short.coverage.notes)


def test_forks_with_one_file_are_processes_of_their_own():
    found = read_foreign(SAMPLES / "vg319-fork-onefile.xml")
    assert [sum(n for n, _ in reached(each)[:2]) for each in found] == [1240, 1140, 1040, 940]
    assert [each.process.pid for each in found] == [None, None, None, 28774]
    assert all(each.process.exe == "./leaky" for each in found)


def test_a_file_without_the_end_is_no_proof_that_nothing_leaks(capsys):
    path = SAMPLES / "vg319-sigkill.xml"
    found = findings_of(one(path.name))
    assert found.undecided
    assert "nothing is known of leaks" in found.headline
    assert main(["report", str(path)]) == 3
    text = capsys.readouterr().out
    assert "killed" in text
    assert "4 other errors" in text


def test_what_the_file_does_not_tell_is_absent_in_every_report(capsys):
    path = SAMPLES / "vg319-all.xml"
    assert main(["report", str(path)]) == 1
    text = capsys.readouterr().out
    assert "not known from this source" in text.replace("\n    ", " ")
    for wrong in ("0 allocations", "0 frees", "peak 0", "0 dropped"):
        assert wrong not in text
    assert main(["report", "--json", str(path)]) == 1
    document = json.loads(capsys.readouterr().out)
    (process,) = document["processes"]
    sums = process["totals"]
    assert (sums["live_bytes"], sums["live_count"]) == (6260, 38)
    for name in ("allocation_count", "free_count", "allocated_bytes", "peak_bytes"):
        assert sums[name] is None
    assert {"deaths", "timeline", "sites.allocs"} <= set(process["coverage"]["absent"])
    heavy = process["findings"][1]
    assert heavy["allocation_count"] is None
    assert heavy["growth_bytes_per_s"] is None
    assert heavy["stable_fingerprint"] != heavy["fingerprint"]
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(__file__).parents[3] / "src/leakscope/report/schema.json"
    jsonschema.validate(document, json.loads(schema.read_text()))


def test_it_can_be_kept_as_a_recording(tmp_path, capsys):
    packed.write(one("vg319-all.xml"), tmp_path / "kept.leakscope")
    assert main(["report", str(tmp_path / "kept.leakscope")]) == 1
    assert "2 places leak 940 B" in capsys.readouterr().out


# ---- made by hand

HEAD = """<?xml version="1.0"?>
<valgrindoutput>
<preamble><line>Using Valgrind-3.22.0 and LibVEX</line></preamble>
<pid>7</pid><tool>{tool}</tool>
<args><vargv><arg>{option}</arg></vargv><argv><exe>./a</exe></argv></args>
"""
END = "<status><state>FINISHED</state><time>00:00:00:01.000 </time></status>"
LEAK = """<error><kind>{kind}</kind><xwhat><text>x</text><leakedbytes>{size}</leakedbytes>
<leakedblocks>1</leakedblocks></xwhat><stack><frame><ip>0x1</ip><fn>f{size}</fn></frame></stack>
</error>"""


def written(tmp_path, text):
    path = tmp_path / "report"  # no format is known by its name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def report(*parts, tool="memcheck", option="--leak-check=full"):
    return HEAD.format(tool=tool, option=option) + "".join(parts) + "</valgrindoutput>\n"


def leak(size, kind="Leak_DefinitelyLost"):
    return LEAK.format(kind=kind, size=size)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (report(END), 0),
        (report(END, option="--leak-check=summary"), 3),
        (report(END, tool="helgrind"), 3),
        (report(), 3),
        (report(END, leak(5)), 1),
        (report(leak(5)), 1),
        (report(END, leak(5, "Leak_StillReachable")), 0),
        (report(leak(5, "Leak_StillReachable")), 3),
        (report(END) * 2, 0),
        (report(END) + report(END, leak(3)), 1),
        (report(END, leak(5))[:-10], 1),
        (report(END, leak(5))[:-60], 3),
        (report(END, leak(5), leak(6))[:-60], 1),
    ],
)
def test_exit_status(text, status, tmp_path, capsys):
    assert main(["report", str(written(tmp_path, text))]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_check_at_the_end_counts_and_not_those_before_it(tmp_path):
    text = report(leak(5), leak(6), END, leak(6))
    (recording,) = read_foreign(written(tmp_path, text))
    assert reached(recording)[0] == (6, 1)


def test_names_of_any_bytes_are_shown(tmp_path, capsys):
    name = b"<fn>caf\xe9\x1b[31m&lt;x&gt;</fn>"
    text = report(END, leak(5)).encode().replace(b"<fn>f5</fn>", name)
    assert main(["report", str(written(tmp_path, text))]) == 1
    shown = capsys.readouterr().out
    assert "<x>" in shown
    assert "\x1b" not in shown


BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><valgrindoutput><pid>&b;</pid></valgrindoutput>"""
OUTSIDE = """<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><valgrindoutput>
<pid>7</pid></valgrindoutput>"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "entities"),
        (OUTSIDE, "entities"),
        ("<valgrindoutput>" + "<a>" * 100_000, "too deep"),
        ("<valgrindoutput><a b='" + "x" * 5_000_000, "no tag ends"),
        ("<valgrindoutput>" * 2, "no report"),
        ("<valgrindoutput>&nothing;</valgrindoutput>", "no report"),
        ("<valgrindoutput></valgrindoutput>", "no report"),
    ],
)
def test_what_is_hostile_is_refused_in_one_sentence(text, why, tmp_path, capsys):
    path = written(tmp_path, text)
    with pytest.raises(RecordingError, match=why):
        read_foreign(path)
    assert main(["report", str(path)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error


def test_numbers_that_no_program_wrote_are_not_believed(tmp_path):
    wild = leak(5).replace("<leakedbytes>5<", f"<leakedbytes>{'9' * 30}<")
    text = report(END, wild.replace("<ip>0x1</ip>", "<ip>0x-1</ip><line>99999999999</line>"))
    (recording,) = read_foreign(written(tmp_path, text))
    assert reached(recording)[0] == (0, 1)


def test_what_is_no_such_file_is_left_to_others(tmp_path):
    assert read_foreign(written(tmp_path, b"\x89LSC\r\n")) is None
    assert read_foreign(tmp_path) is None
    assert read_foreign(tmp_path / "missing") is None
    os.mkfifo(tmp_path / "fifo")
    assert read_foreign(tmp_path / "fifo") is None


PARTS = [
    b"<error>", b"</error>", b"<stack>", b"</frame>", b"</valgrindoutput>", b"<valgrindoutput>",
    b"<status>", b"\x00", b"\xff\xfe", b"&#0;", b"&lt;", b"<![CDATA[", b"<!--", b"<!DOCTYPE a>",
    b"<kind>Leak_DefinitelyLost</kind>", b"9" * 40,
]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(["vg319-all.xml", "vg319-fork-onefile.xml", "vg319-usercomment.xml"]),
    edited=foreign.edits(*PARTS),
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, name, edited):
    foreign.read_damaged(tmp_path_factory, f"valgrind-xml/{name}", edited)


@pytest.mark.parametrize("comment", ["<job>17 & more</job>", "a < b", "<b>", "<!DOCTYPE x>", ""])
def test_a_comment_of_the_user_need_be_no_xml(comment, tmp_path):
    text = (SAMPLES / "vg319-all.xml").read_text()
    tag = "<tool>memcheck</tool>\n"
    assert tag in text
    text = text.replace(tag, f"{tag}<usercomment>{comment}</usercomment>\n")
    (found,) = read_foreign(foreign.written(tmp_path, text))
    (plain,) = read_foreign(SAMPLES / "vg319-all.xml")
    assert reached(found) == reached(plain)
    assert found.coverage == plain.coverage
