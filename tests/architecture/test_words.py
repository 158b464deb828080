# SPDX-License-Identifier: Apache-2.0
"""Sizes, and how sure one is, are put into words in one place: `leakscope.words`."""

import ast
import re
from pathlib import Path

from conftest import ROOT
from leakscope.words import bytes_text, rate_text, seconds_text, share_text, typed_size

PACKAGE = ROOT / "src" / "leakscope"
# After a value: a binary unit. By itself: a name of one, as a table of units has it.
_UNIT = re.compile(r"\s?([KMGTPE]i?B)\b")
_TABLE = {"KiB", "MiB", "GiB", "TiB", "KB", "MB", "GB", "TB"}
_SURE = {"almost certain", "very likely"}


def own_words(path: Path) -> list[str]:
    """Lines in which a module makes the text of a size, or of a confidence, by itself."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                after = text.value if isinstance(text, ast.Constant) else ""
                if isinstance(value, ast.FormattedValue) and _UNIT.match(str(after)):
                    found.append(f"{path.name}:{text.lineno}: a size")
        elif isinstance(node, ast.Constant) and node.value in _TABLE | _SURE:
            found.append(f"{path.name}:{node.lineno}: {node.value}")
    return found


def test_no_other_module_makes_sizes_or_confidences():
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "words"]
    assert len(files) > 100
    assert [line for path in files for line in own_words(path)] == []


def test_the_check_sees_them(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "a = f'{size >> 10} KiB'\nb = ('KiB', 'MiB')\nc = 'very likely'\nd = '64 MiB'\n"
    )
    assert len(own_words(wrong)) == 4


def test_a_measure_has_one_way_to_be_printed():
    assert bytes_text(1_024_000) == "1,000 KiB"
    assert rate_text(1_024_000) == "1,000 KiB/s"
    assert rate_text(12 * 1048576 / 3600, "bytes", "h") == "12.0 MiB/h"
    assert rate_text(0.2, "descriptors") == "12/min"
    assert [seconds_text(s) for s in (0.0042, 20, 165_600)] == ["4.2 ms", "20 s", "46 h"]
    assert [share_text(s) for s in (0, 0.001, 0.999, 1, 1.5)] == [
        "0 %",
        "<1 %",
        "99 %",
        "100 %",
        "150 %",
    ]
    assert (typed_size(524_288), typed_size(1000)) == ("512KiB", "1000")


def test_no_two_classes_have_one_name():
    names: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name == "_library":  # the public ones, which add to those below
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in names.items() if len(files) > 1} == {}
