# SPDX-License-Identifier: Apache-2.0
"""The JSON document: valid by its published schema, complete, safe for every reader."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import leakscope.report
from leakscope.model.findings import Evidence, Finding, Findings, Pattern, Verdict
from leakscope.model.frames import Address, Frame
from leakscope.model.recordings import Coverage, Process
from leakscope.report.json_ import SCHEMA, to_json
from unit.report.built_findings import (
    BOUNDED,
    KNOWN,
    SUPPRESSION,
    UNKNOWN,
    finding,
    findings,
    frame,
)

SCHEMA_FILE = Path(leakscope.report.__file__).with_name("schema.json")
PUBLISHED = Path(__file__).parents[3] / "docs/reference/json-schema/leakscope-findings-1.json"


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_the_one_in_the_package():
    assert PUBLISHED.read_text(encoding="utf-8") == SCHEMA_FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "members",
    [
        (),
        (finding(),),
        (finding(), UNKNOWN, BOUNDED, KNOWN),
        (finding(stack=(), source=None, evidence=(), pattern=None, rate=None),),
        tuple(finding(live_bytes=n) for n in range(1000)),
    ],
    ids=["none", "one", "all kinds", "bare", "a thousand"],
)
def test_a_document_is_valid(validator, members):
    document = json.loads(to_json(findings(*members, suppressions=(SUPPRESSION,))))

    validator.validate(document)
    assert document["schema"] == SCHEMA
    assert len(document["processes"][0]["findings"]) == len(members)


def test_the_schema_notices_what_is_missing_or_wrong(validator):
    document = json.loads(to_json(findings(finding())))
    found = document["processes"][0]["findings"][0]

    for key, value in (("verdict", "guilty"), ("live_bytes", "10 MiB"), ("confidence", 2)):
        kept = found[key]
        found[key] = value
        assert not validator.is_valid(document), key
        del found[key]
        assert not validator.is_valid(document), key
        found[key] = kept
    assert validator.is_valid(document)


def test_several_processes_are_one_document(validator):
    document = json.loads(
        to_json(findings(finding()), findings(), findings(finding()), labels=["a", "b", "c"])
    )

    validator.validate(document)
    assert [p["recording"] for p in document["processes"]] == ["a", "b", "c"]
    assert [p["leak_count"] for p in document["processes"]] == [1, 0, 1]
    assert document["leak_count"] == 2


def test_labels_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="zip"):
        to_json(findings(), labels=["a", "b"])


# What the document calls a field of the model, where the name differs (units in names).
RENAMED = {
    "allocs": "allocation_count",
    "frees": "free_count",
    "rate": "growth_bytes_per_s",
    "rate_low": "growth_bytes_per_s_low",
    "rate_high": "growth_bytes_per_s_high",
    "ppid": "parent_pid",
    "forked_from": "forked_from_pid",
    "exe": "executable",
    "arch": "architecture",
    "sample_bytes": "sample_period_bytes",
    "alloc_events": "allocation_events",
    "min_size": "min_size_bytes",
    "max_size": "max_size_bytes",
    "max_depth": "max_depth_frames",
    "total_allocs": "allocation_count",
    "total_frees": "free_count",
    "total_alloc_bytes": "allocated_bytes",
    "sites": "site_count",
    "blocks": "block_count",
    "bytes": "hidden_bytes",
}


def test_no_field_of_the_model_is_left_out():
    document = json.loads(to_json(findings(finding(), suppressions=(SUPPRESSION,))))
    report = document["processes"][0]
    pairs = [
        (Process, report["process"] | report["totals"]),
        (Coverage, report["coverage"]),
        (Finding, report["findings"][0]),
        (Evidence, report["findings"][0]["evidence"][0]),
        (Frame, report["findings"][0]["stack"][0]),
        (type(SUPPRESSION), report["suppressions"][0]),
        (Findings, report | report["totals"] | report["coverage"]),
    ]

    for model, shown in pairs:
        for field in dataclasses.fields(model):
            if not field.compare:
                continue  # how it came here, and no part of what it says
            assert RENAMED.get(field.name, field.name) in shown, f"{model.__name__}.{field.name}"


def test_numbers_are_raw():
    found = json.loads(to_json(findings(finding())))["processes"][0]["findings"][0]

    assert found["live_bytes"] == 10_590_208
    assert found["growth_bytes_per_s"] == 4198.4
    assert found["is_leak"] is True


def test_an_address_survives_readers_that_keep_numbers_as_doubles():
    high = frame(None, address=Address(None, 2**64 - 1), module_path=None)

    found = json.loads(to_json(findings(finding(stack=(high,)))))["processes"][0]["findings"][0]

    assert found["stack"][0]["address"] == "0xffffffffffffffff"


def test_what_json_cannot_say_is_null():
    text = to_json(findings(finding(rate=float("nan"), rate_high=float("inf"))))

    found = json.loads(text, parse_constant=pytest.fail)["processes"][0]["findings"][0]
    assert found["growth_bytes_per_s"] is None
    assert found["growth_bytes_per_s_high"] is None


def test_numbers_of_numpy_are_numbers(validator):
    document = json.loads(to_json(findings(finding(live_bytes=np.int64(7), rate=np.float32(0.5)))))

    validator.validate(document)
    assert document["processes"][0]["findings"][0]["live_bytes"] == 7


@given(name=st.text())
@example(name="half \udc80")
def test_any_name_is_valid_ascii_json_without_half_characters(name):
    text = to_json(findings(finding(stack=(frame(name, name, 1),)), headline=name))

    assert text.isascii()
    function = json.loads(text)["processes"][0]["findings"][0]["stack"][0]["function"]
    assert function == name.encode("utf-8", "backslashreplace").decode("utf-8")


def test_the_schema_knows_every_verdict_and_pattern(validator):
    for verdict in Verdict:
        for pattern in (None, *Pattern):
            document = to_json(findings(finding(verdict=verdict, pattern=pattern)))
            validator.validate(json.loads(document))
