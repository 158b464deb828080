# SPDX-License-Identifier: Apache-2.0
"""House rules that a machine can check: licences, sizes, lint, types, generated files, docs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import ROOT

CODE = {".py", ".c", ".cc", ".h", ".cmake", ".ts", ".mjs", ".css"}
SCRIPTS = ("tools", ".ci", "benchmarks")
SKIPPED = {
    ".git",
    ".venv",
    "build",
    "dist",
    "site",
    "__pycache__",
    "corpus",
    ".leakscope",
    "node_modules",
}
LONGEST = 600
# Longer files, each with its reason.
LONG = {
    "native/agent/modules.c": "one scan of the loaded objects, whose steps share their state",
    "native/agent/rules.c": "one interpreter of .eh_frame: CIE, FDE, instructions, fallbacks",
    "native/scan/mark.c": "one machine: states of blocks, edges between them and the queues that follow",
    "native/tests/test_rules.c": "one table of cases for that interpreter",
    "tests/integration/test_run_launch.py": "one command, each of its promises",
}


def sources() -> list[Path]:
    """Every file of code in the tree, scripts without a suffix included."""
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = sorted(set(names) - SKIPPED)
        for name in sorted(files):
            path = Path(folder) / name
            relative = path.relative_to(ROOT)
            is_script = relative.parts[0] in SCRIPTS and path.suffix in {"", ".sh"}
            if path.suffix in CODE or name == "CMakeLists.txt" or is_script:
                found.append(path)
    return found


def test_every_source_file_names_its_licence_first():
    files = sources()
    assert len(files) > 80
    missing = []
    for path in files:
        head = path.read_text(encoding="utf-8").splitlines()[:2]
        if head and head[0].startswith("#!"):
            head = head[1:]
        if not head or not re.fullmatch(
            r"(#|//|/\*) SPDX-License-Identifier: Apache-2\.0( \*/)?", head[0]
        ):
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_python_modules_open_with_a_sentence():
    missing = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not re.search(r'^"""\S', text, re.MULTILINE):
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_files_stay_readable():
    long = {}
    for path in sources():
        name = str(path.relative_to(ROOT))
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST and name not in LONG:
            long[name] = lines
    assert long == {}, f"over {LONGEST} lines: split, or add the reason to LONG"


def tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; tools/setup-debian --test does it")
    return found


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff(arguments):
    done = subprocess.run(
        [tool("ruff"), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_types():
    done = subprocess.run([tool("mypy")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_ignored_lint_rule_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[tool.ruff.lint]")[1].split("[tool.ruff.lint.isort]")[0]
    rules = [line for line in section.splitlines() if re.match(r'\s+"[A-Z]+\d*",', line)]
    assert len(rules) > 20
    assert [line for line in rules if not re.search(r"# \S", line)] == []


def test_generated_layout_is_up_to_date(tmp_path):
    generator = ROOT / "tools" / "gen_layout.py"
    kept = ROOT / "src" / "leakscope" / "recording" / "layout.py"
    done = subprocess.run(
        [sys.executable, generator, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{kept.name}: run tools/gen_layout.py\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(300)
def test_the_documentation_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [tool("mkdocs"), "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").exists()


def test_the_changelog_can_be_built_from_the_fragments():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = subprocess.run(
        [tool("towncrier"), "build", "--draft", "--version", version],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"## {version}" in done.stdout


@pytest.mark.parametrize("name", ["tools/setup-debian", "tools/demo", "tools/test", ".ci/run"])
def test_scripts_are_valid_and_executable(name):
    path = ROOT / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


def test_markdown_links_lead_somewhere():
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_the_set_up_installs_again_after_a_change_of_any_native_file():
    script = (ROOT / "tools" / "setup-debian").read_text(encoding="utf-8")
    lines = script[script.index("\nnative=(") : script.index("\nwanted_state=")]
    command = [shutil.which("bash"), "-euc", f"{lines}\nprintf '%s\\n' \"${{native[@]}}\""]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert {each for each in found if each.startswith("native/")} <= set(listed.splitlines())
    assert "CMakeLists.txt" in listed.splitlines()
