# SPDX-License-Identifier: Apache-2.0
"""How long a page takes to write, to show, and to filter: on a recording of a large program.

    python benchmarks/page/measure.py [--blocks N] [--sites N]

Writes the recording of benchmarks/report/make_big.py and its page, opens that in Debian's chromium
without a window, and says: processor seconds to make the page from what was read and judged, its
size, milliseconds to the first paint and until everything is drawn, and of each keystroke in the
filter, until the next frame. The page is proven to be the one that was asked for: the number of
its call stacks and its console are looked at.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "benchmarks" / "report")]

from make_big import make  # noqa: E402

from browser import Browser  # noqa: E402
from leakscope._analysis import Analyser  # noqa: E402
from leakscope._native import path  # noqa: E402
from leakscope._profile import lives_of  # noqa: E402
from leakscope.recording import packed  # noqa: E402
from leakscope.report.answers.findings import of_findings, to_tell  # noqa: E402
from leakscope.report.html import to_html  # noqa: E402
from leakscope.symbols import source_context  # noqa: E402

TYPED = ("l", "li", "lib", "libp", "malloc", "a", "nothing like this", "py", "")


def write(recording_file: Path, page: Path) -> dict[str, float]:
    """Write the page and return processor seconds by stage."""
    gc.set_threshold(200_000)  # as the command does
    clock = time.process_time
    took = {}
    began = clock()
    recording = packed.read(recording_file)
    took["read"] = clock() - began
    analyser = Analyser(debuginfod=False)
    began = clock()
    analyser.analyse(recording)
    took["judge alone"] = clock() - began
    began = clock()
    findings, profile = analyser.analyse_all(recording)
    took["judge, with all call stacks"] = clock() - began
    began = clock()
    answer = of_findings(
        findings,
        label="big.leakscope",
        source_context=source_context,
        profile=profile,
        lives=lives_of(recording, to_tell(findings)),
    )
    page.write_text(to_html([answer]), encoding="utf-8")
    took["write"] = clock() - began
    return took


def look(page: Path) -> dict[str, object]:
    """Open the page and return what it took, in milliseconds."""
    with Browser() as browser:
        browser.size(1280, 900)
        browser.open(page)
        paint = json.loads(
            str(
                browser.run(
                    "JSON.stringify([performance.getEntriesByName('first-contentful-paint')[0]"
                    ".startTime, performance.getEntriesByName('leakscope-shown')[0].startTime])"
                )
            )
        )
        rows = browser.run(
            "(() => { const s = document.querySelector('#findings select'); s.value = 'all';"
            " s.dispatchEvent(new Event('change'));"
            " return document.querySelector('#findings .said').innerText; })()"
        )
        filters = {}
        for text in TYPED:
            each = [
                browser.run(
                    "(async () => { const i = document.querySelector('input[type=search]');"
                    f" i.value = {json.dumps(text)}; const t = performance.now();"
                    " i.dispatchEvent(new Event('input'));"
                    " await new Promise(r => requestAnimationFrame(() => setTimeout(r)));"
                    " return performance.now() - t; })()"
                )
                for _ in range(3)
            ]
            filters[text] = statistics.median(each)
        assert browser.console == [], browser.console
        assert browser.requests == [page.as_uri()], browser.requests
        assert browser.count("#graph canvas") == 1
        return {"first paint": paint[0], "all drawn": paint[1], "rows": rows, "filters": filters}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=10_000_000)
    parser.add_argument("--sites", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leakscope-page-") as folder:
        recording, page = Path(folder, "big.leakscope"), Path(folder, "big.html")
        packed.write(make(arguments.blocks, arguments.sites), recording)
        print(f"{arguments.blocks:,} blocks, {arguments.sites:,} sites")
        for stage, seconds in write(recording, page).items():
            print(f"  {stage:<28} {seconds:6.2f} s of processor time")
        print(f"  {'size of the page':<28} {page.stat().st_size / (1 << 20):6.2f} MiB")
        parts = sum(path(name).stat().st_size for name in ("page.js", "page.css"))
        print(f"  {'script and style in it':<28} {parts / 1024:6.0f} KiB")
        seen = look(page)
        print(f"  {'first paint':<28} {seen['first paint']:6.0f} ms")
        print(f"  {'all drawn':<28} {seen['all drawn']:6.0f} ms")
        print(f"  table of all call stacks: {seen['rows']}")
        for text, milliseconds in seen["filters"].items():
            print(f"  filter {text!r:<21} {milliseconds:6.0f} ms")


if __name__ == "__main__":
    main()
