# SPDX-License-Identifier: Apache-2.0
"""Modules know each other in one direction, and no package uses what another keeps to itself."""

import ast
from importlib import import_module
from pathlib import Path

from conftest import ROOT

SOURCE = ROOT / "src"


def modules(source: Path) -> dict[str, Path]:
    """Every module below `source`, a package under its own name."""
    found = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> list[tuple[int, str]]:
    """Line and name of each module that a file imports, also for its types, also late."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((node.lineno, inner if inner in known else str(node.module)))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return [(line, name) for line, name in found if name in known]


def circles(source: Path) -> list[list[str]]:
    """Modules that import each other, directly or through others."""
    known = modules(source)
    left = {
        name: {other for _, other in imports(path, known)} - {name} for name, path in known.items()
    }
    # What imports nothing that is left is in no circle, and neither is what nothing left imports.
    while True:
        used = set().union(*left.values()) if left else set()
        free = {name for name, others in left.items() if not others or name not in used}
        if not free:
            break
        left = {name: others - free for name, others in left.items() if name not in free}
    return _groups(left)


def _groups(left: dict[str, set[str]]) -> list[list[str]]:
    def reached(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for other in left[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    reach = {name: reached(name) for name in left}
    groups = {frozenset(o for o in reach[n] if n in reach[o]) for n in left if n in reach[n]}
    return sorted(sorted(group) for group in groups)


def trespasses(source: Path) -> list[str]:
    """Imports of a module `_name` from outside the package that it lies in."""
    known = modules(source)
    found = []
    for name, path in sorted(known.items()):
        own = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for line, other in imports(path, known):
            parts = other.split(".")
            for at, part in enumerate(parts):
                owner = ".".join(parts[:at])
                if part.startswith("_") and not f"{own}.".startswith(f"{owner}."):
                    found.append(f"{path.relative_to(source)}:{line}: {other} is private")
    return found


def test_no_module_imports_itself_through_others():
    assert len(modules(SOURCE)) > 100
    assert circles(SOURCE) == []


def test_no_package_imports_what_another_keeps_to_itself():
    assert trespasses(SOURCE) == []


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_a_circle_is_seen_for_types_and_late_imports_too(tmp_path):
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.c import x\n"
    write(
        tmp_path,
        {
            "p/__init__.py": "",
            "p/a.py": "import p.b\nimport p.d\n",
            "p/b.py": typed,
            "p/c.py": "def late():\n    from p import a\n",
            "p/d.py": "import p.e\n",
            "p/e.py": "",
        },
    )
    assert circles(tmp_path) == [["p.a", "p.b", "p.c"]]


def test_a_trespass_is_seen_and_what_is_inside_the_package_is_none(tmp_path):
    write(
        tmp_path,
        {
            "p/__init__.py": "",
            "p/_top.py": "",
            "p/a/__init__.py": "",
            "p/a/_own.py": "import p._top\n",
            "p/a/deep/__init__.py": "from p.a import _own\n",
            "p/ab/__init__.py": "",
            "p/ab/wrong.py": "from p.a._own import x\n",
        },
    )
    assert trespasses(tmp_path) == ["p/ab/wrong.py:1: p.a._own is private"]


def missing_names(script: Path) -> list[str]:
    """What a script imports of leakscope, early or late, and leakscope has not."""
    known, missing = modules(SOURCE), []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "leakscope":
            home = import_module(str(node.module))
            missing += [
                f"{script}:{node.lineno}: {node.module}.{alias.name}"
                for alias in node.names
                if not hasattr(home, alias.name) and f"{node.module}.{alias.name}" not in known
            ]
    return missing


def test_scripts_beside_the_package_import_what_there_is():
    # Most of them run by hand, some for half an hour before a late import.
    scripts = [
        p for folder in ("benchmarks", "examples", "tools") for p in (ROOT / folder).rglob("*.py")
    ]
    assert len(scripts) > 20
    assert [line for script in scripts for line in missing_names(script)] == []
