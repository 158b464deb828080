# SPDX-License-Identifier: Apache-2.0
"""How near a cgroup of version 2 is to its bounds; real kills are in tests/integration."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from leakscope.proc.cgroup import Hierarchy
from leakscope.trace.pressure import Pressure, _group

STAT = "anon 700\nfile 300\ninactive_file 200\n"


@pytest.mark.parametrize(
    ("most", "high", "share", "whose"),
    [
        ("1000", "max", 0.8, "the memory limit of its cgroup /a"),
        ("2000", "1000", 0.8, "memory.high of its cgroup /a"),
        ("1000", "2000", 0.8, "the memory limit of its cgroup /a"),
        ("max", "1600", 0.5, "memory.high of its cgroup /a"),
        ("max", "max", None, None),
    ],
)
def test_the_lower_of_two_bounds_counts(tmp_path, most, high, share, whose):
    group = tmp_path / "a"
    group.mkdir()
    for name, text in {
        "memory.stat": STAT,
        "memory.current": "1000",
        "memory.max": most,
        "memory.high": high,
    }.items():
        (group / name).write_text(f"{text}\n")

    squeeze = _group(Hierarchy(str(tmp_path), 2), "/a")

    if share is None:
        assert squeeze is None
    else:
        assert squeeze is not None
        assert (squeeze.share, squeeze.whose) == (pytest.approx(share), whose)


def test_it_looks_more_often_while_the_next_level_is_near(monkeypatch):
    file = SimpleNamespace(path=Path("/nowhere/1.0.live"))
    near = iter([False, True, True, False, False])
    pauses = []

    def wait(seconds):
        pauses.append(seconds)
        return len(pauses) == 6

    pressure = Pressure(lambda: [file], None, 1, None, None)
    monkeypatch.setattr(Pressure, "_look", lambda self, file, look: next(near))
    pressure._stopping = SimpleNamespace(wait=wait, is_set=lambda: False)
    pressure._work()
    assert pauses == [0.5, 0.5, 0.1, 0.1, 0.5, 0.5]
