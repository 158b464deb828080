# SPDX-License-Identifier: Apache-2.0
"""A report written as JSON is read again: the same findings, and rubbish in one sentence."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakscope.errors import RecordingError
from leakscope.judge.diff import highest, looked_at
from leakscope.report.baseline import to_json as baseline_json
from leakscope.report.json_ import to_json
from leakscope.workflow.baselines import is_baseline, read_baseline
from leakscope.workflow.told import is_document, told_findings
from unit.report.built_findings import BOUNDED, FILLING, KNOWN, UNKNOWN, finding, findings

WHOLE = findings(finding(lost_count=5, lost_bytes=320), UNKNOWN, FILLING, BOUNDED, KNOWN)


def told(tmp_path, text, name="report.json"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_what_was_found_is_found_again(tmp_path):
    path = told(tmp_path, to_json(WHOLE, labels=["it"]))

    ((label, again),) = told_findings(path)
    assert (label, is_document(path), is_baseline(path)) == ("it", True, False)
    for one, other in zip(WHOLE.findings, again.findings, strict=True):
        for name in ("verdict", "kind", "known", "live_bytes", "live_count", "lost_bytes",
                     "fingerprint", "stable_fingerprint", "peak_bytes", "place"):  # fmt: skip
            assert getattr(one, name) == getattr(other, name), name
    assert to_json(again, labels=["it"]).count('"function"') == to_json(WHOLE).count('"function"')
    stands = [looked_at([("it", each)]).stands for each in (again, WHOLE)]
    assert [(s.amount, s.names, s.cut) for s in stands[0].values()] == [
        (s.amount, s.names, s.cut) for s in stands[1].values()
    ]


def test_a_baseline_is_read_as_it_was_written(tmp_path):
    looked = highest([("1", WHOLE), ("2", findings(finding(live_bytes=99_999_999)))])
    path = told(tmp_path, baseline_json(looked))

    again = read_baseline(path)
    assert is_baseline(path)
    assert again.knows == looked.knows
    loud = {key: each for key, each in looked.stands.items() if not each.quiet}
    assert again.stands.keys() == loud.keys()
    for key, stand in again.stands.items():
        assert (stand.amount, stand.names) == (loud[key].amount, loud[key].names)


@settings(max_examples=150, deadline=None)
@given(
    place=st.floats(0, 1),
    length=st.integers(0, 60),
    new=st.sampled_from([b"", b"null", b"-1", b"1e99", b"[]", b'"', b"{}", b"99999999999999999999"])
    | st.binary(max_size=6),
    of_baseline=st.booleans(),
)
def test_a_damaged_document_is_read_or_refused(tmp_path_factory, place, length, new, of_baseline):
    text = baseline_json(highest([("1", WHOLE)])) if of_baseline else to_json(WHOLE)
    data = text.encode()
    at = int(place * len(data))
    path = tmp_path_factory.getbasetemp() / "document"
    path.write_bytes(data[:at] + new + data[at + length :])
    try:
        baseline = read_baseline(path)
    except RecordingError:
        return  # in one sentence
    assert all(stand.held_bytes >= 0 for stand in baseline.stands.values())


@pytest.mark.parametrize("what", ["fifo", "folder", "/dev/zero", "missing"])
def test_what_is_no_file_is_no_document_and_waited_for_by_nobody(tmp_path, what):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    path = tmp_path / what

    assert not is_document(path)
    with pytest.raises(RecordingError):
        read_baseline(path)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"schema": "leakscope-watch/1"}),
        '{"schema": "leakscope-findings/1", "processes": [{"findings": [{"verdict": "x"}]}]}',
        '{"schema": "leakscope-findings/1", "processes": [[]]}',
        to_json(WHOLE).replace('"confidence": 0.99', '"confidence": NaN'),
        '{"schema": "leakscope-findings/1", "processes": [' + "[" * 50_000,
    ],
)
def test_other_documents_are_refused(tmp_path, text):
    with pytest.raises(RecordingError):
        told_findings(told(tmp_path, text))
