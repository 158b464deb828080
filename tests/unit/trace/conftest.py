# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture(scope="session")
def build():
    """Compile C text into a program that everybody can reach; equal requests build once."""
    folder = Path(tempfile.mkdtemp(prefix="leakscope-test-"))
    folder.chmod(0o755)
    built = {}

    def compile_(text, *flags, compiler="gcc", name="program"):
        key = (text, flags, compiler, name)
        if key not in built:
            place = folder / str(len(built))
            place.mkdir()
            place.chmod(0o755)
            source = place / "source.c"
            source.write_text(text)
            target = place / name
            subprocess.run([compiler, "-o", target, source, *flags], check=True)
            built[key] = target
        return built[key]

    yield compile_
    subprocess.run(["rm", "-r", folder], check=True)


@pytest.fixture
def shared_folder():
    """A folder that other users may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="leakscope-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def as_nobody():
    """Call a function as an ordinary user and return the text that it returns."""

    def call(function):
        if os.getuid() != 0:
            return function()
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                os.write(writer, function().encode())
            except BaseException as error:  # noqa: BLE001 - it goes to the parent
                os.write(writer, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            text = file.read()
        os.waitpid(pid, 0)
        return text

    return call
