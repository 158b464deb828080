# SPDX-License-Identifier: Apache-2.0
"""The stacks behind what leaks: of caches, of source lines, of pages; each file is read once."""

import numpy as np
import pytest

from foreign import SAMPLES
from leakscope.kernel import stacks
from leakscope.kernel.mounts import DebugFiles
from leakscope.kernel.stacks import stacks_behind
from leakscope.model.series import Series, Subject, Trend, TrendVerdict

LAB = SAMPLES.parent / "kernel-lab" / "samples-6.12"


def leak(kind, key, name):
    series = Series(Subject(kind, key, name), "allocated", "bytes", np.array([0]), np.array([1.0]))
    return Trend(series, TrendVerdict.LEAK, 0.9, 1.0, 1.0, 1.0, "", None)


@pytest.fixture
def debug(tmp_path):
    for cache in ("dentry", "kmalloc-1k", "kmalloc-2k", "kmalloc-32"):
        (tmp_path / "slab" / cache).mkdir(parents=True)
        text = (LAB / f"slab.{cache}.alloc_traces.txt").read_text()
        (tmp_path / "slab" / cache / "alloc_traces").write_text(text)
    (tmp_path / "page_owner_stacks").mkdir()
    text = (LAB / "page_owner.show_stacks.txt").read_text()
    (tmp_path / "page_owner_stacks" / "show_stacks").write_text(text)
    return DebugFiles(str(tmp_path))


def test_each_kind_has_its_stacks(debug, monkeypatch):
    read = []
    kept = stacks.read_text
    monkeypatch.setattr(
        stacks, "read_text", lambda path, limit: read.append(path) or kept(path, limit)
    )
    found = stacks_behind(
        [
            leak("slab", "dentry", "dentry"),
            leak("allocinfo", "a", "kmemleak_test_init at samples/kmemleak-test.c:45 [kmemleak_test]"),
            leak("page_stack", "p", "mas_alloc_nodes"),
            leak("allocinfo", "m", "mas_alloc_nodes at lib/maple_tree.c:1"),
            leak("vmalloc", "v", "kernel_clone"),
            leak("slab", "../../etc/passwd", "x"),
        ],
        debug,
    )  # fmt: skip
    assert set(found) == {"dentry", "a", "p", "m"}
    assert found["dentry"][0] == "595 objects, allocated by"
    assert found["dentry"][1].strip() == "__d_alloc"
    assert "in kmalloc-" in found["a"][0]
    assert "kmemleak_test_init [kmemleak_test]" in found["a"][1]
    assert "of pages, allocated by" in found["p"][0]
    assert len(read) == len(set(read))


def test_a_kernel_without_stacks_has_none():
    trends = [leak("slab", "dentry", "dentry"), leak("allocinfo", "a", "f at a.c:1")]
    assert stacks_behind(trends, DebugFiles(None)) == {}
