#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write everything that the command line's parsers and the library's docstrings tell already.

    python tools/gen_reference.py            write the files
    python tools/gen_reference.py --check    exit 1 when one is not up to date

That is docs/reference/commands.md and api.md, a man page for each command, the completion of bash,
zsh and fish below share/, and the list of decision records in mkdocs.yml. Needs an installed leakscope, whose sources these are.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from reference_api import api_page
from reference_commands import Verb, commands_alone, commands_page, verbs
from reference_man import man_page
from reference_shells import bash, fish, zsh

ROOT = Path(__file__).resolve().parents[1]


def files() -> dict[Path, str]:
    """Return what belongs in each file."""
    found = verbs()
    alone = commands_alone(found)
    shells = ROOT / "share"
    return {
        ROOT / "docs/reference/commands.md": commands_page(found),
        ROOT / "docs/reference/api.md": api_page(),
        ROOT / "mkdocs.yml": site(),
        shells / "bash-completion/completions/leakscope": bash(alone),
        shells / "zsh/site-functions/_leakscope": zsh(alone),
        shells / "fish/vendor_completions.d/leakscope.fish": fish(alone),
        **{shells / f"man/man1/{verb.page}.1": man_page(verb, found) for verb in found},
    }


def site() -> str:
    """Return mkdocs.yml with the decision records that there are, whose numbers move."""
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    listed = "".join(f"      - decisions/{page.name}\n" for page in pages)
    block = re.compile(r"(  - Decisions: #[^\n]*\n)(?:      - decisions/[^\n]*\n)*")
    return block.sub(lambda match: match[1] + listed, (ROOT / "mkdocs.yml").read_text())


def stale(written: dict[Path, str]) -> list[Path]:
    """Return the files that differ, and man pages of commands that are no more."""
    found = [p for p, text in written.items() if not p.exists() or p.read_text() != text]
    return found + [p for p in (ROOT / "share/man/man1").glob("*.1") if p not in written]


def main() -> int:
    """Write the files, or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 when stale")
    written = files()
    if parser.parse_args().check:
        for path in stale(written):
            name = path.relative_to(ROOT)
            print(f"{name} is not up to date: run python tools/gen_reference.py", file=sys.stderr)
        return 1 if stale(written) else 0
    for path in stale(written):
        if path in written:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written[path])
        else:
            path.unlink()
    return 0


__all__ = ["Verb", "files", "main"]

if __name__ == "__main__":
    sys.exit(main())
