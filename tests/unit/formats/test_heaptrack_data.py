# SPDX-License-Identifier: Apache-2.0
"""heaptrack's files: real ones with the values of heaptrack_print, and made ones."""

import subprocess

import pytest

import foreign
from foreign import one, written
from leakscope._analysis import analyse
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import read_foreign
from leakscope.model.columns import Column

SAMPLES = foreign.SAMPLES / "heaptrack"
RAW = """v 10400 3
x 6 /bin/a
X ./a -x
I 1000 5e298f
m 1 -
m 1 x 1000 0 100
m 9 /a b.so\u00e9 2000 0 800
"""


def numbers(recording):
    columns = (Column.ALLOCS, Column.LIVE_BYTES, Column.LIVE_COUNT)
    return tuple(recording.total(column) for column in columns)


def peak(recording):
    return next(n for n in recording.coverage.notes if n.startswith("at most")).split()[2]


def unpacked(tmp_path, name):
    """A file as it is, but for zstd before Python 3.14."""
    if not name.endswith(".zst"):
        return SAMPLES / name
    path = tmp_path / "unpacked"
    subprocess.run(["zstd", "-qdo", path, SAMPLES / name], check=True)
    return path


@pytest.mark.parametrize(
    ("name", "expected", "most"),
    [
        ("heaptrack.leaky.v3.gz", (139, 6_260, 38), "83,013"),
        ("heaptrack.leaky.v3.zst", (139, 6_260, 38), "83,013"),
        ("heaptrack.leaky.v3.raw.zst", (139, 6_260, 38), "83,013"),
        ("heaptrack.leaky.v3.cut2000", (64, 80_976, 40), "82,975"),
        ("heaptrack.david.18594.gz", (2_896, 30_463, 37), "996,970"),
        ("heaptrack.test_sysroot.raw", (3, 73_760, 3), "73,760"),
        ("heaptrack.test_sysroot.expected", (3, 73_760, 3), "73,760"),
    ],
)
def test_real_files_have_their_right_values(name, expected, most, tmp_path, capsys):
    path = unpacked(tmp_path, name)
    recording = one(path)
    assert numbers(recording) == expected
    assert peak(recording) == most
    assert recording.total(Column.FREES) == expected[0] - expected[2]
    assert not any("not understood" in note for note in recording.coverage.notes)
    assert any("not whole" in n for n in recording.coverage.notes) == ("cut" in name)
    assert main(["report", str(path)]) == 3
    capsys.readouterr()


def test_raw_and_interpreted_data_have_the_same_frames(tmp_path):
    raw = one(SAMPLES / "heaptrack.test_sysroot.raw")
    module, offset = raw.stack(2)[1].module, raw.stack(2)[1].offset
    assert raw.modules[module].path.endswith("/libtestlib.so")
    assert offset == 0x1AAD
    found = analyse(one(SAMPLES / "heaptrack.test_sysroot.expected"), debuginfod=False).findings
    names = [f.function for f in found[1].stack]
    assert names[1:3] == ["Foo::Foo()", "main"]
    inlined = found[2].stack
    assert inlined[1].function.startswith("std::__new_allocator")
    assert [f.inlined for f in inlined[1:9]] == [True, True, True, False] * 2
    assert (inlined[8].function, inlined[8].line) == ("Foo::doBar()", 0x22)
    assert inlined[1].address.offset == inlined[4].address.offset


def test_the_cut_file_is_not_taken_for_a_whole_one(capsys):
    assert main(["report", str(SAMPLES / "heaptrack.leaky.v3.cut2000")]) == 3
    assert "the file is not whole" in " ".join(capsys.readouterr().out.split())


def test_a_whole_file_in_which_all_was_freed_has_no_leak(tmp_path, capsys):
    text = "v 10400 3\nX ./a\nI 1 1\ns 1 f\ni 10 0 1\nt 1 0\na 8 1\n+ 0\nc a\n- 0\n# strings: 1\n"
    path = written(tmp_path, text)
    assert one(path).duration_ns == 10_000_000
    assert main(["report", str(path)]) == 0
    # Not so without its end, attached, or raw.
    for other in (text[: -len("# strings: 1\n")], text.replace("X", "A\nX", 1)):
        assert main(["report", str(written(tmp_path, other))]) == 3
    assert main(["report", str(written(tmp_path, RAW + "t 1010 0\n+ 8 1 ff\n- ff\n"))]) == 3
    capsys.readouterr()


def test_a_last_line_without_an_end_is_no_data(tmp_path):
    recording = one(written(tmp_path, RAW + "t 1010 0\n+ 8 1 ff\n+ 1000"))
    assert numbers(recording) == (1, 8, 1)
    assert any("not whole" in note for note in recording.coverage.notes)


def test_an_address_belongs_to_the_object_of_its_time(tmp_path):
    text = RAW + "t 2010 0\n+ 8 1 f0\nm 1 -\nm 4 /new 2000 0 800\nt 2010 0\n+ 8 2 f1\n"
    recording = one(written(tmp_path, text))
    assert [recording.modules[recording.stack(n)[0].module].path for n in (1, 2)] == [
        "/a b.so\u00e9",
        "/new",
    ]


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        ("- 5\n", "1 frees are of blocks"),
        ("+ 8 7 f0\n", "1 line was not understood"),
        ("t 10 9\n", "1 line was not understood"),
        ("+ -8 0 f0\n", "1 line was not understood"),
        ("+ zz 0 f0\n", "1 line was not understood"),
        ("m 4 /abc\n", "1 line was not understood"),
    ],
)
def test_what_is_odd_is_said(lines, note, tmp_path):
    assert any(note in each for each in one(written(tmp_path, RAW + lines)).coverage.notes)


def test_a_newer_version_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="version 4"):
        read_foreign(written(tmp_path, "v 20000 4\nX ./a\n"))


def test_what_zstd_packed_is_read_as_it_is():
    packed = numbers(one(SAMPLES / "heaptrack.leaky.v3.zst"))
    assert packed == (139, 6_260, 38)


@pytest.mark.parametrize(
    ("line", "damaged"),
    [
        ("i 50 1 2", "i "),
        ("i 50 1 2", "i zz 1 2"),
        ("t 1 0", "t 1"),
        ("a 10 1", "a 10"),
        ("a 10 1", "a -1 1"),
    ],
)
def test_a_damaged_line_does_not_move_what_stands_behind_it(line, damaged, tmp_path):
    text = "v 10400 3\nX ./a\ns 5 /a.so\ns 3 one\ns 3 two\ni 50 1 2\ni 60 1 3\nt 1 0\nt 2 0\n"
    text += "a 10 1\na 20 2\n+ 1\n# strings: 3\n"
    whole = one(written(tmp_path, text))
    recording = one(written(tmp_path, text.replace(f"\n{line}\n", f"\n{damaged}\n")))
    assert numbers(recording) == numbers(whole) == (1, 0x20, 1)
    assert "1 line was not understood" in foreign.notes(recording)
    functions = [each.stack[0].function for each in foreign.findings_of(recording).findings]
    assert functions == ["two"]
