# SPDX-License-Identifier: Apache-2.0
"""`--html` of each command: refused early, written whole and for its owner alone."""

import os
import signal
import subprocess
import time

import pytest

from page.conftest import LEAKSCOPE, leakscope

WRONG = "no/such/folder/page.html"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--html", WRONG, "--", "touch", "ran"],
        ["report", "--html", WRONG, "shop.leakscope"],
        ["scan", "--html", WRONG, "1"],
        ["find", "--html", WRONG, "1"],
        ["watch", "--html", WRONG, "1"],
        ["--html", WRONG],
        ["diff", "--html", WRONG, "shop.leakscope", "later.leakscope"],
        ["diff", "shop.leakscope", "later.leakscope", "--html", "x", "--report-file", "x"],
        ["report", "shop.leakscope", "--html", "x", "--report-file", "x"],
        ["report", "shop.leakscope", "--html", "shop.leakscope"],
        ["run", "--no-report", "--html", "x", "--", "touch", "ran"],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_done(program, arguments):
    done = leakscope(*arguments, cwd=program)
    assert done.returncode == 2
    assert done.stderr.startswith("leakscope: ")
    assert "Traceback" not in done.stderr
    assert not (program / "ran").exists()
    assert not (program / "x").exists()


def test_the_page_is_its_owners_alone_and_replaces_an_older_one(program, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    page.chmod(0o644)
    done = leakscope("report", "shop.leakscope", "--html", page, cwd=program)
    assert done.returncode == 1, done.stderr
    assert page.stat().st_mode & 0o777 == 0o600
    assert page.read_text().startswith("<!doctype html>")
    assert os.listdir(tmp_path) == ["page.html"]
    again = leakscope("report", "shop.leakscope", cwd=program)
    assert done.stdout == again.stdout  # the report itself is as without a page


def test_nobody_else_can_be_made_to_take_the_page(program, tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "target")
    done = leakscope("report", "shop.leakscope", "--html", tmp_path / "link.html", cwd=program)
    assert not (tmp_path / "target").exists()
    assert done.returncode in {1, 2}


def test_a_scan_shows_who_holds_what(screen, program, tmp_path):
    running = subprocess.Popen(
        [
            *LEAKSCOPE,
            "run",
            "-q",
            "--no-report",
            "-o",
            "x.leakscope",
            "--",
            program / "shop",
            "4000",
        ],
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        pid = None
        while pid is None and time.monotonic() < deadline:
            time.sleep(0.5)
            found = subprocess.run(
                ["pgrep", "-s", str(running.pid), "-x", "shop"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.split()
            pid = found[0] if found else None
        assert pid is not None
        time.sleep(2)
        both = leakscope("scan", pid, "--held-by", "keep_cart", "--html", "p.html", cwd=tmp_path)
        assert both.returncode == 2
        assert "Leave out one of the two" in both.stderr
        done = leakscope("scan", pid, "--html", "p.html", cwd=tmp_path)
        assert done.returncode in {0, 1, 3}, done.stderr
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    screen.open(tmp_path / "p.html")
    screen.run(
        "(() => { const s = document.querySelector('#findings select'); s.value = 'found';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    screen.run(
        "[...document.querySelectorAll('.opener')].filter(b => b.innerText.includes('keep_cart')"
        " && b.ariaExpanded === 'false').forEach(b => b.click())"
    )
    assert "carts in shop" in screen.text(".holder .root")
    assert f"leakscope scan {pid} --held-by" in screen.text(".detail .command")


def test_the_machine_has_a_page(screen, tmp_path):
    done = leakscope("--html", "m.html", "--apart", "0.3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    screen.open(tmp_path / "m.html")
    assert screen.text("h1") in " ".join(done.stdout.split())
    assert screen.count(".account meter") > 4
    assert screen.console == []
