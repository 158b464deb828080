# SPDX-License-Identifier: Apache-2.0
"""What Python reads and writes of native memory lies where the C compiler puts it."""

import ctypes
import subprocess

import numpy as np
import pytest

from conftest import ROOT
from leakscope.bpf import wire
from leakscope.java import _core
from leakscope.java._core import HeapTable
from leakscope.trace.attach import detach, handover

HPROF = "hprof/hprof.h"
KMEM = "bpf/kmem.h"
KEY = dict.fromkeys(("stack", "cache", "size", "kind", "flags"))
LIST = (  # header, structure, type in Python, and what a member of another name is called in C
    (HPROF, "struct link", _core.Link, {}),
    (HPROF, "struct sizes", _core.Sizes, {}),
    (HPROF, "struct facts", _core.DumpFacts, {}),
    (HPROF, "struct text", _core._DTYPES[HeapTable.TEXTS], {}),
    (HPROF, "struct loaded", _core._DTYPES[HeapTable.LOADS], {}),
    (HPROF, "struct frame", _core._DTYPES[HeapTable.FRAMES], {}),
    (HPROF, "struct trace", _core._DTYPES[HeapTable.TRACES], {}),
    (HPROF, "struct root", _core._DTYPES[HeapTable.ROOTS], {}),
    (HPROF, "struct heap_part", _core._DTYPES[HeapTable.PARTS], {}),
    (HPROF, "struct class", _core._DTYPES[HeapTable.CLASSES], {}),
    (HPROF, "struct field", _core._DTYPES[HeapTable.FIELDS], {}),
    (HPROF, "struct object", _core._DTYPES[HeapTable.OBJECTS], {}),
    (HPROF, "struct weak", _core._DTYPES[HeapTable.REFERENCES], {"rest": "reserved"}),
    (KMEM, "struct lsb_header", wire._HEADER, {}),
    (KMEM, "struct lsb_hello", wire._HELLO, {}),
    (
        KMEM,
        "struct lsb_site_record",
        wire.SITE,
        {name: f"key.{name}" for name in KEY}
        | {name: f"site.{name}" for name in ("allocs", "alloc_bytes", "frees", "freed_bytes")}
        | {"first": "site.first_ns", "last": "site.last_ns"}
        | {"ages": "site.ages", "reused": "site.reused"},
    ),
    (
        KMEM,
        "struct lsb_stack_record",
        wire.STACK,
        {"frames": "stack.frames", "zero": "stack.zero", "ip": "stack.ip"},
    ),
    (
        KMEM,
        "struct lsb_cache_record",
        wire.CACHE,
        {name: f"told.{name}" for name in ("name", "size", "object_size", "flags", "wanted")},
    ),
    (
        KMEM,
        "struct lsb_task_record",
        wire.TASK,
        {"comm": "task.comm", "first": "task.first_ns"},
    ),
    (
        KMEM,
        "struct lsb_block_record",
        wire.BLOCK,
        {name: f"block.site.{name}" for name in KEY}
        | {"birth": "block.birth_ns", "bytes": "block.size"}
        | {"tgid": "block.tgid", "zero": "block.zero"},
    ),
    (
        KMEM,
        "struct lsb_moment",
        wire.COUNTERS,
        {"now": "now_ns", "runs": "runs", "run_ns": "run_ns"}
        | {
            name: f"total.{name}"
            for name in ("allocs", "alloc_bytes", "frees", "matched", "samples", "drops", "left")
        },
    ),
    ("agent/door_inject.h", "struct ls_entry", handover._ENTRY, {}),
    ("agent/self.h", "struct ls_slot", detach._SLOT, {"thread": "tls.thread", "busy": "tls.busy"}),
)
BEFORE = {
    KMEM: "#include <linux/types.h>\n",
    "agent/self.h": '#define LS_INJECT 1\n#include "agent/local.h"\n',
}


def members(layout):
    """Yield name, offset and size of each member, and the size of all as that of one without a name."""
    if isinstance(layout, np.dtype):
        for name, (dtype, offset, *_) in (layout.fields or {}).items():
            yield name, offset, dtype.itemsize
        yield "", 0, layout.itemsize
    elif isinstance(layout, type):
        for name, *_ in layout._fields_:
            field = getattr(layout, name)
            yield name, field.offset, field.size
        yield "", 0, ctypes.sizeof(layout)
    else:  # of struct.Struct no more is known
        yield "", 0, layout.size


def checks(structure, layout, renamed):
    for name, offset, size in members(layout):
        member = renamed.get(name, name)
        if not member:
            yield f'_Static_assert(sizeof({structure}) == {size}, "{structure}");'
        elif name != "rest" or structure != "struct ls_slot":  # (six members that are not read)
            at = f"__builtin_offsetof({structure}, {member})"
            yield f'_Static_assert({at} == {offset}, "{member}");'
            yield f'_Static_assert(sizeof((({structure} *)0)->{member}) == {size}, "{member}");'


def compiled(header, lines, folder):
    source = folder / "layout.c"
    text = BEFORE.get(header, "") + f'#include "{header}"\n' + "\n".join(lines) + "\n"
    source.write_text(text, encoding="utf-8")
    return subprocess.run(
        ["gcc", "-std=gnu11", "-fsyntax-only", "-I", ROOT / "native", "-I", ROOT / "native/include",
         source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "structure", "layout", "renamed"), LIST, ids=[row[1].split()[1] for row in LIST]
)
def test_python_and_c_agree_on_a_structure(header, structure, layout, renamed, tmp_path):
    lines = list(checks(structure, layout, renamed))
    done = compiled(header, lines, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_member_elsewhere_is_noticed(tmp_path):
    other = np.dtype([("id", "<u8"), ("length", "<u4"), ("reserved", "<u4"), ("offset", "<u8")])
    done = compiled(HPROF, list(checks("struct text", other, {})), tmp_path)
    assert done.returncode != 0
    assert "static assertion failed" in done.stderr
