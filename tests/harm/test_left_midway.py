# SPDX-License-Identifier: Apache-2.0
"""A signal handler comes into the middle of a hook: it does not go back, or does in a forked child."""

import pytest

from harm.conftest import environment
from leakscope.recording import live

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


@pytest.mark.parametrize("mode", [(), ("--sample", "4KiB")], ids=["exact", "sampled"])
def test_a_child_forked_by_a_handler_inside_the_allocator_goes_on(build, alone, leakscope, mode):
    program = build("handlerfork", "O2")
    plain = alone(program, 12)
    done = leakscope("run", "-q", "--no-report", *mode, "--", program, 12, timeout=SECONDS)
    assert (plain.status, plain.stdout) == (7, "12 forks, 0 ended otherwise\n")
    assert (done.status, done.stdout) == (plain.status, plain.stdout), done.stderr


@pytest.mark.parametrize("sample", ["", "4096"], ids=["exact", "sampled"])
@pytest.mark.parametrize("way", ["fork", "_Fork", "syscall"])
def test_a_child_forked_by_a_handler_inside_the_agent_goes_on(
    build, alone, agent, tmp_path, way, sample
):
    program = build("midfork", "O2")
    plain = alone(program, way, 60)
    variables = environment(
        LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(tmp_path), LEAKSCOPE_SAMPLE=sample
    )
    done = alone(program, way, 60, env=variables, timeout=SECONDS)
    assert (plain.status, plain.stdout) == (7, "0 ended otherwise\n")
    assert (done.status, done.stdout) == (plain.status, plain.stdout), done.stderr
    recordings = [live.read(path) for path in tmp_path.glob("*.live")]
    assert len(recordings) == 61
    parents = [r for r in recordings if not r.process.forked_from]
    # What children finish is not in it: all is freed but the buffer of standard output.
    assert [len(r.blocks) <= 1 for r in parents] == [True]
    assert all(not r.coverage.dropped for r in parents)
