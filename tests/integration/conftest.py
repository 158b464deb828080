# SPDX-License-Identifier: Apache-2.0
"""Real programs under the real command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# As users start it, but from the sources under test; works in a tree that is not installed.
LEAKSCOPE = (sys.executable, "-m", "leakscope")
SOURCES = Path(__file__).parents[2] / "src"


@dataclass(frozen=True)
class Traced:
    """What one `leakscope run` left behind."""

    returncode: int
    stdout: str
    stderr: str
    report: dict[str, Any]  # the JSON document
    folder: Path  # holds the recordings

    @property
    def recordings(self) -> list[Path]:
        return sorted(self.folder.glob("*.leakscope"))

    @property
    def program(self) -> dict[str, Any]:
        """The entry of the program that was started, among those of its children."""
        return self.report["processes"][0]

    @property
    def findings(self) -> list[dict[str, Any]]:
        return [each for process in self.report["processes"] for each in process["findings"]]

    @property
    def leaks(self) -> list[dict[str, Any]]:
        return [each for each in self.findings if each["is_leak"]]


def place(finding: Mapping[str, Any]) -> tuple[str, int] | None:
    """File name and line that a finding points at."""
    source = finding["source"]
    if source is None or source["file"] is None:
        return None
    return Path(source["file"]).name, source["line"]


def describe(traced: Traced) -> str:
    """Everything a person needs to see why a verdict test failed."""
    lines = [f"exit {traced.returncode}", traced.stderr]
    for process in traced.report.get("processes", []):
        lines.append(f"{process['recording']} {process['process']} {process['coverage']}")
        lines.extend(
            f"  {each['verdict']} {each['pattern']} known={each['known']} at {place(each)}"
            f" live={each['live_bytes']} allocs={each['allocation_count']}"
            f" frees={each['free_count']}: {each['sentence']}"
            for each in process["findings"]
        )
    return "\n".join(lines)


@pytest.fixture
def leakscope(agent: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line; keyword arguments go to subprocess.run."""
    assert agent.exists()

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ) | dict(options.pop("env", {}))
        environment["PYTHONPATH"] = str(SOURCES)
        options = {"timeout": 100, "stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del options["stdin"]
        return subprocess.run(
            [*LEAKSCOPE, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def trace(
    leakscope: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> Callable[..., Traced]:
    """Trace a command and return its report."""

    def run(command: Sequence[object], *, options: Sequence[object] = (), **how: Any) -> Traced:
        folder = tmp_path / "recordings"
        folder.mkdir(exist_ok=True)
        report = tmp_path / "report.json"
        done = leakscope(
            "run",
            "--json",
            "--report-file",
            report,
            "--output",
            f"{folder}/%n.%p.leakscope",
            "--wait-children",
            "--keep-all",
            "--no-debuginfod",
            *options,
            "--",
            *command,
            **how,
        )
        document = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        return Traced(done.returncode, done.stdout, done.stderr, document, folder)

    return run
