# SPDX-License-Identifier: Apache-2.0
"""Every reader, given every real file cut, changed and mixed with another: an answer or a sentence.

Nothing crashes, runs away or takes memory without bound, and no half file is called clean.
"""

import gzip
import lzma
import resource
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import foreign
from leakscope.errors import RecordingError
from leakscope.formats import foreign_format, is_table, read_foreign, read_tables
from leakscope.model.findings import Verdict
from leakscope.workflow.snapshots import judge_snapshots

SAMPLES = foreign.SAMPLES
LAB = SAMPLES.parent / "kernel-lab" / "samples-6.12"
FILES = sorted(path for path in [*SAMPLES.glob("*/*"), *LAB.glob("*")] if path.is_file())
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
zst = zstd.compress
_MOST = 16_000  # bytes of a sample that are tried


def data_of(path):
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    return data[:_MOST]


def answer(path):
    """Read a file as `report` does: findings of its recordings, or None."""
    started = time.process_time()
    try:
        if is_table(path):
            judge_snapshots(read_tables(path))
            return None
        return [foreign.findings_of(recording) for recording in read_foreign(path) or ()]
    except RecordingError:
        return None
    finally:
        assert time.process_time() - started < 30  # seconds: it takes a tenth


@settings(max_examples=120, deadline=None)
@given(
    first=st.sampled_from(FILES),
    second=st.sampled_from(FILES),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    join=st.sampled_from([b"", b"\n", b"\r\n", b"\0" * 100]),
    where=st.sampled_from(["alone", "before", "behind"]),
)
def test_anything_made_of_real_files(tmp_path_factory, first, second, cut, flips, join, where):
    data = bytearray(data_of(first))
    for place, value in flips:
        if data:
            data[int(place * (len(data) - 1))] = value
    data = bytes(data[: int(cut * len(data))])
    if where != "alone":
        other = data_of(second)
        data = data + join + other if where == "behind" else other + join + data
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(data)
    answer(path)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(FILES), cut=st.floats(0.05, 0.98))
def test_half_a_report_of_leaks_is_never_called_clean(tmp_path_factory, name, cut):
    path = tmp_path_factory.getbasetemp() / "whole"
    path.write_bytes(data_of(name))
    whole = answer(path)
    if not whole or not any(found.leaks for found in whole):
        return
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    for found in answer(path) or ():
        lost = sum(finding.live_bytes for finding in found.leaks)
        said = found.undecided or found.blind or found.notes or found.coverage.notes
        assert lost or said, found.headline
        assert found.verdict is not Verdict.BOUNDED


@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=3000))
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(data)
    foreign_format(path)
    answer(path)


@pytest.mark.parametrize(
    "unit",
    [b"slabinfo - version: 2.1\n", b"[+a.c:1]malloc 0x5555 8\n", b"MemTotal: 1 kB\n", b"9" * 64 + b" "],
)  # fmt: skip
def test_long_files_take_bounded_memory(unit, tmp_path):
    path = tmp_path / "long"
    path.write_bytes(unit * (1_000_000 // len(unit)))
    code = (
        "import sys; from leakscope.formats import *\n"
        "from leakscope.errors import LeakscopeError\n"
        "try:\n    read_tables(sys.argv[1]) if is_table(sys.argv[1]) else read_foreign(sys.argv[1])\n"
        "except LeakscopeError: pass\n"
    )
    bound = 900 << 20
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=False, capture_output=True, timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (bound, bound)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]


def numbers(path):
    """What a file says of bytes and blocks, whatever it is."""
    try:
        if is_table(path):
            return [(t.source, t.total, t.total_count, len(t.rows)) for t in read_tables(path)]
        return [foreign.held(recording) for recording in read_foreign(path) or ()]
    except RecordingError as error:
        return str(error).partition(" ")[2]


PLAIN = (path for path in FILES if path.suffix not in {".gz", ".zst", ".raw"})
TEXTS = list({path.parent.name: path for path in PLAIN if b"\0" not in path.read_bytes()}.values())
TEXTS += [LAB / name for name in ("trace.kmem.txt", "allocinfo.after.txt", "page_owner.txt")]


def windows(data):
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def utf16(data):
    return data.decode("utf-8", "replace").encode("utf-16")


@pytest.mark.parametrize("form", [windows, utf16, gzip.compress, lzma.compress, zst])
def test_a_file_says_the_same_in_every_form(form, tmp_path):
    path = tmp_path / "x"
    wrong = {}
    for sample in TEXTS:
        path.write_bytes(sample.read_bytes())
        plain = numbers(path)
        path.write_bytes(form(sample.read_bytes()))
        if numbers(path) != plain:
            wrong[f"{sample.parent.name}/{sample.name}"] = (plain, numbers(path))
    assert wrong == {}


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zst])
def test_a_packed_file_that_is_cut_says_so(pack, tmp_path):
    path = tmp_path / "x"
    silent = []
    for sample in TEXTS:
        packed = pack(sample.read_bytes() * 3)
        path.write_bytes(packed[: len(packed) * 9 // 10])
        try:
            if is_table(path):
                said = [note for table in read_tables(path) for note in table.notes]
            else:
                said = [n for r in read_foreign(path) or () for n in r.coverage.notes]
        except RecordingError:
            continue
        if said and not any("not whole" in note for note in said):
            silent.append(f"{sample.parent.name}/{sample.name}")
    assert silent == []
