# SPDX-License-Identifier: Apache-2.0
"""Who was out of memory, as the kernel's log tells: lines as Linux 4.19, 6.1 and 6.18 print them."""

import os
from collections import Counter

import pytest

from leakscope.proc.kmsg import OomKills, parse_oom_kills, read_oom_kills

GROUP = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/box,task_memcg=/box/inner,task=app,pid=7,uid=0"
MACHINE = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice,task=app,pid=8,uid=0"


def test_a_cgroup_at_its_limit_is_not_the_machine():
    said = [
        GROUP,
        "Memory cgroup out of memory: Killed process 7 (app) total-vm:1kB",
        MACHINE,
        "Out of memory: Killed process 8 (app) total-vm:1kB",
    ]
    assert parse_oom_kills(said) == OomKills(1, Counter({"/box": 1}))


def test_older_kernels_print_the_sentence_alone():
    said = [
        "Memory cgroup out of memory: Kill process 7 (app) score 900 or sacrifice child",
        "Out of memory: Kill process 9 (app) score 900 or sacrifice child",
    ]
    assert parse_oom_kills(said) == OomKills(1, Counter({"": 1}))


def test_a_program_that_prints_like_the_kernel_is_not_believed_without_a_kill():
    assert parse_oom_kills(["app: Out of memory, giving up", GROUP]) == OomKills()


@pytest.mark.root
def test_the_log_of_this_kernel_can_be_read():
    if os.geteuid() != 0:
        pytest.skip("the kernel's log is root's")
    if not os.path.exists("/dev/kmsg"):
        pytest.skip("there is no /dev/kmsg here, as in a bare chroot")
    assert isinstance(read_oom_kills(), OomKills)


def test_no_log_is_told_apart_from_no_kills(tmp_path):
    assert read_oom_kills(str(tmp_path / "none")) is None
