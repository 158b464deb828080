# SPDX-License-Identifier: Apache-2.0
"""The two sides of an attach agree on what is handed over, and where there is room is known."""

import re
import subprocess

import numpy as np
import pytest

from conftest import ROOT
from leakscope.proc.maps import parse_maps
from leakscope.trace.attach import detach, hands, island
from leakscope.trace.attach.handover import HANDOVER, load_agent

AGENT = ROOT / "native" / "agent"


def offsets(structure: str, names: list[str], header: str, folder) -> list[int]:
    """Return where the compiler puts these fields, and the structure's size."""
    rows = "\n".join(f'printf("%zu\\n", offsetof(struct {structure}, {name}));' for name in names)
    source = folder / f"{structure}.c"
    source.write_text(
        f'#define LS_INJECT\n#include <stdio.h>\n#include "{header}"\n'
        f'int main(void) {{ {rows} printf("%zu\\n", sizeof(struct {structure})); }}\n'
    )
    program = folder / structure
    command = ["gcc", "-w", "-std=gnu11", f"-I{AGENT}", f"-I{ROOT}/native/include", "-c", source]
    subprocess.run([*command, "-o", f"{program}.o"], check=True)
    stubs = folder / "stubs.c"
    stubs.write_text(
        "void *ls_slots; unsigned long ls_tid_offset; void *ls_self_slow(unsigned long p) { return 0; }\n"
    )
    subprocess.run(["gcc", "-w", f"{program}.o", stubs, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_what_is_handed_over_is_laid_out_alike(tmp_path):
    fields = HANDOVER.fields
    names = list(HANDOVER.names)
    assert offsets("ls_handover", names, "door_inject.h", tmp_path) == [
        *(fields[name][1] for name in names),
        HANDOVER.itemsize,
    ]


def test_slots_are_laid_out_alike(tmp_path):
    assert offsets(
        "ls_slot", ["tls", "tls.busy", "pointer", "tid", "frames"], "local.h", tmp_path
    ) == [
        0,
        detach._SLOT.fields["busy"][1],
        detach._SLOT.fields["pointer"][1],
        detach._SLOT.fields["tid"][1],
        detach._SLOT.fields["frames"][1],
        detach._SLOT.itemsize,
    ]
    text = (AGENT / "self.h").read_text()
    assert 1 << int(re.search(r"LS_SLOT_BITS (\d+)u", text)[1]) == detach._SLOTS


def test_the_agent_needs_nothing_of_its_host():
    agent = load_agent()
    assert {entry.name for entry in agent.table} >= {"malloc", "free", "_Znwm", "mmap", "prctl"}
    low, high = agent.text
    assert all(low <= entry.hook < high for entry in agent.table)
    image = agent.placed(1 << 40, {"pid": 7}, {"malloc": 99}, {agent.slots_at: 5})
    assert len(image) == len(agent.image)
    assert int(np.frombuffer(image, HANDOVER, 1, agent.handover)[0]["pid"]) == 7


MAPS = parse_maps(
    b"555500000000-555500010000 r-xp 00000000 08:01 1 /bin/x\n"
    b"555500020000-555500040000 rw-p 00000000 00:00 0 [heap]\n"
    b"7f0000000000-7f0000200000 r-xp 00000000 08:01 2 /lib/libc.so.6\n"
    b"7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0 [stack]\n"
)


def test_a_place_is_apart_from_others_and_never_where_the_heap_grows():
    near = hands.free_place(MAPS, 16384, 0x7F0000000000 - (1 << 31), 0x7F0000000000)
    assert 0x7F0000000000 - (1 << 31) <= near < 0x7F0000000000 - (16 << 20)
    assert near % 4096 == 0
    assert hands.free_place(MAPS, 16384, 0x555500040000, 0x555500040000 + (2 << 30)) is None
    below = hands.free_place(MAPS, 16384, 0x555400000000, 0x555500000000)
    assert below < 0x555500000000 - (16 << 20)


@pytest.mark.parametrize("many", [0, 3])
def test_an_island_tells_what_was_packed(many, tmp_path):
    patches = tuple(
        island.Patch(0x1000 + n, b"\x01\x02\x03\x04\x05", b"\xe9\0\0\0\0", plain=True)
        for n in range(many)
    )
    attached = island.Attached(
        7, 8, 9, 10, (0x100, 0x200), (0x300, 0x400), (0x500, 0x600), 0x700, 0x800, 0x2D0, (0, ), patches
    )  # fmt: skip
    file = tmp_path / "memory"
    file.write_bytes(island.pack(attached))
    with file.open("rb") as memory:
        found = island._read(7, memory.fileno(), 0)
    assert found.patches == patches
    assert (found.region, found.recording, found.tid_offset) == (
        (0x100, 0x200),
        (0x300, 0x400),
        0x2D0,
    )


def test_rubbish_is_no_island(tmp_path):
    file = tmp_path / "memory"
    file.write_bytes(b"\xff" * 20000)
    with file.open("rb") as memory:
        assert island._read(7, memory.fileno(), 0) is None
        assert island._read(7, memory.fileno(), 1 << 62) is None
