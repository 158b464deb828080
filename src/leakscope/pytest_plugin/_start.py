# SPDX-License-Identifier: Apache-2.0
"""Start pytest anew with the agent preloaded, which can only be done at an exec."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from leakscope.errors import LeakscopeError
from leakscope.pytest_plugin._here import DIRECTORY
from leakscope.trace.embed import recording_environment
from leakscope.trace.output import private_part
from leakscope.trace.settings import Settings, parse_size

__all__ = ["start_anew"]

_DEPTH = 20  # frames: what is beyond them is the interpreter and pytest itself
_KEEP = 64  # recordings of processes that tests start, and that nobody reads
_COMMANDS = frozenset({"pytest", "py.test", "__main__.py"})
_EXECNET = "exec(eval(sys.stdin"  # what starts a worker
_BY_HAND = "Run it as: leakscope run --no-scan --no-report -- python PROGRAM"


def start_anew(config: pytest.Config) -> None:
    """Replace this process, in which there is no agent, by pytest with one."""
    if os.environ.get(DIRECTORY):
        raise pytest.UsageError("leakscope's agent was preloaded and does not record")
    # (A test may start pytest: it inherits the variable, and is no worker.)
    started = "PYTEST_XDIST_WORKER" in os.environ and any(
        _EXECNET in word for word in sys.orig_argv
    )
    if hasattr(config, "workerinput") or started:
        raise pytest.UsageError(
            "a worker of pytest-xdist has no agent of leakscope's: start it here"
        )
    arguments = [os.fspath(each) for each in config.invocation_params.args]
    if Path(sys.argv[0]).name not in _COMMANDS or arguments != sys.argv[1:]:
        raise pytest.UsageError(
            f"--leakscope can start the command pytest anew, and not a program that calls it. {_BY_HAND}"
        )
    try:
        sample = config.known_args_namespace.leakscope_sample
        settings = Settings(
            sample=parse_size(sample) if sample else None,
            depth=_DEPTH,
            # Workers of pytest-xdist are started by the same interpreter.
            only=(Path(sys.executable).resolve().name,),
        )
        environment, directory = recording_environment(settings, os.environ, keep=_KEEP)
    except LeakscopeError as error:
        raise pytest.UsageError(f"leakscope: {error} {error.hint or ''}".rstrip()) from error
    environment[DIRECTORY] = f"{os.getpid()}:{private_part(directory)}"
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()  # give descriptors back
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606
    except OSError as error:
        shutil.rmtree(private_part(directory), ignore_errors=True)
        raise pytest.UsageError(f"leakscope cannot start pytest anew: {error}") from error
