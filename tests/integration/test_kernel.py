# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel` on the kernel that the tests run on, whatever it tells (tests/lab has more)."""

import json
import os
import subprocess
import sys

import pytest

from leakscope.kernel.facts import kernel_config


def kernel(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "leakscope", "kernel", *arguments],
        capture_output=True, text=True, check=False, timeout=100, **options,
    )  # fmt: skip


def test_there_is_a_verdict_whatever_the_kernel_tells():
    said = kernel("--json")
    assert (said.returncode, said.stderr) == (0, "")
    state = json.loads(said.stdout)
    assert state["verdict"].startswith("the kernel holds ")
    assert state["total"] > state["kernel"] > 0
    sources = {one["name"]: one for one in state["sources"]}
    assert sources["meminfo"]["state"] == "works"
    for one in sources.values():
        assert one["state"] == "works" or (one["why"] and (one["enable"] or one["state"] != "off"))
    text = kernel()
    assert text.stdout.startswith("leakscope: the kernel holds")
    assert text.stdout.rstrip().split("\n")[-1].startswith("Next: ")


def test_what_it_holds_is_a_recording(tmp_path):
    assert kernel("-o", str(tmp_path / "held.leakscope")).returncode == 0
    said = subprocess.run(
        [sys.executable, "-m", "leakscope", "report", "--json", tmp_path / "held.leakscope"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (one,) = json.loads(said.stdout)["processes"]
    assert one["process"]["executable"] == f"Linux {os.uname().release}"
    assert one["coverage"]["mode"] in {"allocinfo", "slabinfo"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scan", "--off"], "--irreversible"),
        (["scan", "--dump", "zz"], "is no address"),
        (["scan", "--auto", "often"], "no length of time"),
        (["scan", "--for", "3s"], "belongs to --new-only"),
        (["scan", "--clear", "--new-only"], "do not go together"),
        (["watch", "--every", "100d"], "too long"),
        (["watch", "--every", "0.1s"], "too short"),
        (["scan", "--report-file", "/nowhere/x"], "cannot be written"),
        (["frob"], "is none of state, watch"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(arguments, words):
    said = kernel(*arguments)
    assert said.returncode == 2
    assert words in said.stderr
    assert "Traceback" not in said.stderr


def test_a_scan_without_kmemleak_says_what_to_build():
    if kernel_config().get("CONFIG_DEBUG_KMEMLEAK") == "y":
        return  # the lab scans
    said = kernel("scan")
    assert said.returncode == 2
    assert "kmemleak cannot be used" in said.stderr
    assert "To have it: CONFIG_DEBUG_KMEMLEAK=y. Without it: leakscope kernel watch" in said.stderr


def test_the_next_step_of_a_watch_is_a_watch_of_the_kernel():
    lines = kernel("watch", "--for", "2s").stdout.rstrip().split("\n")
    assert "leakscope watch PID" not in lines[0]
    assert "leakscope watch --for" not in lines[-1]


def test_a_watch_is_recorded_and_judged_again(tmp_path):
    record = tmp_path / "kernel.watch"
    said = kernel("watch", "--for", "4s", "--every", "1s", "--json", "--record", str(record))
    watched = json.loads(said.stdout)
    assert said.returncode == 3, said.stderr
    kinds = {gauge["kind"] for gauge in watched["gauges"]}
    assert "system" in kinds
    assert not {g["metric"] for g in watched["gauges"]} & {"anon", "pss", "used"}
    again = subprocess.run(
        [sys.executable, "-m", "leakscope", "report", "--json", record],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert {g["kind"] for g in json.loads(again.stdout)["gauges"]} == kinds
