# SPDX-License-Identifier: Apache-2.0
"""Findings built by hand, so that a test says only what it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from leakscope.model.findings import (
    Evidence,
    Finding,
    Findings,
    Pattern,
    SuppressionUse,
    Verdict,
)
from leakscope.model.frames import Address, Frame
from leakscope.model.recordings import Coverage, Process


def frame(
    function: str | None, file: str | None = None, line: int | None = None, **kw: Any
) -> Frame:
    made = Frame(
        address=Address(module=0, offset=0x1234),
        module_path="/opt/app/bin/app",
        build_id="ab" * 20,
        function=function,
        file=file,
        line=line,
    )
    return replace(made, **kw)


STACK = (
    frame("make_entry", "/src/app/cache.c", 42),
    frame("remember", "/src/app/cache.c", 60, inlined=True),
    frame("handle_request", "/src/app/server.c", 128),
    frame(
        None,
        address=Address(module=1, offset=0x5F31),
        module_path="/usr/lib/x86_64-linux-gnu/libevent-2.1.so.7",
    ),
    frame("main", "/src/app/main.c", 17),
    frame(
        "__libc_start_call_main",
        address=Address(module=2, offset=0x271CA),
        module_path="/usr/lib/x86_64-linux-gnu/libc.so.6",
    ),
    frame("_start"),
)


def finding(**kw: Any) -> Finding:
    made = Finding(
        subject="site",
        site=3,
        kind="malloc",
        verdict=Verdict.LEAKING,
        pattern=Pattern.RECURRENT,
        confidence=0.99,
        live_bytes=10_590_208,
        live_count=10_342,
        allocs=10_400,
        frees=58,
        rate=4198.4,
        rate_low=3900.0,
        rate_high=4500.0,
        sentence="Blocks allocated here are kept from every part of the run and old ones never die.",
        next_step="Free what make_entry returns, or bound the cache that keeps it.",
        evidence=(
            Evidence("survivors", 12, "blocks survive from all 12 windows of the run"),
            Evidence("trend", 4198.4, "live bytes grow by 4.1 KiB/s, R² 0.99"),
            Evidence("deaths", 58, "58 of 10,400 blocks were freed (0.6 %)", supports=False),
        ),
        stack=STACK,
        source=STACK[0],
        fingerprint="0123456789abcdef",
    )
    return replace(made, **kw)


def findings(*members: Finding, **kw: Any) -> Findings:
    leaks = [f for f in members if f.is_leak]
    made = Findings(
        process=Process(
            pid=1234, exe="/opt/app/bin/app", ended="exited", exit_status=0, arch="x86_64"
        ),
        coverage=Coverage(alloc_events=1_234_567, free_events=1_200_000),
        verdict=leaks[0].verdict if leaks else None,
        headline="1 place leaks 10.1 MiB and grows by 4.1 KiB/s" if leaks else "no leak found",
        findings=members,
        live_bytes=12_345_678,
        live_count=34_567,
        peak_bytes=15_000_000,
        total_allocs=1_234_567,
        total_frees=1_200_000,
        total_alloc_bytes=987_654_321,
        duration_ns=12_300_000_000,
    )
    return replace(made, **kw)


def source(frame: Frame, radius: int) -> list[tuple[int, str]]:
    assert frame.line is not None
    text = {
        40: "\tstruct entry *e;",
        41: "",
        42: "\te = malloc(sizeof *e + strlen(key) + 1);",
        43: "\tif (!e)",
        44: "\t\treturn NULL;",
    }
    return [
        (n, text.get(n, f"line {n}")) for n in range(frame.line - radius, frame.line + radius + 1)
    ]


UNKNOWN = finding(
    verdict=Verdict.UNKNOWN,
    pattern=None,
    confidence=0.2,
    live_bytes=8192,
    live_count=1,
    source=STACK[2],
    sentence="Too few births to tell.",
    next_step="Run for at least 40 s more, or repeat the request that grows it.",
    fingerprint="1123456789abcdef",
)
FILLING = finding(
    verdict=Verdict.FILLING,
    pattern=None,
    confidence=0.7,
    source=frame("intern", "/src/app/strings.c", 9),
    stack=(frame("intern", "/src/app/strings.c", 9), *STACK[4:]),
    fingerprint="2123456789abcdef",
    live_bytes=900_000,
)
BOUNDED = finding(
    verdict=Verdict.BOUNDED, pattern=None, live_bytes=4096, live_count=12, fingerprint="3" * 16
)
KNOWN = finding(
    verdict=Verdict.ONE_OFF,
    pattern=Pattern.ONE_OFF,
    live_bytes=72704,
    live_count=1,
    known="libc one-off",
    fingerprint="4" * 16,
    source=None,
)
SUPPRESSION = SuppressionUse("leak:g_thread_self", "my.supp:3", 2, 17, 1088)
