# SPDX-License-Identifier: Apache-2.0
"""What is called odd about a machine, without a machine."""

import pytest

from leakscope.judge.triage import Facts, fastest, kernel_growth, next_command, oddities
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.triage import AccountLine, Holder

GIB = 1 << 30
LINES = (
    "unexplained",
    "kernel caches, unreclaimable",
    "page tables",
    "shared memory and tmpfs",
)
SERVER = Subject("process", "7@1", "server", 7, limit=1000.0)


def holder(pid=7, growth=0.0):
    return Holder(pid, "server", 100 << 20, None, 3, 12, growth=growth)


def said(**changes):
    sizes = changes.pop("sizes", {})
    facts = {
        "fields": {"MemTotal": 16 * GIB, "MemAvailable": 12 * GIB},
        "state": {},
        "lines": [AccountLine(name, sizes.get(name, 0), "") for name in LINES],
        "holders": [holder()],
        "measures": [],
        "max_mappings": 65530,
        "own_pid": 99,
    }
    return [o.sentence for o in oddities(Facts(**facts | changes))]


def test_a_machine_at_rest_has_nothing_odd():
    assert said() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fields": {"MemTotal": 16 * GIB, "MemAvailable": GIB}}, "only 1.0 GiB are available"),
        ({"cgroup": ("/a", 95, 100)}, "limit of this cgroup is near"),
        ({"state": {"pressure some avg10": 30.0}}, "30 % of the last 10 s"),
        ({"state": {"oom kills since boot": 2.0}}, "the kernel has killed 2 processes"),
        ({"holders": [holder(growth=5e6)], "homes": {7: "in x"}}, "server (pid 7, in x) grows by 4.8 MiB/s"),
        ({"sizes": {"unexplained": 3 * GIB}}, "3.0 GiB of kernel or driver pages"),
        ({"sizes": {"page tables": GIB}}, "page tables take 1.0 GiB"),
        ({"measures": [Measure(SERVER, "fds", "count", 900)]}, "has 900 of 1,000 descriptors"),
        ({"measures": [Measure(SERVER, "threads", "count", 6000)]}, "has 6,000 threads"),
        ({"deleted": [(SERVER, GIB, "/tmp/log")]}, "keeps 1.0 GiB of deleted files, for one /tmp/log"),
    ],
)  # fmt: skip
def test_what_is_odd(changes, sentence):
    (found,) = said(**changes)
    assert sentence in found


def test_leakscope_itself_is_never_the_one_that_grows():
    ours, other = holder(99, 9e9), holder(7, 2e6)
    assert fastest([ours, other], 99) == [other]
    assert "leakscope watch 7" in next_command([ours, other], 99)


def test_what_grows_in_the_kernel_is_handed_to_the_command_that_looks_into_it():
    cache = Subject("slab", "kmalloc-1k", "kmalloc-1k")
    names = Subject("slab", "dentry", "dentry")
    machine = Subject("system", "machine", "this machine")
    first = [
        Measure(cache, "unreclaimable", "bytes", 1 << 20),
        Measure(names, "reclaimable", "bytes", 1 << 20),
        Measure(machine, "unexplained", "bytes", 1 << 20),
    ]
    second = [
        Measure(cache, "unreclaimable", "bytes", 5 << 20),
        Measure(names, "reclaimable", "bytes", 900 << 20),  # given back on demand
        Measure(machine, "unexplained", "bytes", 9 << 20),  # that much it moves at rest
    ]
    grown = kernel_growth(first, second, 2.0)
    assert grown == [("cache kmalloc-1k", float(2 << 20), 5 << 20)]
    (sentence,) = said(kernel_growth=grown)
    assert sentence == "the kernel's cache kmalloc-1k grows by 2.0 MiB/s and holds 5.0 MiB"
