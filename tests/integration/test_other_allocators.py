# SPDX-License-Identifier: Apache-2.0
"""Programs that bring another allocator, preloaded or linked, are traced on top of it."""

import subprocess
from pathlib import Path

import pytest

from allocators import NAMES, library
from integration.claims import claim
from integration.conftest import describe, place


@pytest.fixture(params=NAMES)
def allocator(request):
    return library(request.param)


@pytest.mark.parametrize("program", ["leak_loop", "cache_bound", "cpp_new_leak"])
def test_preloaded_allocator_changes_no_verdict(program, allocator, trace, tmp_path):
    source = claim(program)

    traced = trace([source.build(tmp_path, "O2")], env={"LD_PRELOAD": str(allocator)})

    why = describe(traced)
    assert traced.stdout == source.stdout, why
    assert {place(each) for each in traced.leaks} == source.leaks, why
    assert traced.returncode == (1 if source.leaks else 0), why
    assert Path(traced.program["process"]["allocator"]).name.startswith(allocator.stem[:10]), why


def test_linked_allocator_is_traced(allocator, trace, tmp_path):
    source = claim("leak_loop")
    program = tmp_path / "linked"
    subprocess.run(["gcc", "-O2", "-g", source.source, "-o", program, allocator], check=True)

    traced = trace([program])

    why = describe(traced)
    assert {place(each) for each in traced.leaks} == source.leaks, why
    assert Path(traced.program["process"]["allocator"]).name.startswith(allocator.stem[:10]), why


def test_realloc_and_alignment_work_on_top(allocator, trace, tmp_path):
    for name in ("realloc_all", "cpp_new_family"):
        program, env = claim(name).build(tmp_path, "O2"), {"LD_PRELOAD": str(allocator)}
        # jemalloc leaves errno alone when realloc fails, so realloc_all ends early with it.
        native = subprocess.run([program], env=env, capture_output=True, text=True, check=False)
        traced = trace([program], env=env)
        assert traced.stdout == native.stdout, describe(traced)
        if native.returncode == 0:
            assert not traced.leaks, describe(traced)
