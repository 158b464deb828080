# SPDX-License-Identifier: Apache-2.0
"""How the page is built: from locked packages, with their licences, and not at all without Node.js."""

import json
import random
import re
import subprocess

from conftest import ROOT
from leakscope import words
from leakscope._native import path
from leakscope.report.html import page as html
from leakscope.report.html import to_html
from page.test_hostile import full_answer

FRONTEND = ROOT / "frontend"
MOST_BYTES = 2 << 20


def test_packages_are_locked_by_their_hashes_and_by_no_registry():
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert len(packages) > 20
    assert [name for name, each in packages.items() if "resolved" in each] == []
    assert [name for name, each in packages.items() if "integrity" not in each] == []
    assert not re.search(r"https?://", (FRONTEND / ".npmrc").read_text())


def test_the_page_is_small_and_brings_the_licences_of_its_parts():
    script, style = path("page.js").read_text(), path("page.css").read_text()
    assert len(script) + len(style) < MOST_BYTES
    licences = path("page-licences.txt").read_text()
    for name in ("d3-array", "d3-scale", "d3-brush"):
        assert re.search(rf"\b{name} \d+\.\d+\.\d+ \(ISC\)", licences)
    for text in licences.split("\n\n---\n\n"):
        assert text.splitlines()[-1] in script
    assert not re.search(r"\beval\(|new Function\(", script)


def test_our_own_code_never_parses_markup():
    sources = [each.read_text() for each in (FRONTEND / "src").glob("*.ts")]
    assert len(sources) > 8
    wrong = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\.html\("
    assert [found for text in sources for found in re.findall(wrong, text)] == []


def test_types_hold():
    done = subprocess.run(
        [FRONTEND / "node_modules/.bin/tsc", "--noEmit", "-p", FRONTEND],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_numbers_read_as_everywhere_else(tmp_path):
    """The page has its own writers of sizes and times: they say what `leakscope.words` says."""
    draw = random.Random(1)
    values = [0, 1, 0.5, 1.5, 1023, 1023.5, 1280, 1792, 99.95, 2**20 - 1, 102_348, 2**40, -5000]
    values += [3599, 3600, 5400, 7199.6, 172_799, 0.00994, 0.9996, 86_400 * 40]
    values += [draw.random() * 10 ** draw.randint(-6, 15) for _ in range(400)]
    values += [draw.randint(0, 1 << draw.randint(1, 50)) for _ in range(400)]
    bundle = tmp_path / "words.mjs"
    subprocess.run(
        [
            FRONTEND / "node_modules/.bin/esbuild",
            FRONTEND / "src/words.ts",
            "--bundle",
            "--format=esm",
            "--log-level=error",
            f"--outfile={bundle}",
        ],
        check=True,
    )
    script = (
        f"import * as w from {json.dumps(str(bundle))};"
        f"const values = {json.dumps(values)};"
        "console.log(JSON.stringify(values.map(v => [w.bytesText(v), w.numberText(v),"
        " w.secondsText(v), w.rateText(v), w.rateText(v, 'count'), w.percentText(v, 1e6),"
        " w.signedAmount(v, 'bytes'), w.countText(Math.trunc(v))])))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=True
    )
    for value, said in zip(values, json.loads(done.stdout), strict=True):
        expected = [
            words.bytes_text(value),
            words.number_text(value),
            words.seconds_text(value),
            words.rate_text(value),
            words.rate_text(value, "count"),
            words.percent_text(value, 1e6),
            words.signed_amount(value, "bytes"),
            words.count_text(int(value)),
        ]
        assert said == expected, value


def build(out, *, required: str, node: str = "", source=FRONTEND) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            "cmake",
            f"-DNODE_PROGRAM={node}",
            f"-DNPM_PROGRAM={node and 'npm'}",
            f"-DREQUIRED={required}",
            f"-DSOURCE={source}",
            f"-DOUT={out}",
            "-P",
            FRONTEND / "build.cmake",
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_node_the_rest_is_built_and_an_old_page_is_not_left(tmp_path):
    (tmp_path / "page.js").write_text("old")
    done = build(tmp_path, required="OFF")
    assert done.returncode == 0
    assert "Node.js 18 and npm are not installed" in " ".join(done.stderr.split())
    assert not (tmp_path / "page.js").exists()
    assert build(tmp_path, required="ON").returncode != 0


def test_a_source_that_is_wrong_is_no_page(tmp_path):
    """Also where packages cannot be had: what fails is said in one line, and stops no install."""
    (tmp_path / "src").mkdir()
    for name in ("build.mjs", "package.json", "package-lock.json"):
        (tmp_path / name).write_bytes((FRONTEND / name).read_bytes())
    (tmp_path / "node_modules").symlink_to(FRONTEND / "node_modules")
    (tmp_path / "src" / "main.ts").write_text("let a = ;")
    (tmp_path / "src" / "page.css").write_text("")
    done = build(tmp_path / "out", required="OFF", node="node", source=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "it could not be bundled" in done.stderr
    assert not (tmp_path / "out" / "page.js").exists()


def test_a_checkout_without_the_page_writes_text_and_says_how_to_get_it(
    screen, tmp_path, monkeypatch
):
    monkeypatch.setattr(html, "path", lambda name: tmp_path / name)
    page = tmp_path / "page.html"
    page.write_text(to_html([full_answer()]), encoding="utf-8")
    screen.open(page, shown=False)
    text = screen.text()
    assert "apt-get install nodejs npm" in text
    assert "headline" in text
    assert "LOST f" in text
    assert "script-src 'none'" in page.read_text()
    assert screen.count("script") == 0
    assert screen.console == []
