# SPDX-License-Identifier: Apache-2.0
"""What is generated from parsers and docstrings is current, and its readers understand it."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import leakscope
from conftest import ROOT
from leakscope.cli import COMMANDS, android, java, kernel

SHARE = ROOT / "share"
PAGES = sorted((SHARE / "man/man1").glob("*.1"))


def needed(name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed; tools/setup-debian --test does it")
    return name


def test_the_reference_pages_are_current():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/gen_reference.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_has_its_entry_and_an_example():
    text = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    entries = dict(
        re.findall(
            r"^## (?:class )?(\w+)(?:\(\))?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
        )
    )
    assert set(entries) == set(leakscope.__all__) - {"__version__"}
    for name, entry in entries.items():
        example = re.findall(r"```python\n(.*?)```", entry, re.DOTALL)[-1]
        compile(example, name, "exec")


def test_every_command_has_a_page_and_each_option_is_on_it():
    assert {page.stem for page in PAGES} == {
        "leakscope",
        *(f"leakscope-{c.name}" for c in COMMANDS),
        *(
            f"leakscope-{above}-{below.name}"
            for above, module in (("kernel", kernel), ("java", java), ("android", android))
            for below in module.SUBVERBS
        ),
    }
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "leakscope", command.name, "--help"],
            capture_output=True, text=True, check=True,
            env=os.environ | {"NO_COLOR": "1"},
        )  # fmt: skip
        page = (SHARE / f"man/man1/leakscope-{command.name}.1").read_text().replace("\\-", "-")
        options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout.split("options:")[-1]))
        assert {
            option for option in options if f"\\fB{option}\\fR" not in page and option not in page
        } == set()


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_man_pages_are_without_a_warning(page):
    done = subprocess.run(
        [needed("groff"), "-man", "-ww", "-Tascii", "-P-c", page],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "SYNOPSIS" in re.sub(".\x08", "", done.stdout)  # bold is typed twice


def complete(line):
    """What bash offers at the end of `line`."""
    words = line.split(" ")
    script = f"""
source {SHARE}/bash-completion/completions/leakscope
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
_leakscope; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_values_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("core.12").touch()
    assert complete("leakscope wa") == ["watch"]
    assert set(complete("leakscope ")) == {*(command.name for command in COMMANDS), "help"}
    assert complete("leakscope scan --held") == ["--held-by"]
    assert complete("leakscope report --colour a") == ["auto", "always"]
    assert complete("leakscope scan co") == ["core.12"]
    assert "--sample" not in complete("leakscope run -- bas")
    assert "bash" in complete("leakscope run -- bas")


@pytest.mark.parametrize(
    ("shell", "check", "file"),
    [
        ("zsh", "-n", "zsh/site-functions/_leakscope"),
        ("fish", "--no-execute", "fish/vendor_completions.d/leakscope.fish"),
    ],
)
def test_the_completion_of_other_shells_is_theirs(shell, check, file):
    done = subprocess.run(
        [needed(shell), check, SHARE / file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = (SHARE / file).read_text(encoding="utf-8")
    for command in COMMANDS:
        assert command.name in text


def test_fish_offers_the_options_of_a_command():
    script = f"source {SHARE}/fish/vendor_completions.d/leakscope.fish; complete -C 'leakscope scan --held'"
    done = subprocess.run(
        [needed("fish"), "-N", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("--held-by\t")


def test_every_page_of_the_documentation_is_in_the_site():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def pages(item):
        if isinstance(item, str):
            return [item]
        if isinstance(item, dict):
            return [page for value in item.values() for page in pages(value)]
        return [page for each in item for page in pages(each)]

    docs = ROOT / "docs"
    there = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    assert set(pages(nav)) ^ there == set(), "a page is missing in the nav of mkdocs.yml, or gone"


def test_the_modules_of_the_library_are_found_by_name():
    for name in leakscope.__all__:
        if name != "__version__":
            home = importlib.import_module(getattr(leakscope, name).__module__)
            assert getattr(home, name) is getattr(leakscope, name)
