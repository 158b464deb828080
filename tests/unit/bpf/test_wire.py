# SPDX-License-Identifier: Apache-2.0
"""The frames of leakscope-bpf: what fits is read, what does not is refused."""

import contextlib
import io
import random
import struct
import subprocess

import numpy as np
import pytest

from conftest import ROOT
from leakscope.bpf import wire
from leakscope.errors import LeakscopeError

BPF = ROOT / "native" / "bpf"


def frame(number, size=0, count=0, data=b""):
    return struct.pack("<IHHII", 0x4D4B534C, number, size, count, 0) + data


def exactly(data):
    stream = io.BytesIO(data)

    def read(size):
        got = stream.read(size)
        if len(got) < size:
            raise EOFError
        return got

    return read


def moment(**told):
    row = np.zeros(1, wire.COUNTERS)
    for name, value in told.items():
        row[name] = value
    return frame(2, wire.COUNTERS.itemsize, 1, row.tobytes())


def test_layouts_are_those_of_the_header(tmp_path):
    source = tmp_path / "sizes.c"
    structs = ("site", "stack", "cache", "task", "block")
    source.write_text(
        '#include <stdio.h>\n#include "kmem.h"\nint main(void) { printf("'
        + "%zu " * 7
        + '", '
        + ", ".join(f"sizeof(struct lsb_{name}_record)" for name in structs)
        + ", sizeof(struct lsb_moment), sizeof(struct lsb_hello)); return 0; }\n"
    )
    subprocess.run(["gcc", "-I", BPF, source, "-o", tmp_path / "sizes"], check=True)
    told = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True)
    tables = (wire.SITE, wire.STACK, wire.CACHE, wire.TASK, wire.BLOCK, wire.COUNTERS)
    assert [int(word) for word in told.stdout.split()] == [*(t.itemsize for t in tables), 48]


def test_an_answer_is_read_in_pieces():
    sites = np.zeros(3, wire.SITE)
    sites["allocs"] = [1, 2, 3]
    data = moment(allocs=[5, 0, 0, 0, 0], frees=[1, 0, 0, 0, 2], drops=[0, 7, *[0] * 7])
    data += frame(3, wire.SITE.itemsize, 2, sites[:2].tobytes())
    data += frame(8, 1, 4, b"word") + frame(3, wire.SITE.itemsize, 1, sites[2:].tobytes())
    found = wire.read_answer(exactly(data + frame(9)))
    assert found.sites["allocs"].tolist() == [1, 2, 3]
    assert found.moment.drops == {"sites_full": 7}
    assert found.moment.events == 8
    assert found.notes == ("word",)


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish that is no frame",
        frame(77),
        frame(3, 12, 1, bytes(12)),
        frame(3, 0xFFFF, 0xFFFFFFFF),
        frame(9),  # no counters
        frame(1, 48, 1, struct.pack("<4IQQ4I", 99, *[0] * 9)),
    ],
)
def test_what_is_no_frame_is_refused(data):
    read = wire.read_hello if data[4:6] == b"\x01\0" else wire.read_answer
    with pytest.raises(LeakscopeError, match="cannot be understood"):
        read(exactly(data))


def test_random_damage_never_does_anything_else():
    rows = np.zeros(2, wire.SITE)
    good = moment() + frame(3, wire.SITE.itemsize, 2, rows.tobytes()) + frame(9)
    chance = random.Random(3)
    for _ in range(500):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        with contextlib.suppress(EOFError, LeakscopeError):
            wire.read_answer(exactly(bytes(bad[: chance.randint(1, len(bad))])))


def test_the_object_has_no_constants_but_its_configuration(tmp_path):
    """The loader writes the configuration over the beginning of .rodata."""
    command = ["clang", "-target", "bpf", "-mcpu=v2", "-O2", "-c", BPF / "kmem.bpf.c"]
    where = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True)
    command += ["-isystem", f"/usr/include/{where.stdout.strip()}", "-o", tmp_path / "kmem.o"]
    subprocess.run(command, check=True)
    shown = subprocess.run(
        ["readelf", "-SW", tmp_path / "kmem.o"], capture_output=True, text=True, check=True
    ).stdout
    sections = [line.split("]")[1].split() for line in shown.splitlines() if "]" in line]
    constants = {words[0]: int(words[4], 16) for words in sections if ".rodata" in words[0]}
    (tmp_path / "size.c").write_text(
        '#include <stdio.h>\n#include "kmem.h"\n'
        'int main(void) { printf("%zu", sizeof(struct lsb_config)); return 0; }\n'
    )
    subprocess.run(["gcc", "-I", BPF, tmp_path / "size.c", "-o", tmp_path / "size"], check=True)
    size = subprocess.run([tmp_path / "size"], capture_output=True, text=True, check=True).stdout
    assert constants == {".rodata": int(size)}
