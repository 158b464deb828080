# SPDX-License-Identifier: Apache-2.0
"""Data flows one way: a part imports only from layers below its own, never from a sibling."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "leakscope"

# Lowest first. Parts of one layer are siblings.
LAYERS = [
    {"errors"},
    {"model", "words", "_files"},
    {"recording", "proc"},
    {"target", "symbols", "formats", "observe", "judge", "bpf"},
    {"trace", "scan", "kernel", "drive", "java", "android"},
    {"workflow"},
    {"report"},
    {"tui"},
    {"cli"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
# Where files are, of the native half too: any part may ask.
EVERYWHERE = {"_digits", "_native", "_paths", "_patterns", "_told"}
# The public API and the glue between parts; only cli, and users, import these.
TOP = {
    "leakscope",
    "_accounts",
    "_analysis",
    "_comparing",
    "_finding",
    "_library",
    "_numpy",
    "pytest_plugin",
    "_profile",
}
TOP |= {"_tracing", "__main__"}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    if len(relative.parts) == 1:
        return "leakscope" if path.stem == "__init__" else path.stem
    return relative.parts[0]


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and part of every import of leakscope in a file, wherever in the file it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            if module == "leakscope":
                found.extend(
                    (node.lineno, alias.name if (PACKAGE / alias.name).exists() else "leakscope")
                    for alias in node.names
                )
            elif module.startswith("leakscope."):
                found.append((node.lineno, module.split(".")[1]))
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found.extend((node.lineno, [*n, "leakscope"][1]) for n in names if n[0] == "leakscope")
    return found


def broken(path: Path) -> list[str]:
    own = part_of(path)
    if own in TOP:
        return []
    assert own in RANK or own in EVERYWHERE, f"{path}: {own} is in no layer; add it to LAYERS"
    problems = []
    for line, other in imports(path):
        if other == own or other in EVERYWHERE:
            continue
        below = RANK.get(other, len(LAYERS)) < RANK.get(own, -1)
        if not (own == "cli" if other in TOP else below):
            problems.append(f"{path.relative_to(PACKAGE)}:{line}: {own} must not import {other}")
    return problems


def test_parts_import_only_from_layers_below():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    assert [problem for path in files for problem in broken(path)] == []


def test_the_check_sees_a_forbidden_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "model").mkdir()
    wrong = tmp_path / "model" / "wrong.py"
    wrong.write_text("def late():\n    from leakscope.report.terminal import render\n")
    assert broken(wrong) == ["model/wrong.py:2: model must not import report"]
    (tmp_path / "trace").mkdir()
    sibling = tmp_path / "trace" / "sibling.py"
    sibling.write_text("import leakscope.report\nimport leakscope.model.frames\n")
    assert broken(sibling) == ["trace/sibling.py:1: trace must not import report"]


def test_only_cli_prints_or_exits():
    offenders = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if part_of(path) in {"cli", "__main__"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in {"print", "exit", "quit", "sys.exit", "sys.stdout.write", "input"}:
                offenders.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}")
    assert offenders == []


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done


def test_public_api_is_small_typed_and_lazy():
    import leakscope

    errors = {name for name in leakscope.__all__ if name.endswith("Error")}
    assert len(set(leakscope.__all__) - errors - {"__version__"}) <= 19
    assert (PACKAGE / "py.typed").exists()
    for name in leakscope.__all__:
        assert getattr(leakscope, name) is not None
    done = python("import leakscope, sys; print(*sys.modules)")
    assert {"numpy", "rich", "drgn"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"]])
def test_the_command_line_starts_quickly(arguments):
    """By what is loaded, which a busy machine cannot change, and not by the clock."""
    code = f"""
import sys
before = set(sys.modules)
from leakscope.cli import main
main({arguments!r})
heavy = [m for m in set(sys.modules) - before
         if m.split('.')[0] in ('numpy', 'rich', 'drgn', 'asyncio', 'multiprocessing')]
print(len(set(sys.modules) - before), *sorted(heavy), file=sys.stderr)
"""
    done = python(code)
    count, *heavy = done.stderr.split()
    assert heavy == []
    assert int(count) <= 160, "more modules than a quick start can afford"
