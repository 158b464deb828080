# SPDX-License-Identifier: Apache-2.0
"""C code that allocates on behalf of a goroutine: its Go caller is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import describe

PROGRAMS = Path(__file__).parents[1] / "programs"


def built(source: Path, folder: Path) -> Path:
    """Compile a Go program; Go keeps what it compiled of its own library for the next one."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed; tools/setup-debian --test does it")
    shutil.copy(source, folder / "main.go")
    (folder / "go.mod").write_text("module prog\n\ngo 1.19\n")
    environment = os.environ | {"GOFLAGS": "", "GOTOOLCHAIN": "local", "CGO_ENABLED": "1"}
    subprocess.run(
        ["go", "build", "-o", "prog", "."], cwd=folder, env=environment, check=True, timeout=200
    )
    return folder / "prog"


def functions(finding: dict[str, Any]) -> list[str]:
    """Names of a stack's functions, innermost first."""
    return [str(frame["function"] or frame["symbol"]) for frame in finding["stack"]]


def test_what_c_allocates_is_grouped_by_its_go_caller(trace, tmp_path):
    traced = trace([built(PROGRAMS / "cases/cgo/main.go", tmp_path)])

    why = describe(traced)
    assert traced.program["process"]["exit_status"] == 3, why
    found = {
        where: each
        for each in traced.findings
        for where in ("_cgo_cmalloc", "_Cfunc_forget")
        if any(where in name for name in functions(each))
    }
    strings, forgotten = found["_cgo_cmalloc"], found["_Cfunc_forget"]
    assert strings["live_count"] == 2000, why
    assert strings["source"]["function"] == "main.leaky", why
    assert Path(strings["source"]["file"]).name == "main.go", why
    assert strings["source"]["line"] == 14, why
    assert "main.main.func1" in functions(strings), why
    assert (forgotten["live_count"], forgotten["live_bytes"]) == (200, 60000), why
    assert forgotten["source"]["function"] == "forget", why
    assert "main.main.func1" in functions(forgotten), why
    for each in found.values():
        assert each["is_leak"] or each["verdict"] in {"growing", "filling", "unknown"}, why
    # The first that is said is whose heap is not seen; and what was not examined is told.
    assert "heap of Go's run-time is not seen from here" in traced.program["headline"], why
    assert "go tool pprof" in traced.program["runtimes"][0], why
    assert any("was not examined" in note for note in traced.program["notes"]), why
    heap = [each for each in traced.findings if functions(each)[0] == "x_cgo_mmap"]
    assert heap, why
    assert all(each["known"] == "run-time: Go's run-time" for each in heap), why


def test_a_stack_goes_through_go_and_c_and_go_again(trace, tmp_path):
    traced = trace([built(PROGRAMS / "cgo_callback/main.go", tmp_path)])

    why = describe(traced)
    assert traced.stdout == "done\n", why
    whole = Counter[str]()
    for each in traced.findings:
        names = functions(each)
        if names[0] != "lose":
            continue
        inner, outer = names.index("main.goStep"), names.index("runtime.cgocall", 8)
        assert "crosscall2" in names[inner:outer], why
        if "main.request" in names:
            assert names[names.index("main.request") - 1].startswith("main._Cfunc_outer"), why
            whole[names[names.index("main.request") + 1]] += each["live_count"]
    # Before Go 1.21 the frame pointer of a stack that has moved is not put right: such a stack
    # ends at what was outgrown, once for each doubling of the four goroutines' stacks.
    assert whole["main.main.func1"] > 760, why
    assert whole["main.main"] <= 1, why
    assert "held at the end" not in traced.program["headline"], why  # what Go reserved
    assert sum(e["live_count"] for e in traced.findings if functions(e)[0] == "lose") == 801, why
