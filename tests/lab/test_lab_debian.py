# SPDX-License-Identifier: Apache-2.0
"""Debian's own kernel: no kmemleak, no lines, no stacks of pages. It still says what it can."""

import pytest

from lab_boot import boot, document

pytestmark = pytest.mark.timeout(2400)

SCRIPT = """
section version uname -r
section state $L kernel --json
section text $L kernel
section scan $L kernel scan
section watch $L kernel watch --for 12s --every 2s --json
mount -t securityfs none /sys/kernel/security
echo confidentiality >/sys/kernel/security/lockdown
section locked_objects $L kernel objects filp
section locked_trace $L kernel trace --for 2s
section locked_state $L kernel
"""


@pytest.fixture(scope="module")
def said(debian_kernel, tmp_path_factory):
    return boot(
        SCRIPT,
        tmp_path_factory.mktemp("lab"),
        kernel=debian_kernel / "vmlinuz",
        initrd=debian_kernel / "initrd",
    )


def test_it_tells_what_is_missing_and_what_would_enable_it(said):
    state = document(said["state"])
    sources = {one["name"]: one for one in state["sources"]}
    assert sources["kmemleak"]["state"] == "absent"
    assert sources["kmemleak"]["enable"] == "CONFIG_DEBUG_KMEMLEAK=y"
    assert sources["slab traces"]["state"] == "off"
    assert {name for name, one in sources.items() if one["state"] == "works"} == {
        "slabinfo", "vmallocinfo", "meminfo",
    }  # fmt: skip
    assert any(one["kind"] == "cache" for one in state["holders"])
    assert said["text"].status == 0
    assert "leakscope kernel watch" in said["text"].text


def test_a_scan_is_refused_in_a_sentence(said):
    assert said["scan"].status == 2
    assert "kmemleak cannot be used: not in this kernel" in said["scan"].text
    assert "Traceback" not in said["scan"].text


def test_a_watch_follows_caches_and_buffers(said):
    watched = document(said["watch"])
    assert said["watch"].status == 3
    assert {"slab", "vmalloc", "system"} <= {gauge["kind"] for gauge in watched["gauges"]}
    assert any("source line" in text for text in watched["missing"])


def test_a_kernel_that_is_locked_down_says_what_it_still_can(said):
    words = "the kernel is locked down (confidentiality)"
    for name in ("locked_objects", "locked_trace"):
        assert said[name].status == 2
        assert words in said[name].text
        assert "Traceback" not in said[name].text
    assert said["locked_state"].status == 0
    assert "+ slabinfo" in said["locked_state"].text
