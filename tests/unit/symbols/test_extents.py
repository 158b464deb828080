# SPDX-License-Identifier: Apache-2.0
"""The index of the unwind tables: whole, and damaged."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from leakscope.symbols._extents import function_entries


def table(address: int, *differences: int):
    data = struct.pack("<BBBBiI", 1, 0x1B, 0x03, 0x3B, 0, len(differences))
    data += b"".join(struct.pack("<ii", each, 0) for each in differences)
    section = SimpleNamespace(address=address)
    return SimpleNamespace(sections={".eh_frame_hdr": section}, section=lambda _: data)


def test_functions_begin_at_differences_to_the_table():
    assert function_entries(table(0x2000, -0x800, -0x1000)).tolist() == [0x1000, 0x1800]


@pytest.mark.parametrize("address", [1 << 63, (1 << 64) - 1])
def test_a_table_at_no_possible_address_tells_nothing(address):
    assert not len(function_entries(table(address, -0x800)))
