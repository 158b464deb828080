# SPDX-License-Identifier: Apache-2.0
"""A suppression with a last day holds until then, and says afterwards what it no longer hides."""

import datetime as dt

import pytest

from leakscope.errors import UsageError
from leakscope.judge import judge
from leakscope.judge.suppressions import load_suppressions, parse_suppressions
from leakscope.report.terminal import render
from unit.judge.lives import NEVER, frames_of, lives, recording

DAY = dt.date(2027, 3, 1)
BLOCK = """{
   a name
   Memcheck:Leak
   # until: 2027-03-01 in here
   fun:f1
}
"""


def rules(text, today=DAY):
    return parse_suppressions(text, "t", today)


@pytest.mark.parametrize(
    ("text", "until", "why"),
    [
        ("# until: 2027-03-01 ticket 42\nleak:f1", "2027-03-01", "ticket 42"),
        ("#until:2027-03-01\n# and more\n\nleak:f1", "2027-03-01", None),
        ("##  Until: 2027-03-01\nleak:f1", "2027-03-01", None),
        (BLOCK, "2027-03-01", "in here"),
        ("# until: 2027-03-01\n{\n a\n Memcheck:Leak\n fun:f1\n}", "2027-03-01", None),
        ("# until: 2027-03-01\nrace:x\nleak:f1", None, None),  # it was for the line before
        ("# it holds until: 2027-03-01\nleak:f1", None, None),
    ],
)
def test_the_comment_before_a_rule_or_in_a_block_is_its_last_day(text, until, why):
    (rule,) = rules(text)
    assert (rule.until, rule.why, rule.expired) == (until, why, False)
    (later,) = rules(text, DAY + dt.timedelta(days=1))
    assert later.expired == (until is not None)


def test_only_the_next_rule_has_it():
    first, second = rules("# until: 2020-01-01\nleak:a\nleak:b\n")
    assert (first.expired, second.expired) == (True, False)


@pytest.mark.parametrize("date", ["tomorrow", "2027-02-30", "01.03.2027", "2027"])
def test_a_date_that_is_none_names_the_line(date):
    with pytest.raises(UsageError, match=r"t:2: .* is no date such as 2027-03-01"):
        rules(f"leak:a\n# until: {date} why\nleak:b\n")


def test_what_is_expired_hides_nothing_and_is_told_of(tmp_path):
    path = tmp_path / "s"
    path.write_text("# until: 2027-03-01 ticket 42\nleak:f1\n")
    leak = lives([0.01 * at for at in range(900)], NEVER)

    def told(today):
        found = judge(recording(leak), frames_of, load_suppressions([path], today))
        return found, " ".join(render(found, width=400).split())

    found, text = told(DAY)
    assert [each.known for each in found.findings] == ["suppressed: leak:f1"]
    assert "Suppressed: leak:f1" in text
    assert "until 2027-03-01" in text
    found, text = told(dt.date(2027, 3, 2))
    assert [each.known for each in found.findings] == [None]
    assert found.leaks
    assert "was to hold until 2027-03-01 (ticket 42): it no longer hides 87.9 KiB at 1 site" in text
