# SPDX-License-Identifier: Apache-2.0
"""Servers of several processes are followed, and their clients see nothing of it."""

import tempfile
import threading
import time
from pathlib import Path

import pytest

from harm.attaching import MAX_PAUSE_S
from harm.conftest import environment
from harm.servers import SERVERS
from leakscope.errors import TargetError
from leakscope.trace.attach.family import Family
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Wishes

CYCLES, HOLD_S = 2, 3.0


def left(pids):
    """Return those that something of leakscope is left in."""
    found = []
    for pid in pids:
        try:
            if find_attached(pid) is not None:
                found.append(pid)
        except TargetError:  # it has ended
            continue
    return found


@pytest.fixture
def folder():
    """Return a folder that a server's own user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("name", ["nginx", "postgres"])
def test_a_server_is_followed_and_its_clients_see_nothing(name, folder):
    server = SERVERS[name](folder, [], environment())
    server.start()
    stop, troubles, recorded, answers = threading.Event(), [], set(), []

    def load():
        seed = 1
        while not stop.is_set():
            try:
                answers.append(len(server.load(1.0, seed)))
            except BaseException as trouble:  # noqa: BLE001 - looked at below
                troubles.append(trouble)
                return
            seed += 1

    clients = threading.Thread(target=load)
    clients.start()
    try:
        for _ in range(CYCLES):
            with Family(
                make_plan(server.pid), Wishes(), MAX_PAUSE_S,
                lambda recording, session: recorded.add(session.plan.pid),
            ) as family:  # fmt: skip
                family.wait(HOLD_S, lambda seconds: time.sleep(seconds) or False)
                family.detach()
            assert family.attached > 1
            assert family.problems == []
            assert family.unclean == []
            assert left(server.tree()) == []
    finally:
        stop.set()
        clients.join()
        status = server.stop()
    assert troubles == []
    assert sum(answers)
    assert status == 0, server.output()[-400:]
    assert recorded - {server.pid}
