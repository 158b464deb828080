# SPDX-License-Identifier: Apache-2.0
"""Suppressions hide what they say, in both syntaxes, and say what they hid."""

from __future__ import annotations

import time

import numpy as np
import pytest

from leakscope.errors import UsageError
from leakscope.judge import judge
from leakscope.judge.suppressions import load_suppressions, parse_suppressions
from unit.judge.lives import NEVER, frames_of, lives, recording, stack

STACK = stack("leaf", "Middle::run(int)", "main")


def matches(text: str, frames=STACK, kind=None) -> bool:
    (rule,) = parse_suppressions(text, "t")
    return rule.matches(frames, kind)


@pytest.mark.parametrize(
    ("pattern", "hit"),
    [
        ("leaf", True),
        ("^leaf$", True),
        ("^eaf", False),
        ("lea", True),
        ("l*f", True),
        ("Middle::run", True),
        ("a.c", True),
        ("/opt/*", True),
        ("^/opt/app$", True),
        ("nothing", False),
        ("leaf?", False),
    ],
)
def test_sanitizer_patterns(pattern, hit):
    assert matches(f"leak:{pattern}") is hit


def block(*lines: str) -> str:
    return "\n".join(["{", "  a name", "  Memcheck:Leak", *lines, "}"])


@pytest.mark.parametrize(
    ("lines", "hit"),
    [
        (["fun:leaf"], True),
        (["fun:malloc", "fun:leaf"], True),
        (["fun:*alloc", "fun:leaf", "fun:Middle::run*"], True),
        (["fun:malloc", "fun:Middle::run*"], False),
        (["...", "fun:main"], True),
        (["fun:l??f"], True),
        (["fun:leaf", "...", "fun:main"], True),
        (["obj:/opt/*"], True),
        (["fun:leaf", "obj:/lib/*"], False),
        (["src:a.c:1"], True),
        (["src:a.c:2"], False),
        (["fun:main"], False),
    ],
)
def test_valgrind_blocks(lines, hit):
    assert matches(block(*lines)) is hit


def test_leak_kinds_count_when_they_are_known():
    text = block("match-leak-kinds: definite,possible", "fun:leaf")
    assert matches(text, kind="definite")
    assert not matches(text, kind="reachable")
    assert matches(text, kind=None)


def test_other_tools_are_passed_over():
    text = "# comment\nrace:x\n{\n n\n Memcheck:Cond\n fun:x\n}\n{\n n\n Helgrind:Race\n fun:x\n}\n"
    assert parse_suppressions(text, "t") == []


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("leak:", 1, "no pattern"),
        ("\nbogus", 2, "neither"),
        ("{\n x\n Memcheck:Leak\n fun:y", 1, "no closing"),
        ("{\n x\n}", 1, "needs a name and a kind"),
        ("{\n x\n Memcheck:Leak\n}", 1, "hide everything"),
        ("{\n x\n Memcheck:Leak\n what:y\n}", 4, "no frame"),
        ("{\n x\n Memcheck:Leak\n match-leak-kinds: odd\n fun:y\n}", 4, "no leak kind"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, text, line, why):
    path = tmp_path / "s.supp"
    path.write_text(text)
    with pytest.raises(UsageError, match=why) as caught:
        load_suppressions([path])
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert caught.value.hint


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_suppressions([tmp_path / "none"])


def test_hostile_patterns_take_no_time():
    pattern = "leak:" + "a*" * 500 + "b"
    start = time.monotonic()
    assert not matches(pattern, stack("a" * 20000))
    assert not matches(block("...", *["...", "fun:a*"] * 60, "fun:b"), stack(*["a"] * 200))
    assert time.monotonic() - start < 2


def test_a_suppressed_leak_is_quiet_and_counted():
    made = recording(lives(np.linspace(0, 9.9, 200), NEVER))
    rules = parse_suppressions("leak:f1", "my.supp")
    findings = judge(made, frames_of, rules)
    assert not findings.leaks
    assert findings.findings[0].known == "suppressed: leak:f1"
    (use,) = findings.suppressions
    assert (use.name, use.source, use.sites) == ("leak:f1", "my.supp:1", 1)
    assert (use.blocks, use.bytes) == (200, 20000)


def test_an_unused_suppression_is_not_mentioned():
    made = recording(lives(np.linspace(0, 9.9, 200), NEVER))
    assert judge(made, frames_of, parse_suppressions("leak:zzz", "t")).suppressions == ()
