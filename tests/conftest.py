# SPDX-License-Identifier: Apache-2.0
"""What all tests share: under CI a skipped test is a failed one, and the agent to test with."""

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from leakscope._native import AGENT, path

ROOT = Path(__file__).parents[1]

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
    """Say beforehand why many tests will fail where the files of other tools are not there."""
    samples = ROOT.parent / "shared" / "samples"
    return [] if samples.is_dir() else [f"missing: {samples}, which tests of formats and Java read"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
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
