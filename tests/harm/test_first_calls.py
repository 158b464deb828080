# SPDX-License-Identifier: Apache-2.0
"""The first call of a wrapped function comes where the loader's lock is held for ever."""

from harm.conftest import environment


def test_a_child_of_a_thread_does_not_wait_for_the_loaders_lock(build, alone, agent, tmp_path):
    program = build("loaderlock", "O2")
    plain = alone(program)
    variables = environment(LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(tmp_path))
    done = alone(program, env=variables)
    assert (plain.status, plain.stdout) == (7, "0\n")
    assert (done.status, done.stdout) == (plain.status, plain.stdout), done.stderr
    assert list(tmp_path.glob("*.live"))
