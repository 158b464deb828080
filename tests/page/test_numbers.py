# SPDX-License-Identifier: Apache-2.0
"""The numbers of a page are those of the JSON and of the text, whatever the input is."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from foreign import SAMPLES
from page.conftest import leakscope

TYPES = {"float64": "<f8", "float32": "<f4", "int32": "<i4", "uint8": "u1"}
INPUTS = (
    "valgrind-xml/vg319-all.xml",
    "dhat/dhat-rs-yt.json",
    "heaptrack/heaptrack.leaky.v3.cut2000",
    "heaptrack/heaptrack.test_sysroot.expected",
    "lsan/gcc12-lsan-nosym.txt",
    "massif/linuxtools-TiB.massif",
    "massif/vg319-pages-ms.massif",
    "mtrace/glibc236-nopie.mtrace",
)


def read(page):
    """The document in a page, and what reads a column of it."""
    data = re.search(r'id="data">([^<]*)<', page.read_text(encoding="utf-8"))[1]
    raw = zlib.decompress(base64.b64decode(data))
    size = int.from_bytes(raw[:8], "little")

    def column(reference):
        kind, at, count = reference
        return np.frombuffer(raw, TYPES[kind], count, 8 + size + at)

    return json.loads(raw[8 : 8 + size]), column


@pytest.mark.parametrize("name", ["recording", "both", *INPUTS])
def test_sums_sites_and_headlines_are_equal(program, tmp_path, name):
    own = [program / "shop.leakscope", program / "later.leakscope"]
    inputs = {"recording": own[:1], "both": own}.get(name, [SAMPLES / name])
    done = leakscope("report", *inputs, "--json", "--html", "p.html", cwd=tmp_path)
    assert done.returncode in {0, 1, 3}, done.stderr
    text = " ".join(leakscope("report", "--all", *inputs, cwd=tmp_path).stdout.split())
    document, column = read(tmp_path / "p.html")
    told = json.loads(done.stdout)["processes"]
    assert len(told) == len(document["answers"]) == len(inputs)
    compared = 0
    for process, answer in zip(told, document["answers"], strict=True):
        assert answer["headline"] in text
        for account in answer["accounts"]:
            assert sum(row[1] for row in account["rows"]) == account["total"]
            compared += 1
        measures = answer["profile"]["measures"] if answer["profile"] else {}  # no call stacks
        for measure in {"live_bytes", "live_count"} & set(measures):
            total = process["totals"][measure]
            assert total is None or column(measures[measure]).sum() == total
            compared += total is not None
        found = {each["fingerprint"]: each for each in process["findings"]}
        for result in answer["results"]:
            finding = found.get(result["key"])
            if finding is None or result["site"] is None:
                continue
            for measure in ("live_bytes", "live_count", "lost_bytes", "lost_count"):
                wanted = finding.get(measure)
                if measure in measures and wanted is not None:
                    assert column(measures[measure])[result["site"]] == wanted
                    compared += 1
    assert compared
