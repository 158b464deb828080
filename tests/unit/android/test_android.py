# SPDX-License-Identifier: Apache-2.0
"""The rituals around an Android device, driven by a script that answers as adb does."""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from java_dumps import validated
from leakscope.android.meminfo import parse_meminfo_app
from leakscope.android.options import OPTIONS, check_options
from leakscope.cli import main
from leakscope.errors import UsageError

FAKE = Path(__file__).parents[2] / "programs" / "android" / "adb"
APP = "com.example.app"


RUN = subprocess.run


def fake(folder):
    """The script as a function: a process for each of a hundred calls would take long."""
    loader = importlib.machinery.SourceFileLoader("fake_adb", str(FAKE))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fake_adb", loader))
    loader.exec_module(module)
    module.FOLDER = folder

    def call(command, **_):
        out, wrong, before = io.StringIO(), io.StringIO(), sys.argv
        status = 0
        sys.argv = list(command)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(wrong):
                module.main()
        except SystemExit as ended:
            status = ended.code
        finally:
            sys.argv = before
        return subprocess.CompletedProcess(
            command, status, out.getvalue().encode(), wrong.getvalue().encode()
        )

    return call


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device whose state can be changed; properties and calls can be asked for."""
    folder = tmp_path / "device"
    folder.mkdir()
    monkeypatch.setenv("FAKE_DEVICE", str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("leakscope.android.adb.subprocess.run", fake(folder))
    monkeypatch.setattr("leakscope.android.heap._PAUSE_S", 0.01)
    monkeypatch.setattr("leakscope.android.heap._START_S", 0.3)
    monkeypatch.setattr("leakscope.android.heap._DUMP_S", 0.3)

    class Device:
        properties: ClassVar = {
            "ro.build.version.sdk": "33",
            "ro.build.type": "userdebug",
            "wrap.other": "kept",
        }
        first: ClassVar = {"root": True, "pids": {APP: 4321, "surfaceflinger": 500}}

        def change(self, **more):
            state = {"properties": dict(self.properties), **self.first, **more}
            (folder / "state.json").write_text(json.dumps(state))

        @property
        def state(self):
            return json.loads((folder / "state.json").read_text())

        @property
        def calls(self):
            path = folder / "calls"
            return path.read_text().splitlines() if path.exists() else []

        @property
        def files(self):
            return [p.name for p in folder.iterdir() if p.name.startswith("_data")]

    made = Device()
    made.change()
    return made


def run(*arguments):
    return main(["android", *arguments, "--adb", str(FAKE)])


WAYS = {
    "app": ("--app", APP),
    "pid": ("--app", "4321"),
    "program": ("--program", "surfaceflinger"),
    "zygote": ("--zygote", APP),
    "all": ("--all", APP),
    "shell": ("--shell", "cd / && leaky 40 0"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_dump_is_taken_and_reported_and_all_is_undone(device, way, capsys, tmp_path):
    status = run("heap", *WAYS[way], "--wait", "0.01", "-o", "dump.txt")
    out, told = capsys.readouterr()
    assert status == 3, out + told  # held memory, and nobody looked whether it is in use
    assert "41 blocks" in out or "40 blocks" in out
    assert (tmp_path / "dump.txt").read_text().endswith("END\n")
    properties = {k: v for k, v in device.state["properties"].items() if v}
    assert properties == device.properties
    assert device.files == []
    if way not in ("pid", "shell"):
        assert "sets " in told
    calls = "\n".join(device.calls)
    expected = {
        "app": "setprop wrap.com.example.app '\"LIBC_DEBUG_MALLOC_OPTIONS=backtrace logwrapper\"'",
        "pid": "am dumpheap -n 4321",
        "program": "setprop libc.debug.malloc.program surfaceflinger",
        "zygote": "setprop libc.debug.malloc.program app_process",
        "all": "setprop libc.debug.malloc.options backtrace",
        "shell": "backtrace_dump_on_exit",
    }
    assert expected[way] in calls
    restarted = [call for call in device.calls if call in ("shell stop", "shell start")]
    assert len(restarted) == (4 if way == "zygote" else 4 if way == "all" else 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_dry_run_shows_every_call_and_makes_none(device, way, capsys):
    assert run("heap", *WAYS[way], "--dry-run") == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "shell" in line]
    assert device.calls == []
    assert len(shown) >= 3


def test_the_device_goes_in_the_middle_and_what_can_be_said_is(device, capsys, tmp_path):
    for count in range(1, 12):
        device.change(gone_after=count)
        (tmp_path / "device" / "calls").unlink(missing_ok=True)
        status = run("heap", "--app", APP, "--wait", "0.01", "-o", "dump.txt")
        told = capsys.readouterr().err
        if status == 3:  # it was fetched, and the device went before all was undone
            assert "could not be undone on the device:" in told
            break
        assert status == 2
        assert "there is no device, or it is gone" in told or "does not run" in told
        if "sets wrap" in told and count > 3:
            assert "could not be undone on the device:" in told
            assert "wrap.com.example.app=''" in told
        assert not (tmp_path / "dump.txt").exists()
        assert not list(tmp_path.glob(".dump*"))
    assert count > 8


def test_what_ends_it_in_the_middle_undoes_as_well(device, monkeypatch, capsys):
    """SIGTERM, as a shell or a build server sends it."""
    monkeypatch.setattr(
        "leakscope.android.heap._wait", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert run("heap", "--app", APP) == 143
    assert {k: v for k, v in device.state["properties"].items() if v} == device.properties


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_it_while_it_undoes_waits_for_that(device, number, monkeypatch, capsys):
    """Ctrl-C twice: the second one left the app wrapped, and said nothing."""
    from leakscope.android.heap import _Undo

    undo = _Undo.all

    def all_(self):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        undo(self)

    monkeypatch.setattr(_Undo, "all", all_)
    try:
        status = run("heap", "--app", APP, "--wait", "0.01", "-o", "dump.txt")
    except KeyboardInterrupt:
        status = 130
    assert status == 128 + number
    assert {k: v for k, v in device.state["properties"].items() if v} == device.properties
    assert "is being put back" in capsys.readouterr().err


def test_adb_is_out_of_reach_of_ctrl_c(device, monkeypatch):
    """The terminal sends it to all of a session: what puts things back would end with it."""
    sessions = []
    answer = fake(Path(os.environ["FAKE_DEVICE"]))

    def call(command, *, start_new_session=False, **more):
        sessions.append(start_new_session)
        return answer(command, **more)

    monkeypatch.setattr("leakscope.android.adb.subprocess.run", call)
    run("heap", "--app", "4321", "-o", "dump.txt")
    assert sessions
    assert all(sessions)


def test_what_is_fetched_is_private_at_every_moment(device, monkeypatch, tmp_path):
    """In a folder where others may write, a link with the name of the part led somewhere else."""
    (tmp_path / "victim").write_text("kept")
    (tmp_path / f".dump.txt.{os.getpid()}.part").symlink_to(tmp_path / "victim")
    modes = []
    answer = fake(Path(os.environ["FAKE_DEVICE"]))

    def call(command, **more):
        if "pull" in command:
            modes.append(Path(command[-1]).parent.stat().st_mode & 0o777)
        return answer(command, **more)

    monkeypatch.setattr("leakscope.android.adb.subprocess.run", call)
    assert run("heap", "--app", "4321", "-o", "dump.txt") == 3
    assert (tmp_path / "victim").read_text() == "kept"
    assert modes == [0o700]
    assert (tmp_path / "dump.txt").stat().st_mode & 0o777 == 0o600


def test_nothing_is_set_for_a_file_that_cannot_be_written(device, capsys):
    assert run("heap", "--app", APP, "-o", "no/where.txt") == 2
    assert "there is no directory" in capsys.readouterr().err
    assert device.calls == []


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"error": "device unauthorized.\nThis adb server's keys"}, ("--app", APP), "does not trust"),
        ({"error": "more than one device/emulator"}, ("--app", APP), "several devices"),
        ({"root": False}, ("--zygote", APP), "takes root"),
        ({"no_setprop": True}, ("--app", APP), "does not let wrap.com.example.app be set"),
        ({"no_dump": True}, ("--app", APP), "not debuggable"),
        ({"pids": {}}, ("--app", APP), "does not run on the device"),
        ({}, ("--app", "bad name; reboot"), "is no name of a property or an app"),
        ({}, ("--app", APP, "--options", "backtrace=400"), "from 1 to 256"),
        ({}, ("--app", APP, "--options", "bactrace"), "has no option 'bactrace'"),
        ({}, ("--app", APP, "--options", "backtrace_size=3"), "from API level 34 on"),
        ({}, ("--app", APP, "--options", "record_allocs_file=$(x)"), "takes the path"),
        ({}, ("--app", APP, "--options", "backtrace fill_on_alloc fill_on_free leak_track free_track"),
         "a property has 91 at most"),
        ({}, (), "name one of"),
        ({}, ("--app", APP, "--zygote", APP), "name one of"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_sentence_and_is_undone(device, change, arguments, said, capsys):
    device.change(**change)
    assert run("heap", *arguments, "--wait", "0.01") == 2
    assert said in capsys.readouterr().err
    assert {k: v for k, v in device.state["properties"].items() if v} == device.properties
    assert device.files == []


@pytest.mark.parametrize(
    ("command", "blocks", "told"),
    [
        ("cd /; leaky 7 0", "8 blocks", ""),
        ("leaky 2 0; leaky 900 0; leaky 3 0", "901 blocks", "3 programs left a dump each"),
        ("leaky 7 0 | cat", "8 blocks", ""),
        ("leaky 7 3", "8 blocks", "the command did not end well"),
        ("sh -c 'leaky 7 0'", "8 blocks", ""),
    ],
)
def test_a_command_is_what_a_shell_takes(device, command, blocks, told, capsys):
    assert run("heap", "--shell", command, "-o", "dump.txt") == 3
    out, said = capsys.readouterr()
    assert blocks in out
    assert told in said
    assert device.files == []


def test_a_command_that_leaves_no_dump_is_told(device, capsys, tmp_path):
    for command, why in (("true", "No such file"), ("no-such-program", "not found")):
        assert run("heap", "--shell", command, "-o", "dump.txt") == 2
        assert why in capsys.readouterr().err
        assert not (tmp_path / "dump.txt").exists()


def test_old_devices(device, capsys):
    old = device.properties | {"ro.build.version.sdk": "25"}
    device.change(properties=old)
    assert run("heap", "--app", APP) == 2
    assert "from API level 26 (Android 8) on" in capsys.readouterr().err
    assert run("heap", "--shell", "ls", "--dry-run") == 0


def test_every_documented_option_is_known_and_checked():
    for name, option in OPTIONS.items():
        value = "=/data/x" if option.text else f"={option.low or 0}" if option.needs_value else ""
        assert check_options(name + value, 36) == name + value
        if not option.text:
            with pytest.raises(UsageError):
                check_options(f"{name}=99999999999", 36)
    assert check_options("backtrace guards", 33) == "backtrace guard"


def test_the_doctor_says_what_the_device_allows(device, capsys):
    assert run("doctor") == 0
    assert "root: yes" in capsys.readouterr().out
    device.change(root=False, properties=device.properties | {"ro.build.type": "user"})
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert "only for apps that are debuggable" in out
    assert "no: it takes root" in out
    device.change(serials=[])
    assert run("doctor") == 2
    assert "there is no device" in capsys.readouterr().err


def test_a_program_that_answers_as_adb_is_called(device, monkeypatch, capsys):
    """All others call the same script as a function."""
    monkeypatch.setattr("leakscope.android.adb.subprocess.run", RUN)
    assert run("heap", "--app", "4321", "-o", "dump.txt", "--serial", "FAKE1") == 3
    assert run("heap", "--app", "4321", "-o", "x.txt", "--serial", "NONE") == 2
    assert "there is no device" in capsys.readouterr().err


def test_no_adb_is_said(capsys):
    assert main(["android", "watch", APP, "--adb", "/no/adb"]) == 2
    assert "adb is not installed" in capsys.readouterr().err


def test_an_app_is_watched(device, capsys, tmp_path):
    device.change(growth=2000)
    page = tmp_path / "page.html"
    status = run("watch", APP, "--for", "0.4s", "--every", "0.05s", "--html", str(page))
    assert "Native Heap grew most" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    out = capsys.readouterr().out
    assert status == 3
    assert "Native Heap grew most" in " ".join(out.split())
    assert f"leakscope android heap --app {APP}" in out
    assert run("watch", "com.absent", "--for", "1s") == 2
    assert "com.absent does not run" in capsys.readouterr().err
    device.change(gone_after=len(device.calls) + 3, growth=0)
    run("watch", APP, "--for", "0.4s", "--every", "0.05s", "--json")
    document = validated(capsys.readouterr().out)
    assert "gone" in document["ended_early"]
    assert set(document["kinds"]) >= {"Native Heap", "Java Heap", "TOTAL"}


def test_meminfo_that_is_none():
    assert parse_meminfo_app("") is None
    assert parse_meminfo_app("** MEMINFO in pid 1 [x] **\n App Summary\n nothing") is None
