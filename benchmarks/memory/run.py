# SPDX-License-Identifier: Apache-2.0
"""What a live block costs in the recording, and how good sampled estimates are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parents[1]), str(ROOT / "src")]
from micro.run import build  # noqa: E402
from tools import IdleToolError, allocations, tools  # noqa: E402


def record(program: Path, name: str, arguments: list[str], **more: str):
    """Return the recording, its header's table of shards, and the bytes it takes on disk."""
    from leakscope.recording import load
    from leakscope.recording._header import Header
    from leakscope.recording._source import Source

    with tools()[name].prepared() as (env, folder):
        env.update(more)
        subprocess.run([program, *arguments], env=env, capture_output=True, check=True)
        (path,) = folder.glob("*.live")
        if not allocations(folder):
            raise IdleToolError(f"{name} was not at work: it recorded nothing")
        with Source(path) as source:
            shards = Header(source).fields["shards"].copy()
        return load(path), shards, os.stat(path).st_blocks * 512


def measure_blocks(folder: Path) -> list[str]:
    """Bytes for a live block."""
    program = build(folder)
    lines = [
        "| live blocks | table of live blocks, bytes a block | whole recording in memory, bytes a block |",
        "|---:|---:|---:|",
    ]
    for live in (10_000, 100_000, 1_000_000):
        arguments = ["--live", str(live), "--pairs", "200000", "--sites", "16"]
        recording, shards, disk = record(program, "leakscope", arguments)
        blocks = len(recording.blocks)
        table = int(shards["capacity"].astype("u8").sum()) * 16
        lines.append(f"| {blocks:,} | {table / blocks:.1f} | {disk / blocks:.1f} |")
    return lines


def measure_sampling(folder: Path, rounds: int) -> list[str]:
    """Estimates of live bytes for each site against an exact run of the same program."""
    from leakscope.judge import judge
    from leakscope.judge.identities import Fingerprints

    program = build(folder)
    arguments = ["--live", "100000", "--pairs", "200000", "--sites", "64"]
    exact, _, _ = record(program, "leakscope", arguments)
    identities = Fingerprints(exact)
    truth = {
        identities.of(site): int(exact.sites["live_bytes"][site])
        for site in range(1, len(exact.sites))
        if exact.sites["live_bytes"][site]
    }
    total = sum(truth.values())
    lines = [
        "| sample period | runs | sites × runs with samples | truth inside the 95 % interval | total, estimate / truth |",
        "|---:|---:|---:|---:|---:|",
    ]
    for period in (16 << 10, 64 << 10, 512 << 10):
        inside = seen = 0
        shares = []
        for _ in range(rounds):
            made, _, _ = record(
                program, "leakscope sampled", arguments, LEAKSCOPE_SAMPLE=str(period)
            )
            shares.append(int(made.sites["live_bytes"].sum()) / total)
            for found in judge(made, lambda _: ()).findings:
                known = truth.get(found.fingerprint)
                if known is None or found.live_bytes_low is None or found.live_bytes_high is None:
                    continue
                seen += 1
                inside += found.live_bytes_low <= known <= found.live_bytes_high
        lines.append(
            f"| {period >> 10} KiB | {rounds} | {seen} | {inside / max(seen, 1):.1%} "
            f"| {sum(shares) / len(shares):.3f} ({min(shares):.2f} to {max(shares):.2f}) |"
        )
    return lines
