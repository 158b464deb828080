# SPDX-License-Identifier: Apache-2.0
"""`leakscope attach` and `detach`: a leak is named by its line in a program that runs already."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from conftest import ROOT
from harm.attaching import build, started
from leakscope._finding import _Search
from leakscope.trace.attach.island import find_attached

LEAKSCOPE = [sys.executable, "-m", "leakscope"]
REPORT = ROOT / "src" / "leakscope" / "report"
SCHEMA, FIND_SCHEMA = REPORT / "schema.json", REPORT / "schemas" / "leakscope-find-1.json"
LONG_S = 400  # four walks, each by a process of its own: a busy machine takes a while for that
PAUSE = ["--max-pause", "2"]


def leakscope(*arguments, timeout=120, **more):
    return subprocess.run(
        [*LEAKSCOPE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        **more,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("attach")


@pytest.fixture
def leaky(folder, tmp_path):
    with started([str(build("leaky", folder))], tmp_path) as process:
        yield process


def lost_line():
    from harm.attaching import PROGRAMS

    lines = (PROGRAMS / "leaky.c").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if "void *lost(" in line)


def wait_attached(pid):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = find_attached(pid)
        if found is not None and found.patches:
            return
        time.sleep(0.05)
    raise AssertionError("not attached")


@pytest.mark.parametrize("name", ["leaky", "musl-static", "static-pie"])
def test_the_line_is_named(name, folder, tmp_path):
    with started([str(build(name, folder))], tmp_path) as process:
        done = leakscope("attach", process.pid, "--for", "3s", "-o", f"{tmp_path}/", *PAUSE)
    assert f"leaky.c:{lost_line()}" in done.stdout
    assert "attached while it ran" in done.stdout
    assert done.returncode in (0, 1, 3)
    assert "stood still for" in done.stderr
    assert "nothing of leakscope is left in it" in done.stderr
    (recording,) = tmp_path.glob("*.leakscope")
    again = leakscope("report", recording, "--json")
    document = json.loads(again.stdout)
    assert document["processes"][0]["coverage"]["troubles"] == ["attached"]


def test_a_scan_knows_that_all_can_be_reached(leaky, tmp_path):
    done = leakscope(
        "attach", leaky.pid, "--for", "2s", "--scan", "--json", "-o", f"{tmp_path}/", *PAUSE
    )
    findings = json.loads(done.stdout)["processes"][0]["findings"]
    (lost,) = [f for f in findings if any(frame.get("function") == "lost" for frame in f["stack"])]
    assert lost["verdict"] != "lost"
    assert json.loads(done.stdout)["processes"][0]["scan"]


EARLIER = r"""
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>
static void *held[20480];
__attribute__((noinline)) static void lose(size_t n) { void *volatile p = malloc(n); memset(p, 1, n); p = 0; }
int main(void) {
    for (int i = 0; i < 20480; i++) { held[i] = malloc(1000); memset(held[i], 2, 1000); }
    for (int i = 0; i < 1024; i++) lose(1016);
    FILE *f = fopen("ready", "w"); fclose(f);
    while (access("go", F_OK)) usleep(20000);
    for (int i = 0; i < 5000; i++) { free(held[i]); held[i] = 0; }
    for (int i = 0; i < 300; i++) held[5000 + i] = 0;
    f = fopen("gone", "w"); fclose(f);
    for (;;) { lose(3000); usleep(5000); }
}
"""


def test_what_was_there_before_is_told_apart(tmp_path):
    (tmp_path / "earlier.c").write_text(EARLIER)
    subprocess.run(["cc", "-g", "-O0", "earlier.c", "-o", "earlier"], cwd=tmp_path, check=True)
    with subprocess.Popen([tmp_path / "earlier"], cwd=tmp_path) as process:
        try:
            end = time.monotonic() + 60
            while not (tmp_path / "ready").exists() and time.monotonic() < end:
                time.sleep(0.05)
            attaching = subprocess.Popen(
                [*LEAKSCOPE, "attach", str(process.pid), "--scan", "--json", "--html", "page.html",
                 *PAUSE], cwd=tmp_path,
                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            wait_attached(process.pid)
            (tmp_path / "go").touch()
            while not (tmp_path / "gone").exists() and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(1)
            attaching.send_signal(signal.SIGINT)
            out, told = attaching.communicate(timeout=120)
        finally:
            process.kill()
    (before,) = [line for line in told.splitlines() if "before attach: " in line]
    lost = int(re.search(r"nothing points to .* in ([\d,]+) block", before)[1].replace(",", ""))
    assert 1000 <= lost <= 1030
    (process,) = json.loads(out)["processes"]
    earlier = process["earlier"]
    assert 21000 <= earlier["block_count"] <= 22500
    assert 1000 <= earlier["lost_block_count"] <= 1030
    most = max(earlier["contents"], key=lambda row: row["bytes"])
    assert (most["usable_bytes"], most["block_count"]) == (1000, 20480)
    fate = earlier["fate"]
    assert 16000 <= fate["still_there"]["block_count"] <= 16800, fate
    assert 4900 <= fate["freed"]["block_count"] <= 5200
    assert 290 <= fate["newly_lost"]["block_count"] <= 310
    # Apart: the findings are of what came since.
    placed = [row for row in process["findings"] if row["stack"]]
    assert {row["live_bytes"] // row["live_count"] for row in placed} == {3000}
    assert "earlier.c" in json.dumps(placed)
    page = (tmp_path / "page.html").read_text()
    assert "The heap from before the attach" in page
    # The recording tells it again, elsewhere.
    (recording,) = tmp_path.glob("*.leakscope")
    again = leakscope("report", recording)
    assert "Before attach: " in again.stdout
    assert "are still there" in again.stdout
    document = json.loads(leakscope("report", recording, "--json").stdout)
    assert document["processes"][0]["earlier"] == earlier
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))


def test_an_earlier_heap_whose_fate_is_not_known_says_why(leaky, tmp_path):
    attaching = subprocess.Popen(
        [*LEAKSCOPE, "attach", str(leaky.pid), "--scan", "--json", *PAUSE], cwd=tmp_path,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_attached(leaky.pid)
    time.sleep(1)
    leakscope("detach", leaky.pid)
    out, _ = attaching.communicate(timeout=120)
    earlier = json.loads(out)["processes"][0]["earlier"]
    assert earlier["fate"] is None
    assert "not taken out by this command" in earlier["fate_unknown"]


def test_others_see_it_steer_it_and_end_it(leaky, tmp_path):
    attaching = subprocess.Popen(
        [*LEAKSCOPE, "attach", str(leaky.pid), *PAUSE], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_attached(leaky.pid)
    time.sleep(1)
    assert "recording, every allocation" in leakscope("control", leaky.pid).stdout
    assert "paused" in leakscope("control", leaky.pid, "stop").stdout
    assert "recording" in leakscope("control", leaky.pid, "start").stdout
    assert "lost" in leakscope("report", leaky.pid).stdout
    assert "is attached already" in leakscope("attach", leaky.pid).stderr
    assert "it is attached already" in leakscope("doctor", leaky.pid).stdout
    done = leakscope("detach", leaky.pid)
    assert (done.returncode, "detached" in done.stdout) == (0, True)
    out, told = attaching.communicate(timeout=60)
    assert "detached by somebody else" in told
    assert "lost" in out
    assert leakscope("detach", leaky.pid).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reports_and_detaches(leaky, tmp_path, number):
    attaching = subprocess.Popen(
        [*LEAKSCOPE, "attach", str(leaky.pid), "--every", "1s", *PAUSE], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_attached(leaky.pid)
    time.sleep(3)
    attaching.send_signal(number)
    out, told = attaching.communicate(timeout=60)
    assert "lost" in out
    assert "snapshot: " in told
    assert find_attached(leaky.pid) is None
    assert list(tmp_path.glob("*.dump1.leakscope"))


def test_a_process_that_ends_is_reported(folder, tmp_path):
    with subprocess.Popen([build("leaky", folder)]) as process:
        time.sleep(1.2)
        attaching = subprocess.Popen(
            [*LEAKSCOPE, "attach", str(process.pid), *PAUSE], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_attached(process.pid)
        time.sleep(1.5)
        process.kill()
        out, told = attaching.communicate(timeout=60)
    assert "ended" in told
    assert "lost" in out


@pytest.mark.timeout(LONG_S + 60)
def test_find_names_the_line_and_tells_what_was_there(leaky):
    done = leakscope(
        "find", leaky.pid, "--attach", "--for", "6s", "--max-pause", "2", timeout=LONG_S
    )
    assert f"leaky.c:{lost_line()}" in done.stdout
    assert "Before attach: " in done.stdout
    assert "are still there" in done.stdout
    assert find_attached(leaky.pid) is None


@pytest.mark.timeout(LONG_S + 60)
def test_find_has_it_in_json_and_page(leaky, tmp_path):
    page = tmp_path / "page.html"
    done = leakscope(
        "find", leaky.pid, "--attach", "--for", "4s", "--max-pause", "2", "--json", "--html", page,
        timeout=LONG_S,
    )  # fmt: skip
    document = json.loads(done.stdout)
    earlier = document["earlier"]
    assert earlier["block_count"] > 1000
    assert earlier["fate"]["still_there"]["block_count"] > 1000
    assert "The heap from before the attach" in page.read_text()
    jsonschema.validate(document, json.loads(FIND_SCHEMA.read_text()))


def test_the_recording_is_no_memory_of_the_process(leaky):
    search = _Search(leaky.pid, 3.0, 2.0, (), say=lambda text: None)
    with search.attached():
        assert search.is_attached, search.unseen
        maps = Path(f"/proc/{leaky.pid}/maps").read_text()
        shared = [line for line in maps.splitlines() if "/dev/zero" in line]
        assert {int(line.partition("-")[0], 16) for line in shared} == search.own_starts
        assert shared


def test_doctor_says_beforehand(leaky):
    done = leakscope("doctor", leaky.pid)
    assert f"leakscope attach {leaky.pid}" in done.stdout
    assert "glibc's malloc" in done.stdout


class TestRefusals:
    """Nothing is touched, and it is said why and what to do instead."""

    def refused(self, pid):
        maps = Path(f"/proc/{pid}/maps")
        before = len(maps.read_text().splitlines())
        done = leakscope("attach", pid, "--for", "1s")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert find_attached(pid) is None
        assert len(maps.read_text().splitlines()) == before
        return done.stderr

    def test_stopped(self, leaky):
        os.kill(leaky.pid, signal.SIGSTOP)
        time.sleep(0.1)
        try:
            assert "it is stopped" in self.refused(leaky.pid)
        finally:
            os.kill(leaky.pid, signal.SIGCONT)

    def test_traced(self, leaky):
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", "/dev/null", "-p", str(leaky.pid)], stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(0.7)
            assert f"process {tracer.pid} traces it already" in self.refused(leaky.pid)
        finally:
            tracer.terminate()
            tracer.wait()

    def test_a_filter_of_system_calls(self, tmp_path):
        source = tmp_path / "filtered.c"
        source.write_text(
            "#include <linux/filter.h>\n#include <linux/seccomp.h>\n#include <sys/prctl.h>\n"
            "#include <unistd.h>\nint main(void) { struct sock_filter f[] = {BPF_STMT(BPF_RET,"
            " SECCOMP_RET_ALLOW)}; struct sock_fprog p = {1, f}; prctl(38, 1, 0, 0, 0);"
            " prctl(22, 2, &p); for (;;) sleep(1); }\n"
        )
        program = tmp_path / "filtered"
        subprocess.run(["gcc", "-w", source, "-o", program], check=True)
        with started([str(program)], tmp_path) as process:
            assert "system call filter" in self.refused(process.pid)

    def test_names_that_are_not_there(self, folder, tmp_path):
        program = tmp_path / "bare"
        subprocess.run(["strip", "-o", program, build("static", folder)], check=True)
        with started([str(program)], tmp_path) as process:
            assert "statically linked" in self.refused(process.pid)

    def test_code_that_somebody_changed(self, leaky):
        # A breakpoint where nobody comes.
        from leakscope.trace.attach.plan import make_plan

        site = next(s for s in make_plan(leaky.pid).sites if s.name == "pvalloc")
        with Path(f"/proc/{leaky.pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(site.function.address)
            memory.write(b"\xcc")
        assert "is not that of its file" in self.refused(leaky.pid)

    def test_a_pause_that_is_too_long_is_undone(self, leaky):
        done = leakscope("attach", leaky.pid, "--for", "1s", "--max-pause", "0.0001")
        assert done.returncode == 2
        assert "would have stood still" in done.stderr or "cannot be stopped" in done.stderr
        assert find_attached(leaky.pid) is None

    @pytest.mark.parametrize("words", [["1.5"], ["0"], ["nobody-is-called-so"], ["99999999999"]])
    def test_no_process(self, words):
        done = leakscope("attach", *words)
        assert done.returncode == 2
        assert done.stderr.startswith("leakscope: ")

    @pytest.mark.parametrize(
        "words", [["--for", "0s"], ["--depth", "0"], ["--max-pause", "0"], ["--sample", "x"]]
    )
    def test_options_that_make_no_sense(self, leaky, words):
        done = leakscope("attach", leaky.pid, *words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert find_attached(leaky.pid) is None

    def test_detach_of_nothing(self, leaky):
        assert leakscope("detach").returncode == 2
        assert "is not attached to" in leakscope("detach", leaky.pid).stderr
