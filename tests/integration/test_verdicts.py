# SPDX-License-Identifier: Apache-2.0
"""Each program of tests/programs gets its verdict, line and exit code, and behaves as ever."""

import signal

import pytest

from integration.claims import CLAIMS, Claim
from integration.conftest import describe, place

_NATIVE = [
    pytest.param(
        claim,
        variant,
        id=f"{claim.name}-{variant}",
        marks=[pytest.mark.musl] if variant == "musl" else [],
    )
    for claim in CLAIMS
    for variant in claim.variants
    if variant != "aarch64"
]


@pytest.mark.parametrize(("claim", "variant"), _NATIVE)
def test_program_gets_its_verdict(claim: Claim, variant: str, trace, tmp_path):
    program = claim.build(tmp_path, variant)

    traced = trace([program])

    why = describe(traced)
    assert traced.report, why
    assert traced.stdout == claim.stdout, why
    ended = traced.program["process"]
    if claim.signal is None:
        assert (ended["ended"], ended["exit_status"]) == ("exited", claim.status), why
    else:
        assert ended["ended"] == f"killed by {claim.signal}", why
    assert len(traced.report["processes"]) == len(traced.recordings) == claim.processes, why
    assert {place(each) for each in traced.leaks} == claim.leaks, why
    for expected in claim.expectations:
        seen = [each for each in traced.findings if place(each) == expected.place]
        right = [each for each in seen if each["verdict"] in expected.verdicts]
        assert right, f"no {'/'.join(expected.verdicts)} at {expected.place}\n{why}"
        if expected.pattern is not None:
            assert expected.pattern in {each["pattern"] for each in right}, why
    own = claim.status if claim.signal is None else 128 + signal.Signals[claim.signal]
    assert traced.returncode == (1 if claim.leaks else own), why


def test_claims_cover_what_they_promise():
    """The header grammar is strict, and nobody forgot the marks."""
    assert len(CLAIMS) > 40
    for claim in CLAIMS:
        places = {each.place for each in claim.expectations}
        assert claim.leaks <= places, f"{claim.name}: a leak without an expected verdict"
