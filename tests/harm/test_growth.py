# SPDX-License-Identifier: Apache-2.0
"""What tracing costs grows as what the program does, in time and in memory."""

import re


def test_sixty_thousand_mappings(build, alone, agent, tmp_path):
    """Eight times as many cost about eight times as much; they cost 64 times as much in 0.1."""
    program = build("maplimit", "O2")
    env = {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(tmp_path)}

    def mapping(count):
        done = alone(program, count, env=env)
        assert "as wanted" in done.stderr
        assert "bad 0" in done.stderr
        return sum(map(float, re.findall(r"(?:wanted\)|munmap) ([0-9.]+)s", done.stderr)))

    few, many = zip(*((mapping(7500), mapping(60000)) for _ in range(2)), strict=True)
    assert min(many) < 24 * max(min(few), 0.03)


def test_many_stacks_on_many_threads(build, alone, agent, tmp_path):
    """Memory for a stack does not depend on the number of threads that met it."""
    program = build("tstacks", "O2")
    env = {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(tmp_path)}

    def resident(bits, rounds, threads):
        done = alone(program, bits, rounds, threads, env=env)
        return int(re.findall(r"VmRSS:\s+(\d+)", done.stderr)[0]) << 10

    stacks = 1 << 14
    nothing = resident(0, 2000, 32)
    much = resident(14, 20000, 32)
    own = 32 * (1 << 20)  # what each thread remembers of its stacks
    assert much - nothing < stacks * 800 + own


def test_a_forked_child_costs_little(build, alone, agent, tmp_path):
    """It begins with what its parent knows: 70 pages are touched for it, in 0.1 it was 220."""
    program = build("children", "O2")
    env = {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(tmp_path)}

    def faults(**options):
        return int(re.findall(r"faults (\d+)", alone(program, **options).stdout)[0])

    assert faults(env=env) < faults() + 110
