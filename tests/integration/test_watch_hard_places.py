# SPDX-License-Identifier: Apache-2.0
"""`leakscope watch`, `leakscope report` and triage where processes, names, files and streams are odd."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leakscope.model.series import Subject
from leakscope.observe.measures import Measure, Pass
from leakscope.observe.store import StoreWriter

SECOND = 1_000_000_000
COMMAND = [sys.executable, "-m", "leakscope"]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def leakscope(*arguments, stdin=None, **environment):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=stdin,
        env=ENVIRONMENT | environment,
    )


def shell(line, *arguments):
    command = ["/bin/sh", "-c", line, "sh", *COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT
    )


@pytest.fixture
def started():
    processes = []

    def start(*command):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        return process.pid

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def recording(tmp_path):
    writer = StoreWriter(tmp_path / "r.watch", {"interval_s": 10})
    subject = Subject("process", "5@1", "leaky", 5, "/bin/leaky", SECOND)
    for n in range(1080):
        measure = Measure(subject, "anon", "bytes", (100 << 20) + n * 102_400)
        writer.add(Pass((10_000 + 10 * n) * SECOND, (measure,), 1, 0.0, 0.0))
    writer.close()
    return tmp_path / "r.watch"


def gauges(pid):
    done = leakscope("watch", pid, "--for", "1s", "--json", "--report-file", "/dev/null")
    assert done.returncode == 2  # that is no regular file
    done = leakscope("watch", pid, "--for", "1s", "--json")
    assert done.returncode == 3, done.stderr
    return {g["metric"]: g["last"] for g in json.loads(done.stdout)["gauges"]}


LEADERLESS = r"""
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *work(void *unused) {
  usleep(100000);
  memset(malloc(50 << 20), 1, 50 << 20);
  for (int i = 0; i < 40; i++) open("/dev/null", O_RDONLY);
  puts("ready");
  fflush(stdout);
  pause();
  return unused;
}
int main(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, work, NULL);
  pthread_exit(NULL);
}
"""


def test_a_process_whose_first_thread_has_ended_is_seen(tmp_path, started):
    (tmp_path / "l.c").write_text(LEADERLESS)
    subprocess.run(["gcc", "-pthread", "l.c", "-o", "l"], cwd=tmp_path, check=True)
    pid = started(tmp_path / "l")
    held = gauges(pid)
    assert held["anon"] > 50 << 20
    assert held["fds"] >= 43
    assert held["mappings"] > 10
    text = leakscope("watch", pid, "--for", "0.5s").stdout
    assert "What l (pid" in text
    assert "/dev/null" in text
    assert any(p["pid"] == pid for p in json.loads(leakscope("--json").stdout)["processes"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have more groups than it was given")
def test_a_process_of_many_groups_is_seen(started):
    code = "import os; os.setgroups(range(100_000, 103_000)); x = b'x' * (30 << 20); print(flush=True); input()"
    pid = started(sys.executable, "-c", code)
    assert gauges(pid)["anon"] > 30 << 20
    assert gauges(pid)["threads"] == 1


def test_more_mappings_than_fit_into_sixteen_megabytes_of_text(tmp_path, started):
    folder = tmp_path.joinpath(*["d" * 250 for _ in range(14)])
    folder.mkdir(parents=True)
    (folder / "f").write_bytes(bytes(4096))
    code = (
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "held = [mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ) for _ in range(6000)]\n"
        "print(flush=True); input()\n"
    )
    pid = started(sys.executable, "-c", code, folder / "f")
    assert len(Path(f"/proc/{pid}/maps").read_text()) > 17 << 20
    assert gauges(pid)["mappings"] > 6000


def test_what_tells_nothing_is_not_called_clean():
    done = leakscope("watch", "2", "--for", "0.3s")  # a kernel thread
    assert done.returncode == 2
    assert "nothing could be read of 2" in done.stderr


@pytest.mark.parametrize(
    "outputs",
    [
        ("--html", "r.watch"),
        ("--report-file", "r.watch"),
        ("--csv", "r.watch"),
        ("--html", "link"),
        ("--html", "x", "--csv", "x"),
        ("--csv", ""),
        ("--html", "/dev/stdout"),
        ("--html", "out"),
    ],
)
def test_an_output_never_replaces_what_is_needed(recording, monkeypatch, outputs):
    monkeypatch.chdir(recording.parent)
    before = recording.read_bytes()
    (recording.parent / "link").symlink_to("r.watch")
    (recording.parent / "out").symlink_to("/dev/stdout")
    name = "link" if outputs[1] == "link" else "r.watch"
    done = leakscope("report", name, *outputs)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 2
    assert recording.read_bytes() == before
    assert sorted(os.listdir()) == ["link", "out", "r.watch"]
    assert os.path.islink("/dev/stdout")


@pytest.mark.parametrize("arguments", [("watch", "no-such-xyz"), ("report", "/no"), ("nonsense",)])
@pytest.mark.parametrize("where", [">/dev/full 2>&1", "2>/dev/full", "2>&-", ">&- 2>&- <&-"])
def test_an_error_that_cannot_be_told_is_still_an_error(arguments, where):
    assert shell(f'"$@" {where}', *arguments).returncode == 2


def test_closed_streams_lose_no_report(tmp_path, recording):
    for where in (">&-", "2>&-", ">&- 2>&- <&-"):
        target = tmp_path / "report"
        done = shell(f'"$@" {where}', "report", recording, "--report-file", target)
        assert done.returncode == 1, done.stderr
        assert target.read_text().startswith("leakscope: 1 leak")
        target.unlink()
        done = shell(
            f'"$@" {where}', "watch", os.getpid(), "--for", "0.5s", "--report-file", target
        )
        assert done.returncode == 3, done.stderr
        assert target.read_text().startswith("leakscope: not enough data")
        target.unlink()
        # The answer itself has nowhere to go when standard output is closed.
        assert shell(f'"$@" {where}').returncode == (0 if where == "2>&-" else 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_reports(tmp_path, number):
    target = tmp_path / "report"
    process = subprocess.Popen(
        [*COMMAND, "watch", str(os.getpid()), "--every", "0.2s", "--report-file", str(target)],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509 (nohup may have started us)
    )
    process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 3
    assert target.read_text().startswith("leakscope: not enough data")


@pytest.mark.parametrize("columns", ["1", "8", "19", "9" * 5000])
def test_any_width_of_a_terminal(recording, columns):
    import pty

    main, end = pty.openpty()
    try:
        done = subprocess.Popen(
            [*COMMAND, "report", recording], stdout=end, env=ENVIRONMENT | {"COLUMNS": columns}
        )
        os.close(end)
        text = b""
        while True:
            try:
                part = os.read(main, 1 << 16)
            except OSError:
                break
            if not part:
                break
            text += part
        assert done.wait(timeout=30) == 1
    finally:
        os.close(main)
    assert b"leaky" in text


def test_next_commands_are_quoted(tmp_path):
    writer = StoreWriter(tmp_path / "r.watch", {"interval_s": 10})
    name = "/mnt/a b;touch PWN"
    subject = Subject("tmpfs", "0:50", name, limit=float(1 << 44))
    for n in range(1080):
        measure = Measure(subject, "tmpfs", "bytes", (100 << 20) + n * 102_400)
        writer.add(Pass((10_000 + 10 * n) * SECOND, (measure,), 1, 0.0, 0.0))
    writer.close()
    done = leakscope("report", tmp_path / "r.watch")
    assert done.returncode == 1
    assert "du -xah -- '/mnt/a b;touch PWN' | sort" in done.stdout.replace("\n      ", " ")
    assert "lasts for years" in done.stdout.replace("\n      ", " ")


def test_names_in_json_are_text_for_every_reader(tmp_path):
    writer = StoreWriter(tmp_path / "r.watch", {"interval_s": 10})
    subject = Subject("cgroup", "/a\udcff", "/a\udcff")
    for n in range(50):
        writer.add(Pass((10 + n) * SECOND, (Measure(subject, "anon", "bytes", 4096),), 0, 0.0, 0.0))
    writer.close()
    document = json.loads(leakscope("report", tmp_path / "r.watch", "--json").stdout)
    json.dumps(document, ensure_ascii=False).encode()
    assert document["gauges"][0]["key"] == "/a\\udcff"


def test_options_that_everybody_tries():
    for options in (["--colour=never"], ["--color", "never"], ["--json"]):
        assert leakscope(*options).returncode == 0
    done = leakscope("watch", "", "--for", "1s")
    assert done.returncode == 2
    assert "no empty name" in done.stderr


def test_a_recording_of_a_watch_is_reported_alone(recording):
    done = leakscope("report", recording, recording)
    assert done.returncode == 2
    assert "reported alone" in done.stderr
