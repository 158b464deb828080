# SPDX-License-Identifier: Apache-2.0
"""What all tests share: under CI a skipped test is a failed one, and the agent to test with."""

import fcntl
import os
import signal
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from leakscope._native import AGENT, path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
"""Files of other projects, which are not in this one: `samples`, `kernel-lab`."""
NOT_THERE = f"missing: {SHARED}, whose files many tests read"
READERS = {"foreign", "java_dumps"}
"""Modules of helpers that read them."""

# nohup and a shell's background jobs start us with these ignored, and the programs that the tests
# start would inherit that; what is tested is what they do as anyone else finds them.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        _usual = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, _usual)


# How long one example takes depends on what else the machine does.
settings.register_profile("any-load", parent=settings(), deadline=None)
settings.load_profile("any-load")


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # A missing tool must not look like a passed test where everything can be installed.
    if _in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped, and with CI set nothing may be: {reason}"


def pytest_report_header() -> list[str]:
    """Say beforehand why many tests will be skipped."""
    return [] if SHARED.is_dir() else [NOT_THERE]


def _reads_shared(module: ModuleType) -> bool:
    for value in vars(module).values():
        if isinstance(value, Path) and value.is_relative_to(SHARED):
            return True
        if {getattr(value, "__name__", ""), getattr(value, "__module__", "")} & READERS:
            return True
    return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip whole files of tests where the files of other projects that they read are not there."""
    if SHARED.is_dir():
        return
    for item in items:
        if isinstance(item, pytest.Function) and _reads_shared(item.module):
            item.add_marker(pytest.mark.skip(reason=NOT_THERE))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    if report.failed and not SHARED.is_dir() and f"{SHARED}/" in report.longreprtext:
        report.outcome = "skipped"
        report.longrepr = (report.nodeid, 0, NOT_THERE)
    _refuse_skip(report)
    return report


def build_agent(folder: Path, *options: str) -> Path:
    """Build the agent of this source tree into `folder` and return it; safe to call at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), *options],
            ["cmake", "--build", str(folder)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)
    return folder / "native" / AGENT


@pytest.fixture(scope="session")
def agent() -> Path:
    """The agent that `leakscope run` will preload: the installed one, or one built here."""
    found = path(AGENT)
    in_sources = (ROOT / "src") in found.parents  # left by hand, or not there at all: may be stale
    if "LEAKSCOPE_AGENT" not in os.environ and (in_sources or not found.exists()):
        found = build_agent(ROOT / "build" / "dev")
        os.environ["LEAKSCOPE_AGENT"] = str(found)
    return found
