# SPDX-License-Identifier: Apache-2.0
"""The line to look at, the identity of a stack, and what the C library keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakscope.judge import judge
from leakscope.judge.identities import Fingerprints
from leakscope.judge.known import known_one_off
from leakscope.judge.places import source_frame
from leakscope.judge.sentences import _without_parameters
from leakscope.model.findings import Verdict
from leakscope.model.frames import Module
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Kind
from unit.judge.lives import NEVER, lives, recording, stack

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
LIBCXX = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30"


def test_the_innermost_own_frame_is_the_source():
    frames = stack("strdup", module=LIBC) + stack("copy_name", "main")
    assert source_frame(frames).function == "copy_name"


@pytest.mark.parametrize("wrapper", ["xmalloc", "g_malloc0", "safe_malloc", "zmalloc", "xstrdup"])
def test_allocation_wrappers_are_passed_over(wrapper):
    assert source_frame(stack(wrapper, "build_table", "main")).function == "build_table"


def test_only_wrappers_are_better_than_nothing():
    assert source_frame(stack("xmalloc")).function == "xmalloc"


def test_containers_of_the_standard_library_are_passed_over():
    frames = (
        *stack("operator new(unsigned long)", module=LIBCXX, file=None, line=None),
        *stack("std::vector<int>::push_back(int)", file="/usr/include/c++/12/bits/stl_vector.h"),
        *stack("Model::add(int)", "main"),
    )
    assert source_frame(frames).function == "Model::add(int)"


def test_a_frame_without_lines_gives_way_to_one_that_has():
    frames = stack("lib_call", module="/usr/lib/libx.so.1", file=None, line=None) + stack("user")
    assert source_frame(frames).function == "user"


def test_no_frames_no_source():
    assert source_frame(()) is None


def test_the_fingerprint_does_not_depend_on_where_modules_are():
    made = recording(lives([1.0], NEVER), lives([1.0], NEVER))
    moved = replace(
        made, modules=(Module("/elsewhere/app", "ab" * 20, 0x7000, 0x9000, 0x7000, unloaded=True),)
    )
    assert Fingerprints(made).of(1) == Fingerprints(moved).of(1)
    assert Fingerprints(made).of(1) != Fingerprints(made).of(2)
    assert len(Fingerprints(made).of(1)) == 16
    other = replace(made, modules=(replace(made.modules[0], build_id="cd" * 20),))
    assert Fingerprints(made).of(1) != Fingerprints(other).of(1)


@pytest.mark.parametrize(
    ("function", "bare"),
    [
        ("f(int)", "f"),
        ("main::{lambda(int)#1}::operator()() const", "main::{lambda(int)#1}::operator()"),
        ("a<b(c)>::f(int (*)(int)) const", "a<b(c)>::f"),
        ("T::operator()(int)", "T::operator()"),
        ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
        ("plain", "plain"),
    ],
)
def test_functions_are_named_without_parameters(function, bare):
    assert _without_parameters(function) == bare


STDIO = (
    *stack("_IO_file_doallocate", "_IO_doallocbuf", "puts", module=LIBC),
    *stack("main"),
)


def test_a_stream_buffer_is_known_while_it_does_not_grow():
    assert known_one_off(STDIO) == "libc one-off: stream buffer"
    once = judge(recording(lives([0.1], NEVER, 4096)), lambda _: STDIO)
    assert once.findings[0].known == "libc one-off: stream buffer"
    many = judge(recording(lives(np.linspace(0, 9.9, 300), NEVER, 4096)), lambda _: STDIO)
    assert many.findings[0].verdict is Verdict.LEAKING
    assert many.findings[0].known is None


def test_what_the_library_hands_out_is_its_callers_leak_when_lost():
    """getaddrinfo without freeaddrinfo four times: proof beats habit."""
    libc = "/usr/lib/x86_64-linux-gnu/libc.so.6"
    names = stack("gaih_inet", "getaddrinfo", module=libc)
    frames = (*names, *stack("resolve", "main"))
    made = recording(lives([0.1, 2.0, 5.0, 8.0], NEVER, 64))
    assert not judge(made, lambda _: frames).leaks
    kinds = np.full(4, Reachability.DEFINITELY_LOST, np.uint8)
    (found,) = judge(replace(made, reachability=kinds), lambda _: frames).leaks
    assert found.lost_bytes == 256


def test_an_interpreters_own_state_at_its_end_is_quiet_and_an_extensions_is_not():
    perl = stack("Perl_safesysmalloc", "perl_construct", "main", module="/usr/bin/perl")
    made = recording(lives([0.1], NEVER, 64))
    lost = replace(made, reachability=np.full(1, Reachability.DEFINITELY_LOST, np.uint8))
    assert not judge(lost, lambda _: perl).leaks
    extension = (*stack("newSV", module="/usr/bin/perl"), *stack("xs", module="/x/X.so"), *perl)
    assert judge(lost, lambda _: extension).leaks


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("/usr/lib/jvm/lib/server/libjvm.so", "Java"),
        ("/usr/bin/node", "V8"),
        ("/usr/share/dotnet/libcoreclr.so", ".NET"),
    ],
)
def test_a_heap_that_is_not_seen_is_said_first_and_its_own_memory_is_quiet(module, name):
    made = recording(*(lives(np.linspace(0, 9.9, 300), NEVER, 4096) for _ in range(20)))
    made = replace(made, modules=(*made.modules, Module(module, None, 0x10000, 0x20000, 0)))
    findings = judge(made, lambda _: stack("os::malloc", "Arena::grow", module=module))
    assert name in findings.headline
    assert name in findings.runtimes[0]
    assert all(found.known for found in findings.findings)
    own = judge(made, lambda _: stack("Java_com_example_Native_leak", module="/app/libx.so"))
    assert not any(found.known for found in own.findings)


def test_cpython_is_blind_only_with_its_own_allocator():
    made = recording(lives([0.1, 0.2], NEVER, 1 << 20))
    python = Module("/usr/bin/python3.11", None, 0x10000, 0x20000, 0)
    made = replace(made, modules=(python,))
    assert not judge(made, lambda _: STDIO).runtimes
    made.sites["kind"][1] = Kind.MMAP
    (text,) = judge(made, lambda _: STDIO).runtimes
    assert "PYTHONMALLOC=malloc" in text


def test_go_is_known_by_its_stacks():
    made = recording(lives([0.1], NEVER))
    findings = judge(made, lambda _: stack("_cgo_1_Cfunc__Cmalloc", "runtime.asmcgocall.abi0"))
    assert "Go" in findings.headline


def test_what_go_maps_for_its_own_heap_is_quiet():
    made = recording(lives([0.1], NEVER, 1 << 26))
    findings = judge(
        made, lambda _: stack("x_cgo_mmap", "runtime.sysReserve", "runtime.mallocinit")
    )
    assert findings.findings[0].known == "run-time: Go's run-time"


@pytest.mark.parametrize(
    "glue",
    [
        ("_cgo_d25755879406_Cfunc__Cmalloc", "runtime.asmcgocall.abi0", "runtime.cgocall"),
        ("_cgo_d25755879406_C2func_open", "runtime/cgo.x", "main._C2func_open.abi0"),
        ("github.com/a/b._cgo_cmalloc.abi0", "github.com/a/b._Cfunc_CString"),
        ("_cgoexp_d25755879406_step", "runtime.cgocallback.abi0", "crosscall2"),
    ],
)
def test_what_cgo_puts_between_is_passed_over(glue):
    assert source_frame(stack(*glue, "main.leaky", "main.main.func1")).function == "main.leaky"


def test_own_code_is_not_known():
    assert known_one_off(stack("_IO_file_doallocate", "main")) is None


def test_the_exception_pool_is_known():
    frames = (
        *stack("pool", module=LIBCXX, function=None),
        *stack("call_init", "_dl_init", module="/usr/lib64/ld-linux-x86-64.so.2"),
    )
    assert known_one_off(frames) == "libstdc++ one-off: exceptions"
