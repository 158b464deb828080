# SPDX-License-Identifier: Apache-2.0
"""A kernel that tells all: every way of leaking is named by function and line, and nothing else."""

import pytest

from lab_boot import boot, document, source_lines

pytestmark = pytest.mark.timeout(2400)

# What module/leaks.c loses, by the function that asked for memory: kind, objects, bytes.
LOST = {
    "leaks_lose_object": ("kmem_cache_alloc", 1, 328),
    "leaks_lose_kmalloc": ("kmalloc", 200, 200 * 96),
    "leaks_lose_vmalloc": ("vmalloc", 20, 20 * 3 * 4096),
    "leaks_lose_percpu": ("percpu", 10, 640),
    "leaks_on_error": ("kmalloc", 10, 5120),
}
SCRIPT = r"""
section empty $L kernel --json
insmod {module}/leaks.ko
(echo once >/proc/leaks)
(echo loop >/proc/leaks)
section scan $L kernel scan --json --debug-dir {module}
section state $L kernel --json
section mounts grep -c debugfs /proc/mounts
section lines grep leaks /proc/allocinfo
(until ls /run/leakscope/kmemleak-*.txt 2>/dev/null; do sleep 1; done; sleep 1; echo once >/proc/leaks) >/run/waited &
section new $L kernel scan --new-only --for 15s --json --debug-dir {module}
rmmod leaks
section unloaded $L kernel scan --json --debug-dir {module}
section cleared $L kernel scan --clear
section saved ls /run/leakscope
section nothing $L kernel scan --json
object=$(sed -n 's/unreferenced object \(0x[0-9a-f]*\).*/\1/p' /run/leakscope/kmemleak-*.txt | head -n1)
section dump $L kernel scan --dump $object
section unknown $L kernel scan --dump 0xffff888000001001
section auto $L kernel scan --auto off
section off $L kernel scan --off --irreversible
section refused $L kernel scan
"""  # fmt: skip


@pytest.fixture(scope="module")
def said(lab_kernel, tmp_path_factory):
    return boot(
        SCRIPT.format(module=f"{lab_kernel}/leaks"),
        tmp_path_factory.mktemp("lab"),
        kernel=lab_kernel / "arch/x86/boot/bzImage",
        append="page_owner=on slub_debug=U kmemleak=on",
    )


def by_function(answer):
    (process,) = document(answer)["processes"]
    return {f["source"]["function"]: f for f in process["findings"]}


def test_a_kernel_at_rest_has_no_suspects(said):
    state = document(said["empty"])
    assert (said["empty"].status, state["suspects"], state["oddities"]) == (0, 0, [])
    assert {s["name"]: s["state"] for s in state["sources"]} == dict.fromkeys(
        ("kmemleak", "allocinfo", "page_owner", "slab traces", "slabinfo", "vmallocinfo", "meminfo"),
        "works",
    )  # fmt: skip


def test_each_leak_is_named_by_function_and_line_and_nothing_else_is(said, lab_kernel):
    assert said["scan"].status == 1
    places = source_lines(lab_kernel / "leaks/leaks.c")
    found = by_function(said["scan"])
    told = {name: (f["kind"], f["source"]["line"]) for name, f in found.items()}
    assert told == {name: (kind, places[name]) for name, (kind, _, _) in LOST.items()}
    for name, (_, count, size) in LOST.items():
        # Stale words in memory of others hide some, as in every conservative search; none is invented.
        lost = found[name]["lost_count"]
        assert count * 3 // 4 <= lost <= count, (name, lost)
        assert found[name]["lost_bytes"] == size * lost // count


def test_pages_and_what_a_bounded_cache_keeps_are_in_the_lines(said):
    lines = {line.split("func:")[1].strip(): line.split()[:2] for line in said["lines"].text.split("\n") if "func:" in line}  # fmt: skip
    assert lines["leaks_lose_pages"] == [str(50 * 2 * 4096), "50"]
    assert lines["leaks_remember"][1] == "64"
    holders = {h["name"].split(" ")[0]: h for h in document(said["state"])["holders"]}
    assert holders["leaks_lose_vmalloc"]["bytes"] == 20 * 3 * 4096


def test_debugfs_is_mounted_for_nobody_else(said):
    assert said["mounts"].text.strip() == "0"


def test_only_what_is_new_is_told_after_clearing(said):
    found = by_function(said["new"])
    assert (said["new"].status, set(found)) == (1, {"leaks_lose_object"})
    assert found["leaks_lose_object"]["lost_count"] == 1
    assert "left out: 2" in said["new"].text
    assert "are saved in" in said["new"].text


def test_code_is_named_after_its_module_is_gone(said):
    found = by_function(said["unloaded"])
    assert set(LOST) <= set(found)
    assert 150 <= found["leaks_lose_kmalloc"]["lost_count"] <= 200


def test_clearing_saves_the_report_and_says_what_it_hides(said):
    assert said["cleared"].status == 0
    assert "now hidden" in said["cleared"].text
    assert "kmemleak-" in said["saved"].text
    assert (said["nothing"].status, by_function(said["nothing"])) == (0, {})


def test_controls_and_what_is_refused_after_the_end(said):
    assert said["dump"].status == 0
    assert "kmemleak: Object 0xff" in said["dump"].text
    assert (said["unknown"].status, "knows no object" in said["unknown"].text) == (2, True)
    assert "scans: off" in said["auto"].text
    assert "off until the next boot" in said["off"].text
    assert said["refused"].status == 2
    assert "kmemleak cannot be used" in said["refused"].text
    assert "Traceback" not in said["refused"].text
