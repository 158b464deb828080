# SPDX-License-Identifier: Apache-2.0
"""Suppressions for functions whose names have brackets of their own hide these, and no others."""

import pytest

from foreign import findings_of, one, written
from leakscope.cli import main
from leakscope.judge.suppressions import parse_suppressions
from leakscope.report.suppression import suppression_text

_FUNCTIONS = (
    "main::{lambda()#3}::operator()() const",
    "main::{lambda(int, double)#2}::operator()(int, double) const",
    "(anonymous namespace)::Anon::operator()(int)",
    "auto main::{lambda(auto:1)#1}::operator()<int>(int) const",
    "Pair<char const (*)(int)>::operator->*(int)",
    "Pair<int>::operator<(int) const",
)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_a_suppression_hides_its_function_and_no_other(tmp_path, function):
    records = "".join(
        f"==7== 10 bytes in 1 blocks are definitely lost in loss record {n} of 9\n"
        f"==7==    at 0x1: malloc (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)\n"
        f"==7==    by 0x2{n}: {name} (a.cpp:{n})\n==7== \n"
        for n, name in enumerate(_FUNCTIONS, 1)
    )
    summary = "==7== LEAK SUMMARY:\n==7==    definitely lost: 60 bytes in 6 blocks\n"
    findings = findings_of(one(written(tmp_path, records + summary))).findings
    (finding,) = (each for each in findings if each.stack[0].function == function)
    rules = parse_suppressions(suppression_text(finding, "lsan"), "made")
    hidden = {f.stack[0].function for f in findings for rule in rules if rule.matches(f.stack)}
    assert hidden == {function}


def test_a_name_that_no_rule_can_hold_is_said_to_be_one(tmp_path, capsys):
    record = "==7== 10 bytes in 1 blocks are definitely lost in loss record 1 of 1\n"
    record += "==7==    at 0x1: a*b (a.c:1)\n==7==    by 0x2: main (a.c:2)\n==7== \n"
    record += "==7== LEAK SUMMARY:\n==7==    definitely lost: 10 bytes in 1 blocks\n"
    assert main(["suppress", f"{written(tmp_path, record)}"]) == 2
    said = capsys.readouterr()
    assert "one that the syntax cannot hold" in said.err
    assert said.out == ""
