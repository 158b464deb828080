# SPDX-License-Identifier: Apache-2.0
"""What `import leakscope` promises before a program is started: arguments, errors, names."""

import datetime as dt
import inspect
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import leakscope
from leakscope._library import values
from leakscope.errors import LeakscopeError, UsageError


def test_scan_is_the_function_whatever_was_imported_before():
    code = """
import leakscope.scan, leakscope.scan.process
import leakscope
from leakscope.scan import scan_process
from leakscope import scan
print(callable(leakscope.scan), scan is leakscope.scan, scan.__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True True leakscope._library.scanning\n", done.stderr


@pytest.mark.parametrize("name", [name for name in leakscope.__all__ if name != "__version__"])
def test_every_public_name_says_what_it_is_and_functions_are_typed(name):
    found = getattr(leakscope, name)
    assert inspect.getdoc(found)
    if inspect.isfunction(found):
        signature = inspect.signature(found)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (512, 512),
        ("512KiB", 512 << 10),
        ("1.5M", 3 << 19),
        (4096.0, 4096),
        (np.int64(7), 7),
        (None, None),
    ],
)
def test_sizes_are_numbers_or_text(given, found):
    assert values.size("sample", given) == found


@pytest.mark.parametrize("given", ["many", [1], b"1", True, -1, 1.5, float("nan"), float("inf")])
def test_what_is_no_size_is_refused_with_its_name(given):
    with pytest.raises(UsageError, match=r"^sample"):
        values.size("sample", given)


@pytest.mark.parametrize(
    ("given", "found"),
    [(3, 3.0), ("2m", 120.0), (0.5, 0.5), (dt.timedelta(hours=1), 3600.0), (None, None)],
)
def test_durations_are_numbers_text_or_timedeltas(given, found):
    assert values.duration("timeout", given) == found


@pytest.mark.parametrize("given", ["soon", -1, [3], True, float("nan")])
def test_what_is_no_duration_is_refused_with_its_name(given):
    with pytest.raises(UsageError, match=r"^timeout"):
        values.duration("timeout", given)


def test_signals_are_numbers_or_names():
    for given in ("USR1", "sigusr1", signal.SIGUSR1, int(signal.SIGUSR1)):
        assert values.signal_number("start_signal", given) == signal.SIGUSR1
    with pytest.raises(UsageError, match=r"^start_signal: .*KILL"):
        values.signal_number("start_signal", "KILL")


def test_a_command_is_a_program_a_path_or_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("parse").touch()
    assert values.command_line("./parse", None) == ["./parse"]
    assert values.command_line(Path("./parse"), None) == ["./parse"]  # pathlib drops the "./"
    assert values.command_line([Path("parse"), b"-v", Path("x")], None) == ["./parse", "-v", "x"]
    assert values.command_line([Path("ls")], None) == ["ls"]


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        (lambda: leakscope.run("./app --flag"), "one text, './app --flag'", '["./app", "--flag"]'),
        (lambda: leakscope.run(["ls", 5]), "word 1 of the command is 5", "str"),
        (lambda: leakscope.run(7), "the command is 7", None),
        (lambda: leakscope.run([]), "no program", "run("),
        (lambda: leakscope.run(""), "no program", "run("),
        (lambda: leakscope.run("no-such-program"), "no program no-such-program", None),
        (lambda: leakscope.run("ls", timeout=0), "timeout of 0", "timeout=60"),
        (lambda: leakscope.run("ls", cwd="/nowhere"), "'/nowhere', does not exist", None),
        (lambda: leakscope.run("ls", cwd=__file__), "is not a directory", None),
        (lambda: leakscope.run("ls", env={"A": 1}), r"env\['A'\] is 1", None),
        (lambda: leakscope.run("ls", env={"A=": "1"}), "variable 'A='", None),
        (lambda: leakscope.run("ls", stdout="file"), "stdout is 'file'", None),
        (lambda: leakscope.run("ls", stdout=sys), "stdout is", None),
        (lambda: leakscope.run("ls", depth="8"), "depth is '8'", None),
        (lambda: leakscope.run("ls", suppressions="/nowhere"), "/nowhere cannot be read", "Name"),
        (lambda: leakscope.run("ls", output=5), "output is 5", None),
        (lambda: leakscope.scan("nowhere"), "neither a process id nor a file", "PID"),
        (lambda: leakscope.scan(0), "not a process id", "PID"),
        (lambda: leakscope.scan(1, max_pause=0), "pause of 0 s", None),
        (lambda: leakscope.scan([1]), r"target is \[1\]", None),
        (lambda: leakscope.watch(1), "when the watch is to end", "duration="),
        (lambda: leakscope.watch(None, duration=1), "process to watch is None", None),
        (lambda: leakscope.watch("no-such", duration=1), "called 'no-such'", "name"),
        (lambda: leakscope.watch(1, cgroup="/", duration=1), "not both", None),
        (lambda: leakscope.watch(1, every=0, duration=1), "every=0", None),
        (lambda: leakscope.load("/nowhere"), "cannot open /nowhere", "name"),
        (lambda: leakscope.load(None), "path is None", None),
        (lambda: leakscope.analyse(3.5), "recording is 3.5", None),
    ],
)
def test_what_cannot_work_is_one_sentence_of_our_own(call, message, hint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeakscopeError, match=message) as caught:
        call()
    assert hint is None or hint in caught.value.hint
    assert getattr(caught.value, "__notes__", []) == (
        [caught.value.hint] * (caught.value.hint is not None)
    )
    assert list(tmp_path.iterdir()) == []


def test_errors_survive_a_process_pool():
    error = pickle.loads(pickle.dumps(UsageError("no", hint="Try yes.")))
    assert (str(error), error.hint) == ("no", "Try yes.")


def test_a_descriptor_for_the_program_is_a_copy_above_the_standard_ones():
    import os

    with tempfile.TemporaryFile() as file:
        for given in (file, file.fileno(), subprocess.DEVNULL):
            copy = values.stream("stdout", given)
            assert copy > 2
            assert copy != file.fileno()
            assert not os.get_inheritable(copy)
            os.close(copy)


def test_a_frame_in_words_is_where_it_is():
    from leakscope.model.frames import Address

    address = Address(0, 0x1234)
    known = leakscope.Frame(address, "/opt/app", function="parse(int)", file="/src/a.c", line=7)

    assert str(known) == "parse(int) at /src/a.c:7"
    assert str(leakscope.Frame(address, "/opt/app", symbol="f")) == "f in /opt/app"
    assert str(leakscope.Frame(address)) == "0x1234"
