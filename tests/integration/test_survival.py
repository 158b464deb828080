# SPDX-License-Identifier: Apache-2.0
"""A recording is complete after SIGKILL; a report says what was hidden, and JSON keeps its schema."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from integration.claims import FOLDER, claim
from leakscope import analyse
from leakscope.recording import live

BUSY = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *work(void *argument) {
  char *held[500] = {0};
  unsigned seed = (unsigned)(long)argument;
  for (long i = 0;; i++) {
    seed = seed * 1103515245u + 12345u;
    unsigned k = (seed >> 8) % 500;
    free(held[k]);
    held[k] = malloc(20 + (seed >> 16) % 300);
    if (i % 1000 == 0) {
      char *volatile lost = malloc(77);
      memset(lost, 1, 77);
      usleep(100);
    }
  }
}
int main(void) {
  pthread_t thread;
  for (long i = 1; i < 4; i++) pthread_create(&thread, NULL, work, (void *)i);
  puts("go");
  fflush(stdout);
  work((void *)9);
}
"""


@pytest.fixture
def busy(agent, tmp_path):
    (tmp_path / "busy.c").write_text(BUSY)
    command = ["gcc", "-O2", "-g", "-pthread", tmp_path / "busy.c", "-o", tmp_path / "busy"]
    subprocess.run(command, check=True)
    folder = tmp_path / "live"
    folder.mkdir(mode=0o700)
    environment = os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(folder)}
    process = subprocess.Popen(
        [tmp_path / "busy"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "go\n"
    time.sleep(5)  # a busy machine may stand still for some hundred milliseconds of it
    yield process, folder
    process.kill()
    process.communicate()


def one(folder: Path) -> Path:
    (path,) = folder.glob("*.live")
    return path


def test_sigkill_loses_nothing_that_was_reported_just_before(busy):
    process, folder = busy
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    before = live.read(one(folder))
    judged = analyse(before, debuginfod=False)

    process.kill()
    process.wait()

    after = live.read(one(folder))
    for table in ("blocks", "sites", "nodes", "deaths"):
        assert np.array_equal(getattr(before, table), getattr(after, table)), table
    again = analyse(after, debuginfod=False)
    # The time between the stop and the reading counts as the program's while it lives, and on a
    # busy machine it is long: less may be said then than afterwards, never more.
    held = {f.fingerprint: f.live_bytes for f in again.findings}
    assert {f.fingerprint: f.live_bytes for f in judged.findings} == held
    assert {f.fingerprint for f in again.leaks} >= {f.fingerprint for f in judged.leaks}


def test_sigkill_in_full_flight_leaves_tables_that_agree(busy):
    process, folder = busy

    process.kill()
    process.wait()

    recording = live.read(one(folder))
    sites = recording.sites
    counted = sites["allocs"].astype(np.int64) - sites["frees"].astype(np.int64)
    # At most one event in flight for each of the four threads.
    assert np.abs(counted - sites["live_count"].astype(np.int64)).sum() <= 4
    assert sites["allocs"].sum() > 10_000
    assert recording.coverage.dropped.get("table_full", 0) == 0


def test_suppressions_hide_and_say_how_much(trace, tmp_path):
    program = claim("leak_loop").build(tmp_path, "O2")
    (tmp_path / "s.supp").write_text("leak:^turn$\n")

    traced = trace([program], options=["--suppressions", tmp_path / "s.supp"])

    assert traced.returncode == 0
    (use,) = traced.program["suppressions"]
    assert (use["name"], use["block_count"], use["hidden_bytes"]) == ("leak:^turn$", 500, 50_000)


def test_the_document_follows_the_published_schema(trace, tmp_path):
    schema = FOLDER.parents[1] / "docs" / "reference" / "json-schema" / "leakscope-findings-1.json"

    traced = trace([claim("fork_child_leak").build(tmp_path, "O0")])

    jsonschema.validate(traced.report, json.loads(schema.read_text()))
    assert traced.report["leak_count"] == 1


def test_no_scan_leaves_it_to_statistics(trace, tmp_path):
    traced = trace([claim("leak_loop").build(tmp_path, "O2")], options=["--no-scan"])

    (leak,) = traced.leaks
    assert leak["verdict"] == "leaking"
    assert leak["lost_count"] is None


def test_a_sampled_run_estimates_within_its_interval(trace, tmp_path):
    source = tmp_path / "much.c"
    source.write_text(
        "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
        "int main(void) { for (int i = 0; i < 3000; i++) {"
        " char *volatile lost = malloc(4000); memset(lost, 1, 4000); lost = 0; usleep(150); } }\n"
    )
    subprocess.run(["gcc", "-O1", "-g", "-o", tmp_path / "much", source], check=True)

    traced = trace([tmp_path / "much"], options=["--sample", "64KiB"])

    (leak,) = traced.leaks
    assert traced.program["coverage"]["mode"] == "sampled"
    assert leak["live_bytes_low"] < leak["live_bytes"] < leak["live_bytes_high"]
    # The interval holds 19 times in 20; four times its width never fails.
    low = leak["live_bytes"] - 2 * (leak["live_bytes"] - leak["live_bytes_low"])
    high = leak["live_bytes"] + 2 * (leak["live_bytes_high"] - leak["live_bytes"])
    assert low < 12_000_000 < high
