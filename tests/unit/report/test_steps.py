# SPDX-License-Identifier: Apache-2.0
"""The line that says what to do next: a command in it can be pasted."""

import pytest

from leakscope.report.ink import Ink
from leakscope.report.steps import command_of, step_lines

LONG = "leakscope report --verbose " + "/a/very/long/directory" * 6 + "/app.leakscope"


@pytest.mark.parametrize(
    ("step", "lines"),
    [
        ("leakscope find 7", ["Next: leakscope find 7"]),
        ("Join each thread.", ["Next: Join each thread."]),
        (
            f"look at app.cc:8; whole stacks: {LONG}",
            ["Next: look at app.cc:8; whole stacks:", f"  {LONG}"],
        ),
        (LONG, [f"Next: {LONG}"]),
        ("word " * 30, [f"Next: {'word ' * 14}word", f"      {'word ' * 14}word"]),
    ],
)
def test_a_command_is_never_broken(step, lines):
    assert step_lines(step, Ink()) == lines
    assert [part.strip() for part in lines if "leakscope" in part][-1:] == (
        [f"{'Next: ' if len(lines) == 1 else ''}{command_of(step)}"] if command_of(step) else []
    )


def test_what_only_mentions_a_command_has_none():
    assert command_of("boot with slab_debug=U, then look") is None
    assert command_of("the answer of leakscope find is this") is None
