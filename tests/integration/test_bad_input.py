# SPDX-License-Identifier: Apache-2.0
"""Bad input gets one clear sentence and exit status 2, and leaves nothing half-written."""

import os
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import leakscope as api
from leakscope.errors import TargetError

NOBODY = 65534
EMPTY = "int main(void) { return 0; }\n"


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    place = tmp_path / "cwd"
    place.mkdir()
    monkeypatch.chdir(place)


@pytest.fixture
def build(tmp_path):
    def compile_(*flags, text=EMPTY, name="program", compiler="gcc"):
        (tmp_path / f"{name}.c").write_text(text)
        subprocess.run(
            [compiler, "-o", tmp_path / name, tmp_path / f"{name}.c", *flags], check=True
        )
        return tmp_path / name

    return compile_


@pytest.fixture
def refused(leakscope):
    """Run a command line that must be refused; return the sentence and the hint."""

    def run(*arguments, **options):
        before = sorted(Path().iterdir())
        done = leakscope(*arguments, **options)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert sorted(Path().iterdir()) == before, "something was left behind"
        lines = done.stderr.splitlines()
        assert 1 <= len(lines) <= 2, done.stderr
        assert lines[0].startswith("leakscope: ")
        assert all(line.startswith("  ") for line in lines[1:])
        return done.stderr

    return run


def executable(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o755)
    return path


# -- programs ----------------------------------------------------------------------


def test_no_program(refused):
    assert "there is no program to run" in refused("run")
    assert "there is no program to run" in refused("run", "--no-report", "--")


def test_missing(refused, tmp_path):
    assert "there is no program no-such-thing in PATH" in refused("run", "--", "no-such-thing")
    assert f"there is no program {tmp_path}/x" in refused("run", "--", tmp_path / "x")


def test_not_executable(refused, tmp_path):
    (tmp_path / "file").write_text("#!/bin/sh\n")

    said = refused("run", "--", tmp_path / "file")

    assert f"{tmp_path}/file is not executable" in said
    assert "chmod +x" in said


def test_a_directory(refused, tmp_path):
    assert "is a directory, not a program" in refused("run", "--", tmp_path)


def test_an_empty_file(refused, tmp_path):
    assert "is empty" in refused("run", "--", executable(tmp_path / "x", ""))


def test_no_program_at_all(refused, tmp_path):
    said = refused("run", "--", executable(tmp_path / "x", "just text\n"))

    assert "neither an ELF program nor a script" in said


def test_random_bytes_as_a_program(refused, tmp_path):
    noise = b"\x7fELF\x02\x01\x01" + random.Random(7).randbytes(5000)

    assert str(tmp_path / "x") in refused("run", "--", executable(tmp_path / "x", noise))


def test_static(refused, build):
    program = build("-static")

    said = refused("run", "--", program)

    assert f"{program} is statically linked" in said
    assert "LD_PRELOAD has no effect" in said
    assert "leakscope attach PID" in said


@pytest.mark.musl
def test_static_musl(refused, build):
    assert "is statically linked" in refused("run", "--", build("-static", compiler="musl-gcc"))


def test_a_script_whose_interpreter_is_static(refused, build, tmp_path):
    interpreter = build("-static", name="interpreter")

    said = refused("run", "--", executable(tmp_path / "script", f"#!{interpreter}\n"))

    assert f"{tmp_path}/script is a script" in said
    assert f"{interpreter} is statically linked" in said


def test_a_script_whose_interpreter_is_missing(refused, tmp_path):
    said = refused("run", "--", executable(tmp_path / "script", "#!/usr/bin/env nopython\n"))

    assert "there is no program nopython in PATH" in said


def test_32_bit(refused, build):
    said = refused("run", "--", build("-m32", "-nostdlib", "-static", text="void _start(void) {}"))

    assert "is a 32-bit program" in said
    assert "valgrind" in said


def test_another_machine(refused, build, tmp_path):
    data = bytearray(build().read_bytes())
    data[18:20] = struct.pack("<H", 243)

    assert "is a program for riscv64" in refused(
        "run", "--", executable(tmp_path / "x", bytes(data))
    )


@pytest.mark.root
def test_setuid(refused, build):
    program = build()
    os.chown(program, NOBODY, NOBODY)
    program.chmod(0o4755)

    said = refused("run", "--", program)

    assert "is a setuid program of another user" in said
    assert "LD_PRELOAD" in said
    assert f"uid {NOBODY}" in said


def test_a_loader_that_is_not_installed(refused, build):
    said = refused("run", "--", build("-Wl,--dynamic-linker=/lib/ld-gone.so.1"))

    assert "needs the loader /lib/ld-gone.so.1" in said


def test_arguments_that_are_too_long(agent):
    # From Python: a shell could not even start leakscope with them.
    with pytest.raises(TargetError, match="the arguments and environment are too long"):
        api.run(["true", *["y" * 100_000] * 30])


def test_a_missing_agent(refused, tmp_path):
    said = refused("run", "--", "true", env={"LEAKSCOPE_AGENT": f"{tmp_path}/gone.so"})

    assert f"the agent {tmp_path}/gone.so is missing" in said


# -- programs that ended before the agent started --------------------------------------


SYSTEM_CALL = """
static long call(long number, long a, long b) {
  __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b) : "rcx", "r11", "memory");
  return number;
}
"""


def with_loader(build, loader_text):
    """A dynamic program whose "loader" is our own little static program."""
    loader = build("-static", "-nostdlib", "-O1", text=SYSTEM_CALL + loader_text, name="loader")
    return build(f"-Wl,--dynamic-linker={loader}", name="victim")


def test_killed_before_the_agent_started(leakscope, build):
    victim = with_loader(
        build,
        "void _start(void) { call(62, call(39, 0, 0), 9); }\n",  # kill(getpid(), SIGKILL)
    )

    done = leakscope("run", "--", victim)

    assert done.returncode == 2
    assert f"{victim} was killed by SIGKILL before the agent in it had started" in done.stderr
    assert list(Path().iterdir()) == []


def test_ended_before_the_agent_started(leakscope, build):
    victim = with_loader(build, "void _start(void) { call(231, 7, 0); }\n")  # exit_group(7)

    done = leakscope("run", "--", victim)

    assert done.returncode == 2
    assert f"{victim} exited with status 7, but the agent did not come up in it" in done.stderr
    assert "leakscope doctor" in done.stderr
    assert list(Path().iterdir()) == []


# -- output -----------------------------------------------------------------------------


def test_an_output_directory_that_is_not_there(refused, tmp_path):
    said = refused("run", "-o", tmp_path / "gone" / "x", "--", "touch", "started")

    assert f"the output directory {tmp_path}/gone does not exist" in said


def test_an_output_that_is_not_writable(leakscope, tmp_path):
    # The proc file system takes no files, from root neither.
    done = leakscope("run", "-o", "/proc/x.leakscope", "--", "touch", "started")

    assert done.returncode == 2
    assert "/proc" in done.stderr
    assert list(Path().iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "reason"),
    [("ro", "is not writable by this user"), ("size=64k", "no room on the disk")],
)
def test_a_read_only_and_a_full_disk(refused, tmp_path, options, reason):
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        said = refused("run", "-o", place, "--", "touch", "started")
    finally:
        subprocess.run(["umount", place], check=True)

    assert reason in said
    assert str(place) in said


@pytest.mark.root
@pytest.mark.parametrize("option", ["--output", "--report-file"])
def test_a_link_that_belongs_to_someone_else(refused, tmp_path, option):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(victim)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)

    said = refused("run", option, link, "--", "touch", "started")

    assert f"{link} is a symbolic link that belongs to someone else" in said
    assert victim.read_text() == "precious"


def test_an_output_that_is_no_regular_file(refused, tmp_path):
    os.mkfifo(tmp_path / "fifo")

    assert "is not a regular file" in refused("run", "-o", tmp_path / "fifo", "--", "true")


def test_a_report_file_that_cannot_be_written_is_refused_before_the_start(refused, tmp_path):
    said = refused("run", "--report-file", tmp_path / "gone" / "r", "--", "touch", "started")

    assert f"there is no directory {tmp_path}/gone" in said
    assert "is a directory" in refused("run", "--report-file", tmp_path, "--", "touch", "started")


# -- options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--sample", "often"], "'often' is not a size"),
        (["--sample", "0"], "the sampling period must be at least one byte"),
        (["--depth", "1000"], "the depth must be between 1 and 256"),
        (["--min-size", "2k", "--max-size", "1k"], "nothing would be recorded"),
        (["--dump-signal", "KILL"], "SIGKILL cannot control recording"),
        (["--stop-signal", "NOPE"], "there is no signal NOPE"),
        (["--start-after", "-1"], "cannot start after -1.0 seconds"),
    ],
)
def test_options_that_make_no_sense(leakscope, options, reason):
    done = leakscope("run", *options, "--", "touch", "started")

    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert list(Path().iterdir()) == []


# -- recordings ---------------------------------------------------------------------------


@pytest.fixture
def recording(leakscope):
    done = leakscope("run", "--no-report", "-o", "good.leakscope", "--", "ls")
    assert done.returncode == 0, done.stderr
    return Path("good.leakscope").absolute()


def test_a_truncated_recording(refused, recording, tmp_path):
    whole = recording.read_bytes()
    for length in (0, 1, 7, 16, 100, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"cut{length}.leakscope"
        path.write_bytes(whole[:length])
        assert str(path) in refused("report", path)


def test_a_recording_of_a_newer_version(refused, agent, tmp_path):
    environment = dict(os.environ, LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(tmp_path))
    subprocess.run(["true"], env=environment, check=True)
    (live,) = tmp_path.glob("*.live")
    with live.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", 999))

    said = refused("report", live)

    assert re.search(r"version\D+999", said)


def test_random_bytes_as_a_recording(refused, tmp_path):
    source = random.Random(3)
    for number in range(5):
        path = tmp_path / f"noise{number}.leakscope"
        path.write_bytes(source.randbytes(4096))
        assert str(path) in refused("report", path)


def test_what_is_no_recording(refused, tmp_path):
    assert f"{tmp_path}/gone" in refused("report", tmp_path / "gone")
    assert "/etc/passwd" in refused("report", "/etc/passwd")
    shutil.copy("/bin/true", "program")
    assert "program" in refused("report", "program")
    assert "is not being traced" in refused("report", os.getpid())
