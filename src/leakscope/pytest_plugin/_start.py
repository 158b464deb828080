# SPDX-License-Identifier: Apache-2.0
"""Start pytest anew with the agent preloaded, which can only be done at an exec."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leakscope.errors import LeakscopeError
from leakscope.trace.embed import recording_environment, remove_live_directory
from leakscope.trace.live_files import find_live_file
from leakscope.trace.settings import Settings, parse_size

if TYPE_CHECKING:
    from leakscope.trace.live_files import LiveFile

__all__ = ["clean_up", "own_recording", "start_anew"]

# Names the directory that was made here, and the process it belongs to.
_DIRECTORY = "LEAKSCOPE_PYTEST"
_DEPTH = 20  # frames: what is beyond them is the interpreter and pytest itself
_KEEP = 64  # recordings of processes that tests start, and that nobody reads
_COMMANDS = frozenset({"pytest", "py.test", "__main__.py"})
_BY_HAND = "Run it as: leakscope run --no-scan --no-report -- python PROGRAM"


def own_recording() -> LiveFile | None:
    """Return the recording of this very process, None where there is none."""
    try:
        file = find_live_file(os.getpid())
        return file if file is not None and file.started() else None
    except LeakscopeError:
        return None


def start_anew(config: pytest.Config) -> None:
    """Replace this process by pytest with the agent, unless it is there already."""
    if own_recording() is not None:
        return
    if os.environ.get(_DIRECTORY):
        raise pytest.UsageError("leakscope's agent was preloaded and does not record")
    if hasattr(config, "workerinput") or os.environ.get("PYTEST_XDIST_WORKER"):
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
    environment[_DIRECTORY] = f"{os.getpid()}:{directory}"
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()  # give descriptors back
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606
    except OSError as error:
        remove_live_directory(directory)
        raise pytest.UsageError(f"leakscope cannot start pytest anew: {error}") from error


def clean_up() -> None:
    """Remove what was made for the agent, in the process that began with it."""
    owner, _, directory = os.environ.get(_DIRECTORY, "").partition(":")
    if directory and owner == str(os.getpid()):
        remove_live_directory(Path(directory))
