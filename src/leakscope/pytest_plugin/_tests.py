# SPDX-License-Identifier: Apache-2.0
"""Run tests, ask what they left behind, and run those again that left something.

What grows at the same place in each of several runs is no cache that fills once.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from _pytest.runner import runtestprotocol

from leakscope.pytest_plugin._here import own_recording, without_agent
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _pytest.terminal import TerminalReporter

__all__ = ["Tests", "begin"]

_Amounts: TypeAlias = "dict[int, tuple[int, int]]"  # by site: blocks and bytes
_Told: TypeAlias = "dict[int, list[tuple[int, int]]]"  # of several runs

_MOST_SECONDS = 120.0  # that a test is run again for
_FRAMES = 14
_SLOW = 0.05  # seconds: to collect garbage takes less than to run such a test again
_ACQUITTED = 3  # so often, a block more at a place alone is no reason to run a test again
_PLACES = 3


def begin(config: pytest.Config) -> Tests:
    """Return the plugin that looks after each test. Raises `UsageError` where it cannot."""
    if config.getoption("--leakscope-runs") < 2:
        raise pytest.UsageError(
            "--leakscope-runs: growth in one run alone says nothing; at least 2"
        )
    recording = own_recording()
    if recording is None:
        raise pytest.UsageError("leakscope's agent is not in this process")
    return Tests(config, recording)


class Tests:
    """Looks after the tests of one process."""

    def __init__(self, config: pytest.Config, recording: str) -> None:
        self._config = config
        self._runs: int = config.getoption("--leakscope-runs")
        self._watcher = _Watcher(recording)
        self.leaks = 0
        self.again = 0  # tests that were run again
        self.open: list[str] = []  # grew, and could not be run often enough
        self._marked = False
        self._acquitted: dict[int, int] = {}  # how often a place grew, and not when run again

    def end(self) -> None:
        """End the process that counts."""
        self._watcher.end()

    def pytest_report_header(self) -> str:
        """Say that the agent is here."""
        how = "sampled" if self._watcher.sampled else "exact"
        return (
            f"leakscope: recording pid {os.getpid()}, {how}; growth in {self._runs} runs is a leak"
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Run a test, and again when something is left of it."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = self._run(item, nextitem)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Say what was found, and what could not be."""
        if self.open:
            terminalreporter.section("leakscope")
            for text in self.open:
                terminalreporter.write_line(text)

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None) -> Sequence[pytest.TestReport]:
        marker = item.get_closest_marker("leakscope")
        if marker is not None and marker.kwargs.get("ignore"):
            return runtestprotocol(item, nextitem=nextitem, log=False)
        if not self._marked:
            self._watcher.mark()
        began = time.monotonic()
        first = runtestprotocol(item, nextitem=nextitem, log=False)
        self._marked = True  # what is told moves the mark
        took = time.monotonic() - began
        grown = {
            site: amount
            for site, amount in self._watcher.grown().items()
            if self._acquitted.get(site, 0) < _ACQUITTED or amount[0] > 1
        }
        if not grown or not all(report.outcome == "passed" for report in first):
            return first
        if took > _SLOW:
            gc.collect()
            left = self._watcher.left()
            grown = {site: left[site] for site in grown if site in left}
            if not grown:
                return first
        self.again += 1
        told = self._run_again(item, nextitem, grown, took)
        for site in grown.keys() - told.keys():
            self._acquitted[site] = self._acquitted.get(site, 0) + 1
        return self._failed(first, told) if told else first

    def _run_again(
        self, item: pytest.Item, nextitem: pytest.Item | None, grown: _Amounts, took: float
    ) -> _Told:
        """Return how much each site grew in every one of several further runs, if some did.

        Twice: first as tests run, and where it still grows then, with what waits for the garbage
        collector collected before each look, which takes its time.
        """
        sections = list(item._report_sections)  # noqa: SLF001 - every run adds to it
        until = time.monotonic() + _MOST_SECONDS
        frozen = False
        told: _Told = {site: [amount] for site, amount in grown.items()}
        try:
            for number in range(1, 2 * self._runs):
                collect = number >= self._runs
                if number == self._runs:
                    gc.collect()
                    if not gc.get_freeze_count():  # what is there now need not be looked at again
                        gc.freeze()
                        frozen = True
                    self._watcher.mark()
                    told = {site: [] for site in told}
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
                item._report_sections[:] = sections  # noqa: SLF001
                if collect or took > _SLOW:
                    gc.collect()
                more = self._watcher.grown()
                if not all(report.outcome == "passed" for report in reports):
                    self._leave_open(item, "did not pass when it was run again")
                    return {}
                told = {site: [*old, more[site]] for site, old in told.items() if site in more}
                if not told:
                    return {}
                if time.monotonic() > until:
                    self._leave_open(item, f"took too long to be run {2 * self._runs} times")
                    return {}
        finally:
            if frozen:
                gc.unfreeze()
        return told

    def _failed(
        self, reports: list[pytest.TestReport], grown: _Told
    ) -> Sequence[pytest.TestReport]:
        self.leaks += 1
        text = self._text(grown)
        for report in reports:
            if report.when == "call":
                report.outcome = "failed"
                report.longrepr = text
        return reports

    def _text(self, grown: _Told) -> str:
        heaviest = sorted(grown.items(), key=lambda each: -min(size for _, size in each[1]))
        places = plural(len(grown), "place")
        lines = [f"leaks in native code, at {places}: it grew in each of {self._runs} runs"]
        for site, told in heaviest[:_PLACES]:
            count, size = min(told, key=lambda each: each[1])
            lines += ["", f"  {bytes_text(size)} in {plural(count, 'block')} more in each run"]
            stack = _until_python(self._watcher.stack(site))
            lines += [f"    #{number:<2} {frame}" for number, frame in enumerate(stack[:_FRAMES])]
            if len(stack) > _FRAMES:
                lines.append(f"    … {len(stack) - _FRAMES} more")
        if len(grown) > _PLACES:
            lines += ["", f"  and {plural(len(grown) - _PLACES, 'more place')}"]
        return "\n".join(lines)

    def _leave_open(self, item: pytest.Item, why: str) -> None:
        self.open.append(f"{item.nodeid} grew in native code, and {why}: not judged")


def _until_python(stack: list[str]) -> list[str]:
    """Leave out what is beyond the first Python function: interpreter and pytest."""
    for number, frame in enumerate(stack):
        if number and frame.startswith("_PyEval_EvalFrame"):
            return stack[:number]
    return stack


class _Watcher:
    """The process that counts (`_watcher`), and the pipes to it."""

    def __init__(self, path: str) -> None:
        program = str(Path(f"/proc/{os.getpid()}/exe").readlink())
        command = [sys.executable, "-P", "-m", "leakscope.pytest_plugin._watcher"]
        environment = without_agent()
        self._process = subprocess.Popen(
            [*command, path, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        self._read()
        self.sampled = bool(self._ask("mark")["sampled"])

    def mark(self) -> None:
        """Remember what is held now."""
        self._ask("mark")

    def grown(self) -> _Amounts:
        """Return what native sites hold more than at the mark, which is moved to now."""
        return {site: (count, size) for site, count, size in self._ask("grown")["grown"]}

    def left(self) -> _Amounts:
        """Return what is left of that now."""
        return {site: (count, size) for site, count, size in self._ask("left")["grown"]}

    def stack(self, site: int) -> list[str]:
        """Describe the stack of a site."""
        found: list[str] = self._ask(f"stack {site}")["stack"]
        return found

    def end(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise pytest.UsageError(f"leakscope's counting process is gone: {error}") from error
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise pytest.UsageError("leakscope's counting process has ended")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise pytest.UsageError(f"leakscope: {found['error']}")
        return found
