# SPDX-License-Identifier: Apache-2.0
"""What a kernel can tell, and what is in the way: from its log, its configuration and its files."""

import subprocess
import sys
from pathlib import Path

import pytest

from leakscope.kernel import facts
from leakscope.kernel.facts import Ability, kmemleak_trouble, sources
from leakscope.kernel.mounts import DebugFiles

NOTHING = DebugFiles(None, "debugfs may be read by root alone", "sudo leakscope kernel")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([], None),
        (["kmemleak: Kernel memory leak detector initialized (mem pool available: 15805)"], None),
        (["kmemleak: Memory pool empty, consider increasing CONFIG_DEBUG_KMEMLEAK_MEM_POOL_SIZE",
          "kmemleak: Cannot allocate a kmemleak_object structure",
          "kmemleak: Kernel memory leak detector disabled"], "pool of memory was used up"),
        (["kmemleak: Early log buffer exceeded (1000), please increase DEBUG_KMEMLEAK_EARLY_LOG_SIZE",
          "kmemleak: Kernel memory leak detector disabled"], "early log"),
        (["kmemleak: Cannot insert 0xffff888000 into the object search tree (overlaps existing)",
          "kmemleak: Kernel memory leak detector disabled"], "two objects at one address"),
        (["kmemleak: Kernel memory leak detector disabled"], "until the next boot"),
    ],
)  # fmt: skip
def test_why_kmemleak_switched_itself_off(monkeypatch, log, words):
    monkeypatch.setattr(facts, "read_log", lambda wanted: [(1.0, t) for t in log if wanted(t)])
    trouble = kmemleak_trouble()
    assert trouble is None if words is None else words in trouble


def test_no_log_is_no_trouble(monkeypatch):
    monkeypatch.setattr(facts, "read_log", lambda wanted: None)
    assert kmemleak_trouble() is None


def named(debug, config):
    return {one.name: one for one in sources(debug, config)}


def test_what_is_not_built_in_is_absent_and_what_may_not_be_read_is_denied():
    absent = named(NOTHING, {"CONFIG_SLUB_DEBUG": "y"})
    assert absent["kmemleak"].state == Ability.ABSENT
    assert absent["kmemleak"].enable == "CONFIG_DEBUG_KMEMLEAK=y"
    denied = named(NOTHING, {"CONFIG_DEBUG_KMEMLEAK": "y", "CONFIG_PAGE_OWNER": "y"})
    assert denied["kmemleak"].state == Ability.DENIED
    assert denied["page_owner"].enable == "sudo leakscope kernel"


def test_what_is_built_in_and_switched_off(tmp_path, monkeypatch):
    debug = DebugFiles(str(tmp_path))
    config = {"CONFIG_DEBUG_KMEMLEAK": "y", "CONFIG_DEBUG_KMEMLEAK_DEFAULT_OFF": "y", "CONFIG_PAGE_OWNER": "y", "CONFIG_SLUB_DEBUG": "y"}  # fmt: skip
    off = named(debug, config)
    assert (off["kmemleak"].state, off["kmemleak"].enable) == (Ability.OFF, "boot with kmemleak=on")  # fmt: skip
    assert off["page_owner"].enable == "boot with page_owner=on"
    assert "=U" in off["slab traces"].enable
    assert all(off[name].why != "off" for name in ("kmemleak", "page_owner", "slab traces"))
    (tmp_path / "kmemleak").write_text("")
    (tmp_path / "page_owner").write_text("")
    (tmp_path / "slab" / "dentry").mkdir(parents=True)
    monkeypatch.setattr(facts, "read_log", lambda wanted: [])
    assert all(named(debug, config)[n].works for n in ("kmemleak", "page_owner", "slab traces"))


def test_debugfs_is_mounted_where_nobody_else_sees_it():
    code = (
        "from leakscope.kernel.mounts import open_debug_files; debug = open_debug_files();"
        "print(debug.own or debug.root is not None, debug.why)"
    )
    before = Path("/proc/mounts").read_text().count(" debugfs ")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(("True", "False debugfs")), done.stdout
    assert Path("/proc/mounts").read_text().count(" debugfs ") == before
