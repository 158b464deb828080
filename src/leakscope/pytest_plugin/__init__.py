# SPDX-License-Identifier: Apache-2.0
"""`pytest --leakscope`: a test that leaks in native code fails, with the stack of the leak.

Without the option nothing happens and nothing is imported. With it pytest starts itself anew with
the agent preloaded, before any test is collected (`leakscope run -- pytest --leakscope` does as well,
and is needed where pytest is not the command: `pytest.main()` in a program of one's own).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from leakscope.pytest_plugin._tests import Tests

_MARKER = (
    "leakscope(ignore=False): with ignore=True the test is not failed for growth in native code"
)
_RUNS = 5
_running: list[Tests] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("leakscope", "leaks in native code")
    group.addoption(
        "--leakscope",
        action="store_true",
        default=False,
        help="fail tests that leak in native code: extension modules, ctypes, cffi",
    )
    group.addoption(
        "--leakscope-sample",
        metavar="SIZE",
        default=None,
        help="sample one byte in SIZE, for example 512KiB, at nearly no cost; finds what leaks about"
        " so much in each run of a test",
    )
    group.addoption(
        "--leakscope-runs",
        metavar="N",
        type=int,
        default=_RUNS,
        help="a test that grew is run again, and fails when it grew at the same place in each of N"
        f" runs (default {_RUNS})",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Know the marker; begin where it was asked for."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--leakscope"):
        from leakscope.pytest_plugin._tests import begin

        begun = begin(config)
        _running.append(begun)
        config.pluginmanager.register(begun, "leakscope-tests")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was begun."""
    while _running:
        _running.pop().end()
    if config.getoption("--leakscope"):
        from leakscope.pytest_plugin._here import clean_up

        clean_up()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start pytest anew with the agent, before anything of the project is loaded."""
    if early_config.known_args_namespace.leakscope:
        from leakscope.pytest_plugin._here import own_recording

        if own_recording() is None:
            from leakscope.pytest_plugin._start import start_anew

            start_anew(early_config)
