# SPDX-License-Identifier: Apache-2.0
"""Make a recording as large as a big server's, to time reading and reporting it.

    python benchmarks/report/make_big.py FILE [--blocks 10000000] [--sites 100000] [--live]

A heavy-tailed share of the sites holds most of the blocks, as in real programs; frames lie in
the executable parts of this interpreter and its libraries, so they have symbols where those
do. Without --live the file is packed; with it, it is laid out as the agent writes it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from leakscope.model.builder import RecordingBuilder
from leakscope.model.frames import Module
from leakscope.model.recordings import (
    AGE_BUCKETS,
    BLOCK_DTYPE,
    NODE_DTYPE,
    RANGE_DTYPE,
    Coverage,
    Process,
    Recording,
    Timeline,
)
from leakscope.recording import layout, packed

TICK_NS = float(1 << 20)
TICKS = 600_000_000_000 >> 20  # ten minutes
ROWS = 60
DEPTH = 16


def modules_here() -> list[tuple[Module, int, int]]:
    """Files mapped executable in this process, and the span of their code."""
    lowest: dict[str, int] = {}
    highest: dict[str, int] = {}
    code: dict[str, tuple[int, int]] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *path = line.split(None, 5)
        if not path or not path[0].startswith("/"):
            continue
        start, end = (int(each, 16) for each in span.split("-"))
        lowest.setdefault(path[0], start)
        highest[path[0]] = end
        if "x" in rights:
            code.setdefault(path[0], (start, end))
    found = []
    for path, (start, end) in code.items():
        with Path(path).open("rb") as file:
            fixed = file.read(18)[16] == 2  # ET_EXEC: linked at the address it runs at
        bias = 0 if fixed else lowest[path]
        module = Module(path, None, lowest[path], highest[path], bias)
        found.append((module, start - bias, end - bias))
    return found


def make(blocks: int, sites: int, seed: int = 1) -> Recording:
    """Return a recording of that many live blocks, of that many sites."""
    random = np.random.default_rng(seed)
    here = modules_here()

    nodes = np.zeros(1 + sites * 2, NODE_DTYPE)
    # A trunk of shared callers, then leaves: about two nodes a site, 16 frames deep.
    number = np.arange(len(nodes))
    earlier = random.integers(0, number[1:])
    nodes["parent"][1:] = np.where(number[1:] <= DEPTH, number[1:] - 1, earlier)
    depth = np.zeros(len(nodes), np.int64)
    for node in range(1, len(nodes)):
        if depth[nodes["parent"][node]] >= DEPTH:
            nodes["parent"][node] = DEPTH - 2
        depth[node] = depth[nodes["parent"][node]] + 1
    chosen = random.integers(0, len(here), len(nodes))
    low = np.array([each[1] for each in here])[chosen]
    high = np.array([each[2] for each in here])[chosen]
    nodes["module"][1:] = chosen[1:] + 1
    nodes["offset"][1:] = random.integers(low, high)[1:]

    share = random.zipf(1.3, sites - 1).astype(np.float64).clip(max=1e5)
    site_of = random.choice(sites - 1, blocks, p=share / share.sum()).astype(np.uint32) + 1
    table = np.zeros(blocks, BLOCK_DTYPE)
    size_of = random.choice([16, 24, 32, 48, 64, 100, 128, 256, 1000, 4096, 70000], sites)
    table["size"] = size_of[site_of]
    table["site"] = site_of
    gaps = (random.integers(1, 8, blocks, dtype=np.uint64) + np.uint64(1)) << np.uint64(4)
    gaps[random.integers(0, blocks, max(1, blocks // 10000))] += np.uint64(64 << 20)
    table["address"] = np.uint64(0x7F0000000000) + np.cumsum(gaps)
    birth = random.integers(0, TICKS, blocks)
    table["birth_ns"] = birth * int(TICK_NS)

    counts = np.bincount(site_of, minlength=sites)
    leaf = np.zeros(sites, np.int64)
    leaf[1:] = random.permutation(np.arange(1, len(nodes)))[: sites - 1]
    kind = np.zeros(sites, np.int64)
    kind[1:] = random.integers(0, 6, sites - 1)
    dead = random.geometric(0.001, sites) * (random.random(sites) < 0.7)
    first = random.integers(0, TICKS // 2, sites)
    deaths = np.zeros((sites, AGE_BUCKETS), np.uint64)
    deaths[np.arange(sites), random.integers(0, 12, sites)] = dead

    moments = np.linspace(0, TICKS - 1, ROWS).astype(np.int64)
    grown = (moments[:, None] / (TICKS - 1)) * counts[None, :]
    site_counts = grown.astype(np.uint32)
    site_bytes = (site_counts * size_of[None, :]).astype(np.float32)
    build = RecordingBuilder(
        Process(pid=1, exe="/usr/bin/big", arch="x86_64", ended="running"),
        Coverage(alloc_events=int((counts + dead).sum())),
        tick_ns=TICK_NS,
        duration_ns=TICKS * int(TICK_NS),
    )
    for each in here:
        build.module(each[0])
    build.nodes(nodes)
    build.sites(
        sites,
        node=leaf,
        kind=kind,
        depth=depth[leaf],
        allocs=counts + dead,
        alloc_bytes=(counts + dead) * size_of,
        frees=dead,
        freed_bytes=dead * size_of,
        live_count=counts,
        live_bytes=counts * size_of,
        peak_bytes=counts * size_of,
        first_birth_ns=first * int(TICK_NS),
        last_birth_ns=(TICKS - 1) * int(TICK_NS),
    )
    build.blocks(table)
    build.ranges(np.zeros(0, RANGE_DTYPE))
    build.deaths(deaths)
    build.timeline(
        Timeline(
            times_ns=moments * int(TICK_NS),
            live_bytes=site_bytes.sum(axis=1).astype(np.int64),
            live_counts=site_counts.sum(axis=1).astype(np.int64),
            site_bytes=site_bytes,
            site_counts=site_counts,
        )
    )
    return build.build()


def write_live(recording: Recording, path: Path) -> None:
    """Write the recording as the agent lays it out."""
    header = np.zeros(1, layout.HEADER_DTYPE)
    top = header[0]
    sites, nodes = len(recording.sites), len(recording.nodes)
    row = -(-sites * layout.TIMELINE_ENTRY_DTYPE.itemsize // 4096) * 4096
    chunks = -(-sites // layout.CHUNK_SITES)
    at = 32768
    sizes = {
        "modules": len(recording.modules) * layout.MODULE_DTYPE.itemsize,
        "strings": sum(len(os.fsencode(m.path)) + 1 for m in recording.modules),
        "nodes": nodes * layout.NODE_DTYPE.itemsize,
        "sites": sites * layout.SITE_DTYPE.itemsize,
        "ranges": 0,
        "chunks": chunks * layout.CHUNK_DTYPE.itemsize,
        "stripes": layout.STRIPES * layout.STRIPE_HEAD_BYTES,
    }
    for name, size in sizes.items():
        top[name]["offset"] = at
        top[name]["reserved"] = top[name]["used"] = -(-size // 4096) * 4096
        at += int(top[name]["reserved"])
    with path.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)

        def put(offset: int, data: bytes) -> None:
            file.seek(offset)
            file.write(data)

        table = np.zeros(len(recording.modules), layout.MODULE_DTYPE)
        strings = b""
        for entry, module in zip(table, recording.modules, strict=True):
            text = os.fsencode(module.path)
            entry["start"], entry["end"], entry["bias"] = module.start, module.end, module.bias
            entry["path_offset"], entry["path_bytes"] = len(strings), len(text)
            strings += text + b"\0"
        put(int(top["modules"]["offset"]), table.tobytes())
        put(int(top["strings"]["offset"]), strings)
        frames = np.zeros(nodes, layout.NODE_DTYPE)
        for name in ("parent", "module", "flags", "offset"):
            frames[name] = recording.nodes[name]
        put(int(top["nodes"]["offset"]), frames.tobytes())
        found = np.zeros(sites, layout.SITE_DTYPE)
        counters = np.zeros(chunks * layout.CHUNK_SITES, layout.COUNTER_DTYPE)
        for name in ("node", "kind", "depth"):
            found[name] = recording.sites[name]
        for name in ("allocs", "alloc_bytes", "frees", "freed_bytes"):
            counters[name][:sites] = recording.sites[name]
        counters["first_birth"][:sites] = recording.sites["first_birth_ns"] // int(TICK_NS)
        counters["last_birth"][:sites] = recording.sites["last_birth_ns"] // int(TICK_NS)
        counters["deaths"][:sites] = recording.deaths
        put(int(top["sites"]["offset"]), found.tobytes())
        listed = np.zeros(chunks, layout.CHUNK_DTYPE)
        listed["first_site"] = np.arange(chunks) * layout.CHUNK_SITES
        listed["offset"] = at + listed["first_site"].astype(np.uint64) * np.uint64(
            layout.COUNTER_DTYPE.itemsize
        )
        put(int(top["chunks"]["offset"]), listed.tobytes())
        put(at, counters.tobytes())
        at += counters.nbytes
        entries = np.zeros(sites, layout.TIMELINE_ENTRY_DTYPE)
        for number, time_ns in enumerate(recording.timeline.times_ns):
            entries["live_bytes"] = recording.timeline.site_bytes[number]
            entries["live_count"] = recording.timeline.site_counts[number]
            put(at, entries.tobytes())
            shown = top["rows"][number]
            shown["offset"], shown["room"] = at, sites
            at += row
            shown["tick"], shown["sites"] = int(time_ns) // int(TICK_NS), sites
            shown["live_bytes"] = recording.timeline.live_bytes[number]
            shown["live_count"] = recording.timeline.live_counts[number]
        # Each megabyte of addresses in one shard, at three quarters full, in hashed order.
        blocks = recording.blocks
        where = blocks["address"] >> np.uint64(3) | blocks["site"].astype(np.uint64) << np.uint64(
            layout.BLOCK_ADDRESS_BITS
        )
        tick = (blocks["birth_ns"] // int(TICK_NS)).astype(np.uint64)
        what = blocks["size"] | tick << np.uint64(32)
        mix = np.uint64(0x9E3779B97F4A7C15)
        shard_of = ((blocks["address"] >> np.uint64(20)) * mix) >> np.uint64(54)
        order = np.argsort(shard_of, kind="stable")
        ends = np.cumsum(np.bincount(shard_of.astype(np.int64), minlength=layout.SHARDS))
        random = np.random.default_rng(2)
        for shard, end in enumerate(ends.tolist()):
            chosen = order[(ends[shard - 1] if shard else 0) : end]
            if not len(chosen):
                continue
            capacity = 1 << int(len(chosen) * 4 // 3).bit_length()
            slots = random.choice(capacity, len(chosen), replace=False)
            held = np.zeros(capacity, layout.BLOCK_DTYPE)
            held["where"][slots], held["what"][slots] = where[chosen], what[chosen]
            top["shards"][shard]["offset"] = at
            top["shards"][shard]["capacity"] = capacity
            top["shards"][shard]["live"] = len(chosen)
            put(at, held.tobytes())
            at += -(-held.nbytes // 4096) * 4096
        file.truncate(at)
        top["magic"], top["version"] = layout.MAGIC, layout.VERSION
        top["header_bytes"] = layout.HEADER_DTYPE.itemsize
        top["arch"], top["state"] = layout.ARCH_X86_64, layout.STATE_EXITED
        top["page_bytes"], top["tick_shift"], top["max_depth"] = 4096, 20, 256
        top["mono_start_ns"] = top["counter_start"] = 10**9
        top["mono_last_ns"] = top["counter_last"] = 10**9 + recording.duration_ns
        top["file_bytes"] = top["bump"] = at
        top["exe"] = b"/usr/bin/big"
        top["module_count"], top["string_bytes"] = len(recording.modules), len(strings)
        top["node_count"], top["site_count"] = nodes, sites
        top["chunk_count"] = chunks
        put(0, header.tobytes())


def main() -> None:
    """Make the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--blocks", type=int, default=10_000_000)
    parser.add_argument("--sites", type=int, default=100_000)
    parser.add_argument("--live", action="store_true", help="as the agent writes it")
    arguments = parser.parse_args()
    recording = make(arguments.blocks, arguments.sites)
    if arguments.live:
        write_live(recording, arguments.file)
    else:
        packed.write(recording, arguments.file)


if __name__ == "__main__":
    main()
