# SPDX-License-Identifier: Apache-2.0
"""Recordings of real programs and built ones, and what it means that two are equal."""

import dataclasses
import os
import subprocess
from pathlib import Path

import numpy as np

from leakscope.model.builder import RecordingBuilder
from leakscope.model.frames import Module
from leakscope.model.reachability import ScanFacts
from leakscope.model.recordings import (
    AGE_BUCKETS,
    BLOCK_DTYPE,
    NODE_DTYPE,
    RANGE_DTYPE,
    SITE_DTYPE,
    Coverage,
    Process,
    Recording,
    Timeline,
)

PROGRAMS = Path(__file__).parents[2] / "programs"


def build(program: str, folder: Path, *options: str) -> Path:
    binary = folder / program
    command = ["gcc", "-g", "-O0", "-pthread", PROGRAMS / f"{program}.c", "-o", binary, *options]
    subprocess.run(command, check=True)
    return binary


def environment(agent: Path, folder: Path, **settings: str) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return variables | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(folder), **settings}


def line_of(recording: Recording, site: int) -> str:
    """FILE:LINE of the innermost frame of `site`, as binutils see it."""
    frame = recording.stack(site)[0]
    path = recording.modules[frame.module].path
    done = subprocess.run(
        ["addr2line", "-s", "-e", path, hex(frame.offset - (not frame.exact))],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().split(" ")[0]


def marked_line(program: str, mark: str) -> str:
    text = (PROGRAMS / f"{program}.c").read_text().splitlines()
    (number,) = (n for n, line in enumerate(text, 1) if f"// {mark} HERE" in line)
    return f"{program}.c:{number}"


def assert_equal(one: Recording, other: Recording) -> None:
    for field in dataclasses.fields(Recording):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if not field.compare:
            continue
        if field.name == "timeline":
            for column in dataclasses.fields(Timeline):
                same(getattr(a, column.name), getattr(b, column.name), column.name)
        else:
            same(a, b, field.name)


def same(a: object, b: object, name: str) -> None:
    if isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray), name
        assert a.dtype == b.dtype, name
        assert a.shape == b.shape, name
        assert np.array_equal(a, b), name
    else:
        assert a == b, name


def built(blocks: int = 1000, sites: int = 20, nodes: int = 50, rows: int = 5) -> Recording:
    """A recording with something in every member."""
    random = np.random.default_rng(7)
    depot = np.zeros(nodes, NODE_DTYPE)
    depot["parent"][1:] = random.integers(0, np.arange(1, nodes))
    depot["module"] = random.integers(0, 3, nodes)
    depot["offset"] = random.integers(0, 1 << 48, nodes)
    depot[0] = 0
    columns = {name: random.integers(0, 1 << 40, sites) for name in SITE_DTYPE.names[3:]}
    columns["node"], columns["kind"] = (
        random.integers(0, nodes, sites),
        random.integers(0, 8, sites),
    )
    living = np.zeros(blocks, BLOCK_DTYPE)
    living["address"] = np.cumsum(random.integers(1, 1000, blocks)) * 16 + (0x7F << 40)
    living["size"] = random.choice([24, 100, 1 << 33], blocks)
    living["site"] = random.integers(0, sites, blocks)
    living["birth_ns"] = random.integers(0, 1 << 20, blocks) << 20
    ranges = np.zeros(3, RANGE_DTYPE)
    ranges["start"], ranges["length"] = [1 << 30, 1 << 31, 1 << 46], 4096
    build = RecordingBuilder(
        Process(pid=42, exe="/opt/a b/\udcff", arch="x86_64", ended="killed by SIGKILL"),
        Coverage(mode="sampled", sample_bytes=4096, dropped={"early": 3}, notes=("x",)),
        duration_ns=1 << 40,
    )
    build.module(Module("/opt/app", "ab" * 20, 1 << 22, 1 << 23, 0))
    build.module(
        Module("/lib/x.so", None, 1 << 46, (1 << 46) + 4096, (1 << 64) - 4096, unloaded=True)
    )
    build.nodes(depot)
    build.sites(sites, **columns)
    build.blocks(living)
    build.ranges(ranges)
    build.deaths(random.integers(0, 1 << 35, (sites, AGE_BUCKETS)).astype(np.uint64))
    build.timeline(
        Timeline(
            times_ns=np.arange(rows, dtype=np.int64) << 30,
            live_bytes=random.integers(0, 1 << 40, rows),
            live_counts=random.integers(0, 1 << 20, rows),
            site_bytes=random.random((rows, sites)).astype(np.float32),
            site_counts=random.integers(0, 1 << 32, (rows, sites)).astype(np.uint32),
            rss_bytes=random.integers(0, 1 << 40, rows),
        )
    )
    build.examined(
        random.integers(0, 5, blocks).astype(np.uint8),
        ScanFacts(method="frozen", pause_ms=1.5, seconds=2, scanned_bytes=3, threads=4),
    )
    return build.build()
