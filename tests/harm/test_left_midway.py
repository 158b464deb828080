# SPDX-License-Identifier: Apache-2.0
"""A signal handler comes into the middle of the agent and does not go back to it."""

import pytest

SECONDS = 60  # alone: about one


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_program_that_jumps_out_of_handlers_goes_on(build, alone, leakscope):
    program = build("jumpout", "O2")
    plain = alone(program)
    done = leakscope("run", "-q", "--no-report", "--", program, timeout=SECONDS)
    assert (plain.status, plain.stdout) == (7, "jumped often\n")
    assert (done.status, done.stdout) == (7, "jumped often\n"), done.stderr


@pytest.mark.parametrize(
    ("way", "count"), [("_exit", 50), ("exit", 50), ("thread", 50), ("away", 25)]
)
def test_what_ends_in_a_handler_holds_nobody_up(build, leakscope, way, count):
    program = build("midway", "O2")
    done = leakscope("run", "-q", "--no-report", "--", program, way, count, timeout=SECONDS)
    assert (done.status, done.stdout) == (7, "0 ended otherwise\n"), done.stderr
