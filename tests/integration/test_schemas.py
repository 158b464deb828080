# SPDX-License-Identifier: Apache-2.0
"""Each document that a command writes follows the schema that it names, which is published."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

import leakscope
import leakscope.report
from conftest import ROOT
from leakscope.trace.live_files import list_live_files

PACKAGE = Path(leakscope.report.__file__).parent
PUBLISHED = ROOT / "docs/reference/json-schema"
PROGRAM = """
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
char *kept[100];
int main(void) {
  for (int i = 0; i < 100; i++) {
    kept[i] = malloc(500);
    char *volatile lost = malloc(700);
    memset(lost, 1, 700);
    lost = 0;
  }
  memset(malloc(10), 1, 10);
  sleep(60);
  return 0;
}
"""


def schema_files():
    return {
        "leakscope-findings-1.json": PACKAGE / "schema.json",
        **{path.name: path for path in (PACKAGE / "schemas").glob("*.json")},
    }


def schema_of(document):
    name = document["schema"].replace("/", "-")
    schema = json.loads(schema_files()[f"{name}.json"].read_text(encoding="utf-8"))
    assert schema["title"] == document["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def written(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, arguments), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == "" or done.stdout, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, schema_of(document))
    return document


def test_what_is_published_is_what_is_installed():
    installed = {name: path.read_text() for name, path in schema_files().items()}
    published = {path.name: path.read_text() for path in PUBLISHED.glob("*.json")}
    assert installed == published, "copy the newer: docs/reference/json-schema, report/schemas"


def test_every_document_that_is_written_has_a_schema():
    named = {
        match.replace("/", "-") + ".json"
        for path in PACKAGE.parent.rglob("*.py")
        for match in re.findall(r'^SCHEMA = "(leakscope-\w+/\d+)"', path.read_text(), re.MULTILINE)
    }
    assert len(named) >= 6
    assert named <= set(schema_files())


@pytest.fixture(scope="module")
def program(tmp_path_factory, agent):
    folder = tmp_path_factory.mktemp("schemas")
    (folder / "program.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-g", "-O0", folder / "program.c", "-o", folder / "program"], check=True)
    return folder / "program"


def test_documents_on_an_untraced_process(program):
    process = subprocess.Popen([program])
    try:
        time.sleep(0.5)
        heap = written("scan", process.pid)
        assert (heap["schema"], heap["counts"]["definitely_lost"] > 90) == (
            "leakscope-heap/1",
            True,
        )
        assert (
            written("watch", process.pid, "--for", "1s", "--plain")["schema"] == "leakscope-watch/1"
        )
        found = written("find", process.pid, "--for", "3s", "--yes")
        assert (found["schema"], found["pid"]) == ("leakscope-find/1", process.pid)
        assert leakscope.find(process.pid, duration="3s").to_dict().keys() == found.keys()
        assert written("doctor", process.pid)["schema"] == "leakscope-doctor/1"
    finally:
        process.kill()
        process.wait()


def test_documents_on_a_traced_process(program, tmp_path):
    environment = os.environ | {
        "LD_PRELOAD": str(leakscope._native.path("libleakscope-agent.so")),
        "LEAKSCOPE_DIR": str(tmp_path),
    }
    process = subprocess.Popen([program], env=environment)
    try:
        time.sleep(1)
        assert list_live_files(tmp_path)
        assert written("scan", process.pid)["schema"] == "leakscope-findings/1"
        assert written("report", process.pid)["schema"] == "leakscope-findings/1"
        (site,) = written("scan", process.pid, "--held-by", "program.c:8")["sites"]
        assert site["holders"][0]["root"].startswith("kept")
    finally:
        process.kill()
        process.wait()


def test_documents_on_the_machine():
    assert written()["schema"] == "leakscope-triage/1"
    assert written("doctor")["schema"] == "leakscope-doctor/1"
    assert written("kernel")["schema"] == "leakscope-kernel/1"
