# SPDX-License-Identifier: Apache-2.0
"""Make the pictures of the page that the README and the tutorial show, from real recordings.

    .venv/bin/python tools/gen_screenshots.py [FOLDER]

Traces examples/request_log.cc and tests/programs/page/shop.c, writes their pages, and takes a
picture of each in Debian's chromium at 1280 x 900. FOLDER is docs/images by default.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402 - it is a tool of the tests

LEAKSCOPE = (sys.executable, "-m", "leakscope")


def page_of(folder: Path, name: str, source: str, *options: str) -> Path:
    """Build and trace a program, and return the page of its report."""
    compiler = "g++" if source.endswith(".cc") else "gcc"
    copy = shutil.copy(ROOT / source, folder)
    subprocess.run(
        [compiler, "-g", "-O1", "-fno-builtin", "-pthread", "-o", name, Path(copy).name],
        check=True,
        cwd=folder,
    )
    command = [*LEAKSCOPE, "run", "-q", "-o", f"{name}.leakscope", "--html", f"{name}.html"]
    subprocess.run([*command, "--", f"./{name}", *options], cwd=folder, check=False)
    return folder / f"{name}.html"


def main() -> None:
    """Make both pictures."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="leakscope-pictures-") as made, Browser() as browser:
        folder = Path(made)
        browser.size(1280, 1180)
        browser.open(page_of(folder, "shop", "tests/programs/page/shop.c", "60"))
        browser.run(
            "(() => { const s = document.querySelector('#graph select'); s.value = 'live_bytes';"
            " s.dispatchEvent(new Event('change')); window.scrollTo(0, 0); })()"
        )
        time.sleep(0.3)
        browser.screenshot(target / "page.png")
        print(target / "page.png")
        browser.open(page_of(folder, "request_log", "examples/request_log.cc"))
        browser.run("document.querySelector('#findings').scrollIntoView({block: 'start'})")
        browser.run("window.scrollBy(0, -50)")
        time.sleep(0.3)
        browser.size(1280, 900)
        browser.screenshot(target / "page-finding.png")
        print(target / "page-finding.png")


if __name__ == "__main__":
    main()
