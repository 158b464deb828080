# SPDX-License-Identifier: Apache-2.0
"""Allocation helpers are known by what the recorded stacks and the machine code tell of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakscope.judge.places import Places, source_frame
from leakscope.judge.sentences import _of
from leakscope.model.frames import Address, Code, Frame, plain_name
from unit.judge.lives import NEVER, lives, recording, stack

BYTES, OBJECT, NOTHING = Code("bytes", 60), Code("object", 60), Code("nothing", 60)


def places(stacks, code, sizes=(8, 8)):
    made = recording(*(lives([1.0], NEVER, size) for size in sizes))
    found = Places(made, dict(enumerate(stacks, 1)), lambda frame: code.get(frame.function, Code()))
    return [
        (place.source.function, tuple(f.function for f in place.through))
        for place in map(found.of, range(1, len(stacks) + 1))
    ]


def two(*inner, callers=("one", "two")):
    """Two stacks: the inner functions called by two others, from two lines."""
    made = [stack(*inner, caller, "main") for caller in callers]
    at = len(inner)
    return [
        (
            *each[:at],
            replace(each[at], line=100 + n, address=Address(0, 0x500 + n)),
            *each[at + 1 :],
        )
        for n, each in enumerate(made)
    ]


def test_what_returns_plain_memory_to_several_callers_is_a_helper():
    assert places(two("grab"), {"grab": BYTES}) == [("one", ("grab",)), ("two", ("grab",))]


def test_two_lines_of_one_function_are_two_callers():
    stacks = two("grab", callers=("load", "load"))
    assert places(stacks, {"grab": BYTES}) == [("load", ("grab",)), ("load", ("grab",))]


@pytest.mark.parametrize(
    ("code", "sizes"),
    [
        (NOTHING, (8, 80)),  # it keeps or loses what it got
        (Code("value", 60), (8, 80)),
        (OBJECT, (8, 8)),  # makes one kind of thing
        (Code("bytes", 4000), (8, 80)),  # too large for a helper
        (Code(), (8, 80)),  # nobody knows what it returns, and its name does not tell
    ],
)
def test_what_is_no_helper(code, sizes):
    assert places(two("make"), {"make": code}, sizes) == [("make", ())] * 2


def test_what_makes_objects_of_several_sizes_is_a_helper():
    assert places(two("create"), {"create": OBJECT}, (8, 80))[0] == ("one", ("create",))


def test_with_one_caller_it_is_the_place_itself():
    stacks = [stack("grab", "load", "main")] * 2
    assert places(stacks, {"grab": BYTES}) == [("grab", ())] * 2


def test_helpers_around_helpers():
    stacks = two("inner", "outer")
    found = places(stacks, {"inner": BYTES, "outer": BYTES})
    assert found == [("one", ("inner", "outer")), ("two", ("inner", "outer"))]


def test_what_other_allocating_code_calls_through_is_no_helper():
    stacks = [*two("parse"), stack("table_add", "parse", "one", "main")]
    assert places(stacks, {"parse": BYTES}, (8, 80, 8))[:2] == [("parse", ())] * 2


def test_a_caller_that_freed_everything_counts_as_well():
    made = recording(lives([1.0], NEVER))
    nodes = np.zeros(5, made.nodes.dtype)
    nodes["module"], nodes["offset"] = 1, [0, 0x10, 0x20, 0x0, 0x0]
    nodes["parent"] = [0, 0, 0, 1, 2]  # 3 and 4: the helper, called from 1 and from 2
    frames = {1: stack("grab", "one", "main")}

    found = Places(replace(made, nodes=nodes), frames, lambda _: BYTES).of(1)

    assert found.source.function == "one"


def test_void_functions_are_no_wrappers_whatever_their_name():
    assert places(two("my_alloc"), {"my_alloc": NOTHING})[0] == ("my_alloc", ())


@pytest.mark.parametrize(
    "file",
    [
        "/usr/include/c++/12/bits/stl_vector.h",
        "/usr/local/include/absl/hash.h",
        "/opt/vendor/include/pool.hpp",
        "/opt/vendor/1.2/include/pool.hpp",
        "/usr/lib/llvm-14/include/c++/v1/string",
        "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/alloc/src/raw_vec/mod.rs",
        "/usr/src/rustc-1.63.0/library/alloc/src/vec/mod.rs",
        "/rust/deps/hashbrown-0.16.1/src/raw/alloc.rs",
        "/home/u/.cargo/registry/src/index.crates.io-6f17d22bba15001f/bytes-1.0/src/bytes.rs",
    ],
)
def test_an_inlined_header_is_not_blamed(file):
    frames = (*stack("grow", file=file, inlined=True), *stack("user", "main"))
    assert source_frame(frames).function == "user"


def test_a_library_of_the_system_is_not_blamed_unless_the_program_is_the_systems():
    library = stack("tree_new", module="/usr/lib/x86_64-linux-gnu/libtree.so.1")
    own = stack("user", "main", file=None, line=None)
    assert source_frame((*library, *own), "/home/u/app").function == "user"
    assert source_frame((*library, *own), "/usr/bin/app").function == "tree_new"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("grab", "grab"),
        ("util::P::cdup(int) const", "util::P::cdup"),
        ("Foo* create<Foo, int>(int)", "create<Foo, int>"),
        ("std::unique_ptr<A, std::default_delete<A> > mk<A>()", "mk<A>"),
        ("Pool::operator new(unsigned long)", "Pool::operator new"),
        ("(anonymous namespace)::make(int)", "(anonymous namespace)::make"),
    ],
)
def test_the_plain_name(name, plain):
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    ("count", "whole", "said"),
    [
        (0, 1, "the only block is not"),
        (1, 1, "the only block is"),
        (0, 2, "none of the 2 blocks is"),
        (1, 2, "1 of 2 blocks is"),
        (2999, 3000, "2,999 of 3,000 blocks are"),
        (3000, 3000, "all 3,000 blocks are"),
    ],
)
def test_blocks_agree_with_their_verb(count, whole, said):
    assert _of(count, whole) == said


def test_frames_without_a_module_have_places_too():
    bare = (Frame(Address(None, 0x10)), Frame(Address(None, 0x20)))
    assert Places(recording(lives([1.0], NEVER)), {1: bare}).of(1).source == bare[0]
