# SPDX-License-Identifier: Apache-2.0
"""leakscope and its peers, as environments in which a command runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
AGENT = ROOT / "src" / "leakscope" / "_native" / "libleakscope-agent.so"
LIBRARIES = (
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib"),
)
PERIOD = 512 << 10


@dataclass(frozen=True)
class Tool:
    """`@` in a value stands for a private directory that is emptied after each run."""

    name: str
    preload: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    base: str = "native"  # what it is compared with: an allocator's profiler, with the allocator
    wrapper: tuple[str, ...] = ()

    @contextmanager
    def prepared(self) -> Iterator[tuple[dict[str, str], Path]]:
        """Yield the environment and the directory."""
        where = "/dev/shm" if self.name.startswith("leakscope") else None  # as leakscope run does
        folder = Path(tempfile.mkdtemp(prefix="leakscope-benchmark-", dir=where))
        try:
            env = {k: v.replace("@", str(folder)) for k, v in self.environment.items()}
            if self.preload:
                env["LD_PRELOAD"] = self.preload
            yield {**os.environ, **env}, folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def library(pattern: str) -> str | None:
    """Return the first shared object that matches."""
    for folder in LIBRARIES:
        for path in sorted(folder.glob(pattern)):
            return str(path)
    return None


def tools() -> dict[str, Tool]:
    """Return the tools that are installed here."""
    found = [
        Tool("native"),
        Tool("leakscope", str(AGENT), {"LEAKSCOPE_DIR": "@"}),
        Tool(
            "leakscope sampled", str(AGENT), {"LEAKSCOPE_DIR": "@", "LEAKSCOPE_SAMPLE": str(PERIOD)}
        ),
    ]
    if heaptrack := library("heaptrack/libheaptrack_preload.so") or (
        "/usr/lib/heaptrack/libheaptrack_preload.so"
        if Path("/usr/lib/heaptrack/libheaptrack_preload.so").exists()
        else None
    ):
        found.append(Tool("heaptrack", heaptrack, {"DUMP_HEAPTRACK_OUTPUT": "@/raw"}))
    if lsan := library("liblsan.so.*"):
        options = "exitcode=0:log_path=@/lsan"
        found.append(Tool("LeakSanitizer", lsan, {"LSAN_OPTIONS": options}))
    if tcmalloc := library("libtcmalloc.so.*"):
        found += [
            Tool("tcmalloc", tcmalloc),
            Tool("tcmalloc heap profile", tcmalloc, {"HEAPPROFILE": "@/p"}, "tcmalloc"),
            Tool(
                "tcmalloc sampled",
                tcmalloc,
                {"TCMALLOC_SAMPLE_PARAMETER": str(PERIOD)},
                "tcmalloc",
            ),
        ]
    if jemalloc := library("libjemalloc.so.*"):
        found.append(Tool("jemalloc", jemalloc))
        conf = "prof:true,prof_active:true,lg_prof_sample:19,prof_prefix:@/j"
        if jemalloc_profiles(jemalloc):
            found.append(Tool("jemalloc sampled", jemalloc, {"MALLOC_CONF": conf}, "jemalloc"))
    if shutil.which("valgrind"):
        wrapper = ("valgrind", "-q", "--leak-check=full", "--log-file=/dev/null")
        found.append(Tool("valgrind", wrapper=wrapper))
    return {tool.name: tool for tool in found}


def jemalloc_profiles(path: str) -> bool:
    """Whether this build of jemalloc has its profiler; distributions leave it out at times."""
    done = subprocess.run(
        ["true"],
        env={**os.environ, "LD_PRELOAD": path, "MALLOC_CONF": "prof:true"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "Invalid conf" not in done.stderr
