# SPDX-License-Identifier: Apache-2.0
"""leakscope and its peers, as environments in which a command runs.

Each tool says how one sees that it was at work, and `prove` looks: a preload that the loader
refuses costs nothing, and a benchmark of it would be the best of all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
from leakscope import _native  # noqa: E402

AGENT = _native.path(_native.AGENT)
WITNESS = Path(__file__).with_name("witness.cc")
WITNESS_ALLOCATIONS = 200_000
REFUSED = "cannot be preloaded"  # what the loader says, and goes on without
LIBRARIES = (
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib"),
)
PERIOD = 512 << 10


@dataclass(frozen=True)
class Trace:
    """What a run has left: the tool's private directory, and what was printed."""

    folder: Path
    out: str
    err: str

    def has(self, pattern: str, text: str = "") -> bool:
        """Whether there is a file of such a name that is not empty, and has `text` in it."""
        found = (path for path in self.folder.glob(pattern) if path.stat().st_size)
        return any(text in path.read_text(errors="replace") if text else True for path in found)


class IdleToolError(SystemExit):
    """The tool was not at work, so there is nothing to measure."""


@dataclass(frozen=True)
class Tool:
    """`@` in a value stands for a private directory that is emptied after each run.

    `is_seen` tells from a run of the witness whether the tool was at work.
    """

    name: str
    preload: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    base: str = "native"  # what it is compared with: an allocator's profiler, with the allocator
    wrapper: tuple[str, ...] = ()
    is_seen: Callable[[Trace], bool] = lambda _: True

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


def allocations(folder: Path) -> int:
    """Return how many allocations the live recordings in `folder` have."""
    from leakscope.errors import LeakscopeError
    from leakscope.recording import load

    try:
        return sum(int(load(path).sites["allocs"].sum()) for path in folder.glob("*.live"))
    except LeakscopeError as error:
        raise IdleToolError(f"what leakscope recorded cannot be read: {error}") from error


def check_preload(tool: Tool, err: str) -> None:
    """Raise `IdleToolError` when the loader has said that it left the tool out."""
    if REFUSED in err:
        raise IdleToolError(f"{tool.name} was not at work: {err.strip()[:300]}")


def prove(found: Iterable[Tool]) -> None:
    """Run a program under each tool that is known to allocate; raise `IdleToolError` if one idled.

    To be called before anything is measured.
    """
    with tempfile.TemporaryDirectory(prefix="leakscope-benchmark-") as name:
        witness = Path(name, "witness")
        subprocess.run(["g++", "-O1", WITNESS, "-o", witness, "-ldl"], check=True)
        for tool in found:
            with tool.prepared() as (env, folder):
                done = subprocess.run(
                    [*tool.wrapper, witness],
                    env=env,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                check_preload(tool, done.stderr)
                trace = Trace(folder, done.stdout, done.stderr)
                why = None
                if done.returncode:
                    why = f"a program under it ends with status {done.returncode}"
                elif tool.preload and f"mapped {Path(tool.preload).resolve()}" not in done.stdout:
                    why = f"{tool.preload} was not loaded"
                elif not tool.is_seen(trace):
                    why = "it left no sign of its work"
            if why is not None:
                raise IdleToolError(f"{tool.name} was not at work: {why}\n{done.stderr[-500:]}")


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
        Tool(
            "leakscope",
            str(AGENT),
            {"LEAKSCOPE_DIR": "@"},
            is_seen=lambda run: allocations(run.folder) >= WITNESS_ALLOCATIONS,
        ),
        Tool(
            "leakscope sampled",
            str(AGENT),
            {"LEAKSCOPE_DIR": "@", "LEAKSCOPE_SAMPLE": str(PERIOD)},
            is_seen=lambda run: allocations(run.folder) > 0,
        ),
    ]
    if heaptrack := library("heaptrack/libheaptrack_preload.so") or (
        "/usr/lib/heaptrack/libheaptrack_preload.so"
        if Path("/usr/lib/heaptrack/libheaptrack_preload.so").exists()
        else None
    ):
        found.append(
            Tool(
                "heaptrack",
                heaptrack,
                {"DUMP_HEAPTRACK_OUTPUT": "@/raw"},
                is_seen=lambda run: run.has("raw*"),
            )
        )
    if lsan := library("liblsan.so.*"):
        options = "exitcode=0:log_path=@/lsan"
        found.append(
            Tool(
                "LeakSanitizer",
                lsan,
                {"LSAN_OPTIONS": options},
                is_seen=lambda run: run.has("lsan*", "detected memory leaks"),
            )
        )
    if tcmalloc := library("libtcmalloc.so.*"):
        found += [
            Tool("tcmalloc", tcmalloc),
            Tool(
                "tcmalloc heap profile",
                tcmalloc,
                {"HEAPPROFILE": "@/p"},
                "tcmalloc",
                is_seen=lambda run: run.has("p.*.heap", "heap profile:"),
            ),
            Tool(
                "tcmalloc sampled",
                tcmalloc,
                {"TCMALLOC_SAMPLE_PARAMETER": str(PERIOD)},
                "tcmalloc",
                is_seen=lambda run: "tcmalloc has samples" in run.out,
            ),
        ]
    if jemalloc := library("libjemalloc.so.*"):
        found.append(Tool("jemalloc", jemalloc))
        conf = "prof:true,prof_active:true,lg_prof_sample:19,prof_prefix:@/j"
        if jemalloc_profiles(jemalloc):
            found.append(
                Tool(
                    "jemalloc sampled",
                    jemalloc,
                    {"MALLOC_CONF": conf},
                    "jemalloc",
                    is_seen=lambda run: "jemalloc profiles" in run.out,
                )
            )
    if shutil.which("valgrind"):
        wrapper = ("valgrind", "-q", "--leak-check=full", "--log-file=/dev/null")
        found.append(
            Tool("valgrind", wrapper=wrapper, is_seen=lambda run: "/vgpreload_memcheck" in run.out)
        )
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
