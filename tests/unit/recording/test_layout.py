# SPDX-License-Identifier: Apache-2.0
"""Python and C agree on every byte of the live recording."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leakscope.model import recordings as model
from leakscope.recording import layout

ROOT = Path(__file__).parents[3]
HEADER = ROOT / "native/include/leakscope/recording.h"
STRUCTS = {
    name: getattr(layout, name.removeprefix("lsr_").upper() + "_DTYPE")
    for name in re.findall(r"^struct (lsr_\w+) \{", HEADER.read_text(), re.MULTILINE)
}


def test_the_generated_layout_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/gen_layout.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_member_lies_where_the_c_compiler_puts_it(tmp_path):
    assert len(STRUCTS) >= 12
    lines = [
        "#include <stddef.h>",
        "#include <stdio.h>",
        f'#include "{HEADER}"',
        "int main(void) {",
    ]
    ours = []
    for name, dtype in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        ours.append(f"{name} {dtype.itemsize}")
        for member, (form, offset, *_) in dtype.fields.items():
            place = f"struct {name}, {member}"
            lines.append(
                f'printf("{name}.{member} %zu %zu\\n", offsetof({place}),'
                f" sizeof(((struct {name} *)0)->{member}));"
            )
            ours.append(f"{name}.{member} {offset} {form.itemsize}")
    for constant in ("MAGIC", "MAX_SITES", "STRIPE_HEAD_BYTES", "DROP_REASONS"):
        lines.append(f'printf("{constant} %llu\\n", (unsigned long long)LSR_{constant});')
        ours.append(f"{constant} {getattr(layout, constant)}")
    source = tmp_path / "offsets.c"
    source.write_text("\n".join([*lines, "return 0; }"]))
    subprocess.run(["gcc", "-std=gnu11", source, "-o", tmp_path / "offsets"], check=True)
    theirs = subprocess.run(
        [tmp_path / "offsets"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert theirs == ours


def test_the_model_has_room_for_what_the_agent_counts():
    assert model.AGE_BUCKETS == layout.AGE_BUCKETS
    assert {kind.value: kind.name.lower() for kind in model.Kind} == layout.KIND_NAMES
    for name in layout.NODE_DTYPE.names:
        assert model.NODE_DTYPE[name] == layout.NODE_DTYPE[name]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("uint16_t depth;", "uint16_t *depth;"), "cannot read"),
        (("uint16_t depth;", "double depth;"), "unknown type double"),
        (("uint16_t depth;\n  uint64_t pad2;", "uint16_t depth;"), "has 8 bytes, not == 16"),
        (("(1u << 19)", "~0u"), "cannot evaluate"),
    ],
)
def test_what_the_generator_does_not_understand_it_refuses(change, sentence, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import gen_layout

    text = HEADER.read_text()
    assert change[0] in text
    with pytest.raises(SystemExit, match=sentence):
        gen_layout.parse(text.replace(*change))


def test_blocks_use_every_bit_of_their_two_words():
    assert layout.BLOCK_ADDRESS_BITS + 19 == 64
    assert layout.MAX_SITES == 1 << 19
    assert np.dtype(model.BLOCK_DTYPE).itemsize == 28
