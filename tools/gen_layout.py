#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turn native/include/leakscope/recording.h into src/leakscope/recording/layout.py.

    python tools/gen_layout.py            write the file
    python tools/gen_layout.py --check    exit 1 when it is not up to date

The header is written in a small part of C: `#define LSR_NAME expression`, enums with explicit
values, structs of fixed-width members and of each other. Anything else in it is an error here,
never a guess. Members are naturally aligned, as both supported machines do; the tests compare
every offset with what a C compiler says.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "native/include/leakscope/recording.h"
LAYOUT = ROOT / "src/leakscope/recording/layout.py"

# C type: numpy type, bytes
SCALARS = {
    "uint8_t": ("u1", 1),
    "uint16_t": ("<u2", 2),
    "uint32_t": ("<u4", 4),
    "uint64_t": ("<u8", 8),
    "float": ("<f4", 4),
}

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
NUMBER = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\b")
MEMBER = re.compile(
    r"(?P<type>(?:struct\s+)?\w+)\s+(?P<names>\w+(?:\s*\[[^]]*\])?(?:\s*,\s*\w+(?:\s*\[[^]]*\])?)*)"
)


@dataclass
class Member:
    """One member of a struct: a numpy type, or the name of another struct."""

    name: str
    numpy: str
    offset: int
    count: int | None  # None: no array


@dataclass
class Struct:
    """A struct laid out as a C compiler does."""

    name: str
    members: list[Member] = field(default_factory=list)
    size: int = 0
    align: int = 1


@dataclass
class Layout:
    """What the header says."""

    constants: dict[str, int] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    structs: dict[str, Struct] = field(default_factory=dict)


def evaluate(text: str, names: dict[str, int]) -> int:
    """Return the value of an integer constant expression of numbers, names, + - * << and ()."""
    plain = NUMBER.sub(lambda match: str(int(match[1], 0)), text.strip())
    plain = re.sub(r"\b[A-Za-z_]\w*\b", lambda match: str(names[match[0]]), plain)
    if not re.fullmatch(r"[\d\s()+*<-]+", plain):
        raise SystemExit(f"{HEADER.name}: cannot evaluate {text!r}")
    return int(eval(plain, {"__builtins__": {}}))  # noqa: S307 - digits and operators only


def parse(source: str) -> Layout:
    """Read the header's constants, enums and structs."""
    text = COMMENT.sub(" ", source)
    layout = Layout()
    for name, value in re.findall(r"^#define[ \t]+(LSR_\w+)[ \t]+(\S.*)$", text, re.MULTILINE):
        layout.constants[name] = evaluate(value, layout.constants)
    for name, body in re.findall(r"\benum\s+(\w+)\s*\{(.*?)\}\s*;", text, re.DOTALL):
        members = {}
        for item in filter(None, (part.strip() for part in body.split(","))):
            key, _, value = item.partition("=")
            members[key.strip()] = evaluate(value, layout.constants | members)
        layout.enums[name] = members
        layout.constants |= members
    for name, body in re.findall(r"\bstruct\s+(\w+)\s*\{(.*?)\}\s*;", text, re.DOTALL):
        layout.structs[name] = parse_struct(name, body, layout)
    for name, claim in re.findall(r"_Static_assert\(sizeof\(struct (\w+)\) (== \d+|<= \d+),", text):
        size = layout.structs[name].size
        operator, bound = claim.split()
        if size > int(bound) or (operator == "==" and size != int(bound)):
            raise SystemExit(f"{HEADER.name}: struct {name} has {size} bytes, not {claim}")
    return layout


def parse_struct(name: str, body: str, layout: Layout) -> Struct:
    """Lay out one struct."""
    struct = Struct(name)
    for statement in filter(None, (part.strip() for part in body.split(";"))):
        match = MEMBER.fullmatch(statement)
        if match is None:
            raise SystemExit(f"{HEADER.name}: struct {name}: cannot read {statement!r}")
        kind = match["type"].split()[-1]
        for declarator in match["names"].split(","):
            member, _, dimension = declarator.strip().partition("[")
            count = evaluate(dimension.rstrip("]"), layout.constants) if dimension else None
            if kind == "char":
                numpy, size, align = f"S{count or 1}", 1, 1
            elif kind in SCALARS:
                numpy, size = SCALARS[kind]
                align = size
            elif kind in layout.structs:
                inner = layout.structs[kind]
                numpy, size, align = dtype_name(kind), inner.size, inner.align
            else:
                raise SystemExit(f"{HEADER.name}: struct {name}: unknown type {kind}")
            offset = -(-struct.size // align) * align
            struct.size = offset + size * (count or 1)
            struct.align = max(struct.align, align)
            struct.members.append(
                Member(member.strip(), numpy, offset, None if kind == "char" else count)
            )
    struct.size = -(-struct.size // struct.align) * struct.align
    return struct


def dtype_name(struct: str) -> str:
    """HEADER_DTYPE for lsr_header."""
    return struct.removeprefix("lsr_").upper() + "_DTYPE"


def render(layout: Layout) -> str:
    """Return the text of layout.py."""
    names = ["np", "Any", "__all__"]
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        '"""The layout of the live recording as numpy sees it.',
        "",
        "Generated by tools/gen_layout.py from native/include/leakscope/recording.h, which says what",
        "each member means. Do not edit.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any",
        "",
        "import numpy as np",
        "",
    ]
    for name, value in layout.constants.items():
        short = name.removeprefix("LSR_")
        names.append(short)
        lines.append(f"{short} = {hex(value) if value >= 1 << 32 else value}")
    lines += [
        "",
        "",
        "def _struct(size: int, *members: tuple[str, Any, int]) -> np.dtype[np.void]:",
        "    names, formats, offsets = zip(*members, strict=True)",
        '    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}',
        "    return np.dtype(layout)  # type: ignore[call-overload,no-any-return]",
        "",
    ]
    for name, members in layout.enums.items():
        prefix = os.path.commonprefix(list(members))  # noqa: RUF071 - of names, not paths
        prefix = prefix[: prefix.rfind("_") + 1]
        title = name.removeprefix("lsr_").upper() + "_NAMES"
        names.append(title)
        lines += ["", f"{title}: dict[int, str] = {{"]
        lines += [f'    {v}: "{k.removeprefix(prefix).lower()}",' for k, v in members.items()]
        lines.append("}")
    for struct in layout.structs.values():
        title = dtype_name(struct.name)
        names.append(title)
        formats = [
            (m.numpy if m.numpy.endswith("_DTYPE") else f'"{m.numpy}"', m.count)
            for m in struct.members
        ]
        lines += ["", f"{title} = _struct(", f"    {struct.size},"]
        lines += [
            f'    ("{member.name}", {form if count is None else f"({form}, ({count},))"}, {member.offset}),'
            for member, (form, count) in zip(struct.members, formats, strict=True)
        ]
        lines.append(")")
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise SystemExit(f"{HEADER.name}: names that clash in Python: {sorted(duplicates)}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the file, or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 when stale")
    arguments = parser.parse_args()
    text = render(parse(HEADER.read_text()))
    if arguments.check:
        if LAYOUT.exists() and LAYOUT.read_text() == text:
            return 0
        print(f"{LAYOUT} is not up to date; run python tools/gen_layout.py", file=sys.stderr)
        return 1
    LAYOUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
