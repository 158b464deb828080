# SPDX-License-Identifier: Apache-2.0
"""`leakscope watch` on real programs that leak memory, descriptors and threads."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from leakscope.model.series import Subject
from leakscope.observe.measures import Measure, Pass
from leakscope.observe.store import StoreWriter
from leakscope.observe.store_reader import StoreReader

SECOND = 1_000_000_000
FOLDER = Path(__file__).parents[2] / "docs/reference/json-schema"
SCHEMA = json.loads((FOLDER / "leakscope-watch-1.json").read_text())
LEAKS = {
    "anon": "kept.append(bytearray(200_000))",
    "fds": "kept.append(os.pipe())",
    "threads": "kept.append(threading.Thread(target=threading.Event().wait, daemon=True)); kept[-1].start()",
}


def leakscope(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"},
        **options,
    )


@pytest.fixture(params=list(LEAKS))
def leaking(request):
    code = f"import os, threading, time\nkept = []\nprint(flush=True)\nwhile len(kept) < 400:\n    {LEAKS[request.param]}\n    time.sleep(.01)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process.pid, request.param
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_gauge_that_leaks_is_the_one_that_grows(leaking):
    pid, metric = leaking
    done = leakscope("watch", pid, "--for", "2s", "--json")
    assert done.returncode == 3, done.stderr  # undecided
    document = json.loads(done.stdout)
    gauges = {g["metric"]: g for g in document["gauges"]}
    assert gauges[metric]["samples"] >= 5
    assert gauges[metric]["growth"]["rate_per_s"] > 0
    assert gauges[metric]["last"] > {"anon": 8 << 20, "fds": 60, "threads": 20}[metric]
    # Two seconds of a young process are no evidence, however steep the rise.
    assert {g["verdict"] for g in gauges.values()} == {"not enough data"}
    assert gauges[metric]["more_s"] > 600
    assert document["cpu_s_per_look"] > 0
    jsonschema.validate(document, SCHEMA)


def test_lines_then_verdict_then_next_command(leaking):
    pid, metric = leaking
    done = leakscope("watch", pid, "--for", "1s")
    lines = done.stdout.splitlines()
    shown = {"anon": "private memory", "fds": "open descriptors", "threads": "threads"}[metric]
    assert lines[0].startswith("Watching python")
    assert f"leakscope scan {pid}" in lines[0]
    assert f"{shown} " in lines[1]
    assert any(line.startswith("leakscope: not enough data") for line in lines)
    assert lines[-1].startswith("Next: ")
    kind = {"fds": " pipe", "threads": " python", "anon": "private memory"}[metric]
    assert kind in done.stdout


def test_it_ends_when_the_process_does():
    process = subprocess.Popen(["sleep", "60"])
    watch = subprocess.Popen(
        [sys.executable, "-m", "leakscope", "watch", str(process.pid), "--every", "0.2s"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    watch.stdout.readline()  # it has looked once
    process.kill()
    process.wait()
    said, _ = watch.communicate(timeout=60)
    assert watch.returncode == 3
    assert "leakscope: not enough data" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-program-xyz"], "there is no process called 'no-such-program-xyz'"),
        (["4194999"], "there is no process 4194999"),
        (["--every", "0.01s"], "--every 0.01s is too short"),
        (["--every", "999999999d"], "too long"),
        (["--for", "soon"], "'soon' is no length of time"),
        (["--for", "0s"], "'0s' is no length of time"),
        (["--cgroup", "/no/such"], "cgroup"),
        (["1", "--cgroup", "/"], "not both"),
        (["99999999999999999999"], "there is no process 9999"),
        (["1", "--html", "/no/such/file", "--for", "9h"], "there is no directory /no/such"),
        (["--record", "/no/such/file", "--for", "1s"], "there is no directory /no/such"),
    ],
)
def test_a_wrong_request_is_one_sentence(arguments, said):
    done = leakscope("watch", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_recorded_and_reported_later(tmp_path):
    path = tmp_path / "r"
    assert leakscope("watch", os.getpid(), "--for", "1s", "--record", path).returncode == 3
    path.write_bytes(path.read_bytes()[:-3])
    done = leakscope("report", path)
    assert done.returncode == 3, done.stderr
    assert "The end was cut off" in done.stdout
    path.write_bytes(path.read_bytes()[:60] + b"\0" * 40 + path.read_bytes()[100:])
    done = leakscope("report", path)
    assert done.returncode == 2
    assert "damaged" in done.stderr


@pytest.fixture
def recorded_leak(tmp_path):
    """Three hours of one process that grows by 36 MiB an hour and one that rests."""
    writer = StoreWriter(tmp_path / "leak", {"interval_s": 10})
    bad = Subject("process", "5@1", "<script>x", 5, "/bin/bad", SECOND)
    good = Subject("process", "6@1", "good", 6, "/bin/good", SECOND)
    for n in range(1080):
        noise = 1024 * (hash((n, 7)) % 512)
        measures = (
            Measure(bad, "anon", "bytes", (100 << 20) + n * 102_400 + noise),
            Measure(good, "anon", "bytes", (100 << 20) + noise),
        )
        writer.add(Pass((10_000 + 10 * n) * SECOND, measures, 2, 0.0, 0.0))
    writer.close()
    return tmp_path / "leak"


def test_a_recorded_leak_is_found_and_its_rate_is_right(recorded_leak):
    done = leakscope("report", recorded_leak, "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["leak_count"] == 1
    assert document["leaks"][0]["gauge"] == {"kind": "process", "key": "5@1", "metric": "anon"}
    gauges = {g["name"]: g for g in document["gauges"]}
    assert gauges["<script>x"]["verdict"] == "leak"
    assert gauges["<script>x"]["rate_per_hour"] == pytest.approx(360 * 102_400, rel=0.1)
    assert gauges["good"]["verdict"] != "leak"
    text = leakscope("report", recorded_leak).stdout
    assert text.startswith("leakscope: 1 leak after 3 h: <script>x (pid 5), private memory")
    assert "Next: leakscope scan 5" in text


def test_a_recording_is_told_as_far_as_it_is_whole(recorded_leak):
    whole = bytearray(recorded_leak.read_bytes())
    whole[len(whole) * 2 // 3] ^= 0x55
    recorded_leak.write_bytes(whole)
    done = leakscope("report", recorded_leak)
    assert done.returncode == 2
    assert done.stdout.startswith("leakscope: 1 leak after 2 h")
    assert "is damaged: the frame at byte" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_of_the_machine_in_a_pipe_is_a_line_a_look():
    done = leakscope("watch", "--for", "1s")
    first, *lines = done.stdout.partition("leakscope: ")[0].splitlines()
    assert first.startswith("Watching everything, a look every 0.1 s")
    assert 2 <= len(lines) <= 11  # one at each end
    assert all(" in use, " in line and " processes" in line for line in lines)


@pytest.mark.parametrize("kept", [False, True])
def test_a_watch_that_nobody_reads_goes_on_only_to_record(tmp_path, kept):
    path = tmp_path / "r"
    options = ["--for", "2s", "--record", str(path)] if kept else ["--for", "600s"]
    command = [sys.executable, "-m", "leakscope", "watch", str(os.getpid()), "--every", "0.2s"]
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=30) == 3
    assert process.stderr.read() == ""
    process.stderr.close()
    assert not kept or len(list(StoreReader(path).passes())) >= 8


def test_a_full_disk_ends_the_recording_and_not_the_watch(tmp_path):
    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (750, 750))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    path = tmp_path / "r"
    done = leakscope(
        "watch", os.getpid(), "--for", "4s", "--every", "0.1s", "--record", path,
        preexec_fn=small_disk,
    )  # fmt: skip
    assert done.returncode == 2
    assert "leakscope: not enough data for a verdict after " in done.stdout
    assert f"cannot write {path}: File too large" in done.stderr
    assert 0 < len(list(StoreReader(path).passes())) < 39


def test_the_page_escapes_names_and_needs_nothing_from_elsewhere(tmp_path):
    page = tmp_path / "page.html"
    name = tmp_path / "a<b>&"
    name.symlink_to("/bin/sleep")
    process = subprocess.Popen([name, "30"])
    try:
        done = leakscope("watch", process.pid, "--for", "1s", "--html", page)
        assert done.returncode == 3, done.stderr
        again = leakscope("watch", process.pid, "--for", "1s", "--html", page)
    finally:
        process.kill()
        process.wait()
    text = page.read_text()
    assert "a&lt;b&gt;&amp;" in text
    assert "a<b>" not in text
    # Namespaces are names; nothing is fetched (tests/page looks on in a browser).
    assert all("//www.w3.org/" in each for each in re.findall(r"https?:[^\"'` ]+", text))
    assert "src=" not in text
    assert page.stat().st_mode & 0o777 == 0o600
    assert again.returncode == 3  # like --report-file, it replaces what this user wrote
    assert sorted(os.listdir(tmp_path)) == ["a<b>&", "page.html"]


def test_ctrl_c_ends_with_the_report():
    import time

    process = subprocess.Popen(
        [sys.executable, "-m", "leakscope", "watch", str(os.getpid()), "--every", "0.2s"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "leakscope: not enough data" in rest


def test_a_terminal_that_knows_only_ascii(recorded_leak, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for arguments in (["report", recorded_leak], ["watch", os.getpid(), "--for", "1s"], []):
        done = leakscope(*arguments)
        assert done.returncode in {0, 1, 3}, done.stderr
        assert done.stdout.isascii()
        assert "Next: " in done.stdout


def test_options_of_report_hold_for_a_recorded_watch(recorded_leak, tmp_path):
    out = tmp_path / "out"
    done = leakscope("report", recorded_leak, "--report-file", out, "--exit-code", "7")
    assert done.returncode == 7
    assert done.stdout == ""
    assert out.read_text().startswith("leakscope: 1 leak after 3 h: ")


@pytest.fixture
def child():
    """A program that opens a socket to itself, and one thread of its own name."""
    code = (
        "import os, socket, threading, time\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "kept = [socket.create_connection(server.getsockname()) for _ in range(30)]\n"
        "print(server.getsockname()[1], flush=True)\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "print(flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    process.stdout.readline()
    yield process.pid, port
    process.kill()
    process.wait()
    process.stdout.close()


def test_it_says_whom_the_descriptors_point_to_and_counts_zombies(child):
    pid, port = child
    done = leakscope("watch", pid, "--for", "1s", "--json")
    gauges = {g["metric"]: g["last"] for g in json.loads(done.stdout)["gauges"]}
    assert gauges["zombies"] == 3
    assert "children" not in gauges
    assert gauges["mappings"] > 20
    text = leakscope("watch", pid, "--for", "1s").stdout
    assert f"30 tcp to 127.0.0.1:{port}, established" in text


def test_a_name_follows_the_program_through_a_restart(tmp_path):
    import time

    name = tmp_path / "restarted"
    name.symlink_to("/bin/sleep")
    first = subprocess.Popen([name, "30"])
    seen = tmp_path / "seen"
    command = [sys.executable, "-m", "leakscope", "watch", "restarted", "--for", "4s", "--json"]
    watch = subprocess.Popen(
        [*command, "--every", "0.2s", "--record", seen],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while watch.poll() is None and not (
        seen.exists() and seen.stat().st_size > 500
    ):  # several looks
        time.sleep(0.02)
    first.kill()
    first.wait()
    second = subprocess.Popen([name, "30"])
    out, _ = watch.communicate(timeout=60)
    second.kill()
    second.wait()
    pids = {g["pid"] for g in json.loads(out)["gauges"] if g["kind"] == "process"}
    assert {first.pid, second.pid} <= pids


def test_a_store_on_a_full_disk_is_one_sentence_and_stays_readable(tmp_path):
    """A file-size limit stands for the full disk: the write fails in the same place."""
    path = tmp_path / "r"
    command = [sys.executable, "-m", "leakscope", "watch", "--for", "4s", "--every", "0.1s"]
    done = subprocess.run(
        ["prlimit", "--fsize=700", *command, str(os.getpid()), "--plain", "--record", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2
    assert f"cannot write {path}" in done.stderr
    assert "Traceback" not in done.stderr
    assert leakscope("report", path).returncode == 3


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A C program: `threads` starts seven in a library, `holes` frees nine blocks of ten."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "pool.c").write_text(
        "#include <pthread.h>\n#include <unistd.h>\n"
        "static void *pool_worker(void *a) { for (;;) pause(); return a; }\n"
        "void start(void) { pthread_t t; pthread_create(&t, 0, pool_worker, 0); }\n"
    )
    (folder / "main.c").write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
        "void start(void);\n"
        "static char *kept[300000];\n"
        "int main(int c, char **v) {\n"
        '  if (c > 1 && !strcmp(v[1], "threads")) for (int n = 0; n < 7; n++) start();\n'
        "  else {\n"
        "    for (int n = 0; n < 300000; n++) kept[n] = memset(malloc(100), 1, 100);\n"
        "    for (int n = 0; n < 300000; n++) if (n % 10) free(kept[n]);\n"
        "  }\n"
        '  puts("ready"); fflush(stdout); for (;;) pause();\n'
        "}\n"
    )
    subprocess.run(
        ["cc", "-g", "-shared", "-fPIC", "pool.c", "-o", "libpool.so", "-pthread"],
        check=True,
        cwd=folder,
    )
    subprocess.run(
        ["cc", "-g", "main.c", "-o", "built", "-L.", "-lpool", "-Wl,-rpath,$ORIGIN"],
        check=True,
        cwd=folder,
    )
    return folder / "built"


def told_of(program, what, *options):
    process = subprocess.Popen([program, what], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        return leakscope("watch", process.pid, "--for", "1s", *options).stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_says_in_which_library_and_function_the_threads_began(built):
    assert "began in: 7 pool_worker in libpool.so" in told_of(built, "threads")


def test_memory_that_is_free_inside_the_allocator_is_told_as_such(built):
    text = told_of(built, "holes", "--heap")
    assert "in use, 30,00" in text
    assert "More is free than in use" in text
    assert "free inside" not in told_of(built, "holes")
    assert "More is free" not in told_of(built, "threads", "--heap")


def test_a_process_the_kernel_killed_for_want_of_memory_is_told(tmp_path):
    writer = StoreWriter(tmp_path / "oom", {"interval_s": 10})
    group = Subject("cgroup", "/small", "/small", limit=1000.0)
    for n in range(20):
        measures = (
            Measure(group, "anon", "bytes", 500),
            Measure(group, "oom_kills", "count", 3 + 2 * (n > 10)),
        )
        writer.add(Pass((10_000 + 10 * n) * SECOND, measures, 0, 0.0, 0.0))
    writer.close()
    text = leakscope("report", tmp_path / "oom").stdout
    assert "! The kernel killed 2 processes, out of memory, in cgroup /small." in text
    document = json.loads(leakscope("report", tmp_path / "oom", "--json").stdout)
    assert document["oom_kills"] == [{"kind": "cgroup", "key": "/small", "count": 2}]
    jsonschema.validate(document, SCHEMA)


def test_a_part_of_a_recording_and_its_values(recorded_leak, tmp_path):
    """The recording starts at 10,000 s after boot; its bad program grows by 100 KiB a look."""
    out = tmp_path / "values.csv"
    done = leakscope(
        "report",
        recorded_leak,
        "--of",
        "bad",
        "--since",
        "1h",
        "--until",
        "2h",
        "--csv",
        out,
        "--json",
    )
    (gauge,) = json.loads(done.stdout)["gauges"]
    assert gauge["pid"] == 5
    assert gauge["samples"] == 361
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 361
    assert {row["name"] for row in rows} == {"<script>x"}
    assert float(rows[-1]["time"]) - float(rows[0]["time"]) == 3600
    grown = int(rows[-1]["value"]) - int(rows[0]["value"])
    assert grown == pytest.approx(360 * 102_400, abs=1 << 20)
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_damaged_recording_leaves_no_half_of_its_values(recorded_leak, tmp_path):
    data = bytearray(recorded_leak.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    before = sorted(os.listdir(tmp_path))
    done = leakscope("report", damaged, "--csv", tmp_path / "values.csv")
    assert done.returncode == 2
    assert "is damaged" in done.stderr
    assert sorted(os.listdir(tmp_path)) == before


def test_a_name_that_is_not_in_the_recording_is_no_clean_bill(recorded_leak):
    done = leakscope("report", recorded_leak, "--of", "god")
    assert done.returncode == 2
    assert "is called 'god'" in done.stderr
