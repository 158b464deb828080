# SPDX-License-Identifier: Apache-2.0
"""The same place in several processes is told once, with counts per process."""

import json

from leakscope.judge.together import leaking_places
from leakscope.report.json_ import to_json
from leakscope.report.processes import render_processes
from unit.report.built_findings import finding, findings, frame

SMALL = findings(finding(live_bytes=1024, live_count=1))
LARGE = findings(finding(live_bytes=3072, live_count=3))
ELSEWHERE = frame("other", file="/src/other.c", line=7)
OTHER = findings(finding(live_bytes=2048, live_count=2, fingerprint="f" * 16, source=ELSEWHERE))
KNOWN = findings(finding(known="suppressed: x"))
JUDGED = [("small", SMALL), ("other", OTHER), ("large", LARGE), ("known", KNOWN)]


def test_places_are_joined_as_within_one_process():
    stacks = [finding(fingerprint=str(number) * 16) for number in range(4)]
    one, two = findings(*stacks[:3]), findings(*stacks[1:])
    assert one.leak_places == 1
    assert len(leaking_places([("one", one)])) == 1
    (place,) = leaking_places([("one", one), ("two", two)])
    assert place.bytes == 6 * stacks[0].leak_bytes

    first, second = leaking_places(JUDGED)

    assert (first.bytes, first.count) == (4096, 4)
    assert [part.recording for part in first.parts] == ["large", "small"]
    assert [part.recording for part in second.parts] == ["other"]


def test_one_process_of_those_that_leak_at_a_place_is_told_in_full():
    text = render_processes(JUDGED)

    assert text.startswith("leakscope: 3 of 4 processes leak\nNext: look at ")
    assert "whole stacks:\n  leakscope report --verbose large\n" in text
    assert "\n\n1 place leaks in several processes\n" in text
    assert " - LEAKING: 4.0 KiB in 4 blocks of 2 processes" in text
    assert "most in large: 3.0 KiB in 3 blocks; small: 1.0 KiB in 1 block" in text
    assert text.count("1. LEAKING") == 2
    assert text.index("── large ") < text.index("── other ") < text.index("── known ")
    assert "── small " not in text
    assert (
        "\n\n1 more process leaks 1.0 KiB at these places alone: 1 of app; --all shows it\n" in text
    )


def test_all_shows_every_process_in_full_and_many_are_counted():
    many = [(f"p{n}", findings(finding(live_bytes=1024, live_count=1))) for n in range(30)]

    assert render_processes(many, show_all=True).count("1. LEAKING") == 30
    text = render_processes(many)
    assert "27 more with at most 1.0 KiB each" in text
    assert "29 more processes leak 29.0 KiB at these places alone: 29 of app; --all" in text
    assert len(text.splitlines()) < 60


def test_json_has_the_places_of_all_processes():
    labels, found = zip(*JUDGED, strict=True)

    first, second = json.loads(to_json(*found, labels=labels))["places"]

    assert first["leak_bytes"] == 4096
    assert [part["recording"] for part in first["processes"]] == ["large", "small"]
    assert second["processes"][0]["leak_block_count"] == 2
