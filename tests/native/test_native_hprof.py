# SPDX-License-Identifier: Apache-2.0
"""The analyser of heap dumps under the sanitizers, over dumps that were damaged in all ways."""

import gzip
import random
import re
import subprocess

import pytest

from conftest import ROOT
from java_dumps import SAMPLE, Dump
from leakscope.java import _core

NATIVE = ROOT / "native"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    out = tmp_path_factory.mktemp("hprof") / "test_hprof"
    done = subprocess.run(
        ["gcc", "-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=all", "-I", NATIVE / "hprof", *sorted((NATIVE / "hprof").glob("*.c")),
         NATIVE / "tests/test_hprof.c", "-o", out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def run(program, *files):
    done = subprocess.run(
        [program, *files], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-4000:]


def small(id_size=8, *, android=False):
    dump = Dump(id_size, "1.0.3" if android else "1.0.2")
    base = dump.define(0x100, "java/lang/Object")
    ref = dump.define(0x110, "java/lang/ref/Reference", base, fields=[("referent", "object")])
    soft = dump.define(0x120, "java/lang/ref/SoftReference", ref, fields=[("clock", "long")])
    node = dump.define(
        0x130, "Node", base, loader=0x900, fields=[("next", "object"), ("n", "int")],
        statics=[("HEAD", "object", 0x200), ("COUNT", "int", 7)],
    )  # fmt: skip
    for at in range(0x200, 0x300, 0x10):
        dump.instance(at, node, at + 0x10, at)
    dump.instance(0x300, node, 0xDEAD, 1)  # points nowhere
    dump.instance(0x310, soft, 1, 0x320)
    dump.numbers(0x320, "byte", [1, 2, 3])
    dump.array(0x330, 0x130, 0x310, 0, 0x200)
    dump.root(0x05, 0x130)
    dump.root(0x08, 0x330, 1, 0)
    dump.root(0x03, 0x310, 1, 0)
    dump.root(0x01, 0x100, *([0] * (id_size // 4)))
    if android:
        dump.raw(b"\xfe" + bytes(4) + dump.id(dump.text("app")))
        dump.root(0x89, 0x320)
        dump.root(0x8E, 0x200, 0, 0)
        dump.raw(b"\xc3" + dump.id(0x340) + bytes(4) + b"\x7f\xff\xff\xff" + b"\x08")
    return dump


@pytest.mark.timeout(200)
def test_damaged_dumps_do_no_harm(program, tmp_path):
    rng = random.Random(18)
    seeds = [
        small(8).bytes(),
        small(4).bytes(),
        small(4, android=True).bytes(),
        small(8).bytes(0x0C),
    ]
    seeds.append(gzip.decompress(SAMPLE.read_bytes())[:200_000])
    files = []
    for number in range(400):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(rng.randint(0, 6)):
            at = rng.randrange(31, len(data))
            choice = rng.randrange(4)
            if choice == 0:
                data[at] = rng.randrange(256)
            elif choice == 1:
                data[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
            elif choice == 2:
                del data[at : at + rng.randrange(1, 40)]
            else:
                data[at:at] = data[rng.randrange(31, len(data)) :][: rng.randrange(1, 60)]
        path = tmp_path / f"{number}.hprof"
        path.write_bytes(data[: rng.randrange(20, len(data) + 1)] if number % 3 == 0 else data)
        files.append(path)
    run(program, *files)


def test_shapes_that_tempt_to_go_on_for_ever(program, tmp_path):
    """A class that is its own ancestor, a chain of a thousand classes, one object many times."""
    dump = Dump()
    dump.define(0x100, "A", 0x110, fields=[("a", "object")])
    dump.define(0x110, "B", 0x100, fields=[("b", "object")])
    dump.raw(b"\x21" + dump.id(0x200) + bytes(4) + dump.id(0x100) + b"\0\0\0\x40" + bytes(64))
    above = 0
    for at in range(0x1000, 0x1000 + 0x10 * 1000, 0x10):
        above = dump.define(at, f"C{at}", above)
    for _ in range(1000):
        dump.raw(
            b"\x21" + dump.id(0x300) + bytes(4) + dump.id(above) + b"\0\0\0\x08" + dump.id(0x300)
        )
    dump.root(0xFF, 0x200)
    run(program, dump.write(tmp_path / "cycle.hprof"))


def test_the_analysers_tables_are_those_of_the_header():
    header = (NATIVE / "hprof/hprof.h").read_text()
    for name, structure in (
        ("sizes", _core.Sizes),
        ("facts", _core.DumpFacts),
        ("link", _core.Link),
    ):
        body = re.search(rf"struct {name} \{{.*?\n(.*?)\n\}};", header, re.DOTALL)[1]
        body = re.sub(r"/\*.*?\*/|//[^\n]*", "", body, flags=re.DOTALL)
        names = re.findall(r"(\w+)(?:\[\d+\])?(?=[,;])", body)
        assert names == [field for field, _ in structure._fields_]
    source = (NATIVE / "hprof/heap.c").read_text()
    tables = re.search(r"enum table \{(.*?)\};", source, re.DOTALL)[1]
    tables = re.sub(r"/\*.*?\*/", "", tables)
    assert [name.strip() for name in tables.split(",")] == [table.name for table in _core.HeapTable]
