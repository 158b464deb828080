# SPDX-License-Identifier: Apache-2.0
"""What becomes of a helper that is missing, refuses, talks rubbish or dies."""

import subprocess

import pytest

from conftest import ROOT
from leakscope import _native
from leakscope.bpf import helper
from leakscope.bpf.helper import BpfUnavailableError, KernelAllocations, KernelFilter
from leakscope.errors import LeakscopeError


@pytest.fixture
def acting(tmp_path, monkeypatch):
    """Put a shell script in the helper's place."""

    def put(text):
        path = tmp_path / "helper"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(_native, "path", lambda _: path)

    return put


def test_a_build_without_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(_native, "path", lambda _: tmp_path / "missing")
    with pytest.raises(BpfUnavailableError, match="no BPF helper") as refused:
        KernelAllocations(KernelFilter())
    assert "--ftrace" in refused.value.hint


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("kfree: errno 1: Operation not permitted", "BPF programs"),
        ("/sys/kernel/btf/vmlinux: errno 2: No such file or directory", "does not describe"),
        ("maps cannot be made: errno 12: Cannot allocate memory", "no room"),
        ("kfree: errno 38: Function not implemented", "has no BPF"),
        ("what: errno 22: Invalid argument", "cannot be used here"),
        ("", "did not start"),
    ],
)
def test_its_refusals_are_sentences(acting, words, match):
    acting(f"echo '{words}' >&2; exit 2")
    with pytest.raises(BpfUnavailableError, match=match):
        KernelAllocations(KernelFilter())


def test_rubbish_is_refused(acting):
    acting("echo this is no greeting of ours, it is rubbish")
    with pytest.raises(LeakscopeError, match="cannot be understood"):
        KernelAllocations(KernelFilter())


def test_one_that_is_killed_is_no_reason_for_another_way(acting):
    acting("kill -9 $$")
    with pytest.raises(LeakscopeError, match="signal 9") as raised:
        KernelAllocations(KernelFilter())
    assert not isinstance(raised.value, BpfUnavailableError)


def test_one_that_hangs_is_given_up(acting, monkeypatch):
    acting("exec sleep 100")
    monkeypatch.setattr(helper, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(helper, "_GONE_S", 0.2)
    with pytest.raises(LeakscopeError, match="did not answer"):
        KernelAllocations(KernelFilter())


def test_a_build_without_a_compiler_for_bpf_leaves_it_out(tmp_path):
    done = subprocess.run(
        ["cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path, "-DLEAKSCOPE_CLANG=/bin/false"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "leakscope-bpf is left out: /bin/false makes no BPF programs here" in done.stdout
    assert "leakscope-bpf:" not in (tmp_path / "build.ninja").read_text()
