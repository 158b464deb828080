# SPDX-License-Identifier: Apache-2.0
"""A pytest fixture, made by hand, that fails a test when the program it runs leaks.

    APP=./build/parse python -m pytest examples/test_no_leaks.py

The failure shows the report: verdict, place, source lines. The recordings stay in pytest's
temporary directory, for `leakscope report` on the day after.
"""

import os

import pytest

import leakscope

APP = os.environ.get("APP", "./app")


@pytest.fixture
def no_leaks(tmp_path):
    """Run a program to its end, fail when it leaks, else return what came of it."""

    def run(*command, **options):
        done = leakscope.run(command, output=tmp_path, timeout="5m", **options)
        if done.timed_out:
            pytest.fail(done.notes[0])
        if done.leaks:
            pytest.fail(done.report(), pytrace=False)
        return done

    return run


def test_the_program_frees_what_it_allocates(no_leaks):
    """The usual case: it ends by itself, with status 0."""
    assert no_leaks(APP).returncode == 0
