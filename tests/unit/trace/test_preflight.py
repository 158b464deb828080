# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from leakscope.errors import TargetError
from leakscope.trace.preflight import find_program, inspect_program

EMPTY = "int main(void) { return 0; }\n"
OWN_MALLOC = """
#include <stddef.h>
static char pool[1 << 20];
static size_t used;
void *malloc(size_t n) { void *p = pool + used; used += (n + 15) & ~15ul; return p; }
void free(void *p) { (void)p; }
int main(void) { return 0; }
"""
NOBODY = 65534
# The smallest thing that makes a program "raise privileges" when its file says so.
CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def refusal(path, **keywords):
    with pytest.raises(TargetError) as caught:
        inspect_program(str(path), **keywords)
    return str(caught.value), caught.value.hint or ""


def script(folder, text, name="script"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o755)
    return path


def patched(program, folder, *changes):
    """A copy of an ELF file with some of its header bytes changed."""
    data = bytearray(Path(program).read_bytes())
    for offset, value in changes:
        data[offset : offset + len(value)] = value
    return script(folder, bytes(data), "patched")


def test_an_ordinary_program_is_accepted_with_its_libc(build):
    path = build(EMPTY)

    program = inspect_program(str(path))

    assert program.path == str(path)
    assert program.interpreters == ()
    assert program.libc == "glibc"
    assert program.needed == ("libc.so.6",)
    assert program.notes == ()


@pytest.mark.musl
def test_a_musl_program_is_accepted_as_such(build):
    path = build(EMPTY, compiler="musl-gcc")

    assert inspect_program(str(path)).libc == "musl"


def test_a_bare_name_is_looked_up_like_a_shell_does(build, tmp_path):
    path = build(EMPTY, name="findme")
    (tmp_path / "findme").write_text("not executable")

    found = find_program("findme", {"PATH": f"{tmp_path}:{path.parent}"})

    assert found == str(path)


def test_a_missing_program(tmp_path):
    assert refusal("no-such-program-here") == (
        "there is no program no-such-program-here in PATH",
        "Give it with its folder, or add that to PATH.",
    )
    assert refusal(tmp_path / "gone") == (f"there is no program {tmp_path}/gone", "Check its path.")
    here = refusal("./gone")
    assert here == ("there is no program ./gone", f"It was looked for from {os.getcwd()}.")


def test_a_program_of_the_current_directory_without_its_dot(build, monkeypatch):
    path = build(EMPTY, name="beside")
    monkeypatch.chdir(path.parent)

    message, hint = refusal("beside")

    assert "only a file beside in the current directory" in message
    assert "./beside" in hint


def test_an_empty_name():
    assert refusal("")[0] == "the program's name is empty"


def test_a_broken_link_names_where_it_leads(tmp_path):
    (tmp_path / "link").symlink_to("/nowhere/at/all")

    assert "/nowhere/at/all, which does not exist" in refusal(tmp_path / "link")[0]


def test_a_directory_and_a_fifo_are_no_programs(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    assert refusal(tmp_path)[0] == f"{tmp_path} is a directory, not a program"
    assert "is not a regular file" in refusal(tmp_path / "fifo")[0]


def test_a_file_without_the_executable_bit(tmp_path):
    path = tmp_path / "tool.py"
    path.write_text("#!/usr/bin/env python3\n")

    message, hint = refusal(path)

    assert message == f"{path} is not executable by this user"
    assert f"chmod +x {path}" in hint
    assert f"leakscope run -- python3 {path}" in hint


def test_an_empty_file(tmp_path):
    assert refusal(script(tmp_path, ""))[0] == f"{tmp_path}/script is empty"


def test_text_without_an_interpreter_line(tmp_path):
    message, hint = refusal(script(tmp_path, "echo hello\n"))

    assert "neither an ELF program nor a script" in message
    assert f"leakscope run -- sh {tmp_path}/script" in hint


def test_random_bytes_after_the_elf_magic_are_damage_and_no_crash(tmp_path):
    for seed in range(50):
        noise = bytes((seed * 37 + i * i) % 256 for i in range(400))
        message, _ = refusal(script(tmp_path, b"\x7fELF\x02\x01" + noise))
        assert str(tmp_path) in message


def test_every_truncation_of_a_program_is_an_answer(build, tmp_path):
    whole = build(EMPTY).read_bytes()
    for length in [*range(4, 200, 7), 500, 1000, 4096, len(whole) // 2]:
        path = script(tmp_path, whole[:length])
        try:
            inspect_program(str(path))
        except TargetError as error:
            assert str(path) in str(error)  # noqa: PT017 - either answer is fine, a crash is not


# -- scripts -------------------------------------------------------------------


def test_a_script_is_followed_to_its_interpreter(build, tmp_path):
    interpreter = build(EMPTY, name="interp")
    inner = script(tmp_path, f"#! {interpreter} -x\n", "inner")
    outer = script(tmp_path, f"#!{inner}\n", "outer")

    program = inspect_program(str(outer))

    assert program.path == str(outer)
    assert program.interpreters == (str(inner), str(interpreter))
    assert program.image == str(interpreter)


@pytest.mark.parametrize(
    "line", ["#!/usr/bin/env {}", "#!/usr/bin/env -S A=1 {} -x", "#!/usr/bin/env -S {} -u"]
)
def test_env_is_followed_through_path(build, tmp_path, line):
    interpreter = build(EMPTY, name="myinterp")
    path = script(tmp_path, line.format("myinterp") + "\nprint()\n")

    program = inspect_program(str(path), {"PATH": str(interpreter.parent)})

    assert program.interpreters == ("/usr/bin/env", str(interpreter))


def test_a_script_whose_interpreter_is_static(build, tmp_path):
    interpreter = build(EMPTY, "-static", name="static")
    path = script(tmp_path, f"#!{interpreter}\n")

    message, hint = refusal(path)

    assert message.startswith(f"{path} is a script and its interpreter will not do: {interpreter}")
    assert "statically linked" in message
    assert "-static" in hint


def test_a_script_whose_interpreter_is_static_behind_env(build, tmp_path):
    interpreter = build(EMPTY, "-static", name="static")
    path = script(tmp_path, "#!/usr/bin/env static\n")

    message, _ = refusal(path, environment={"PATH": str(interpreter.parent)})

    assert f"{interpreter} is statically linked" in message


def test_a_script_whose_interpreter_is_missing(tmp_path):
    path = script(tmp_path, "#!/opt/no/python\n")

    assert "there is no program /opt/no/python" in refusal(path)[0]


def test_a_script_with_dos_line_ends(tmp_path):
    path = script(tmp_path, "#!/bin/sh\r\necho hello\r\n")

    message, hint = refusal(path)

    assert "carriage return" in message
    assert "sed -i" in hint


def test_a_script_without_a_name_and_one_that_is_its_own_interpreter(tmp_path):
    path = script(tmp_path, "#!\n")
    assert "names no interpreter" in refusal(path)[0]

    script(tmp_path, f"#!{path}\n")
    assert "too deep" in refusal(path)[0]


# -- ELF -----------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["-static"], ["-static-pie"]])
def test_a_static_program(build, flags):
    path = build(EMPTY, *flags)

    message, hint = refusal(path)

    assert f"{path} is statically linked" in message
    assert "LD_PRELOAD has no effect" in message
    assert "leakscope attach PID" in hint
    assert "leakscope header" in hint


def test_a_32_bit_program(build):
    path = build("void _start(void) {}", "-m32", "-nostdlib", "-static")

    message, hint = refusal(path)

    assert f"{path} is a 32-bit program (i386)" in message
    assert "valgrind" in hint


def test_a_program_for_another_machine(build, tmp_path):
    path = patched(build(EMPTY), tmp_path, (18, struct.pack("<H", 243)))

    assert "is a program for riscv64 and this machine is" in refusal(path)[0]


def test_a_big_endian_program(build, tmp_path):
    path = patched(build(EMPTY), tmp_path, (5, b"\x02"), (18, struct.pack(">H", 22)))

    assert "is a program for s390x" in refusal(path)[0]


def test_objects_libraries_and_cores_are_no_programs(build, tmp_path):
    library = build("int f(void) { return 0; }", "-shared", "-fPIC", name="lib.so")
    made_object = build(EMPTY, "-c", name="x.o")
    made_object.chmod(0o755)
    core = patched(build(EMPTY), tmp_path, (16, struct.pack("<H", 4)))

    assert "is a shared library, not a program" in refusal(library)[0]
    assert "is an object file, not a program" in refusal(made_object)[0]
    assert "is a core dump, not a program" in refusal(core)[0]


def test_a_program_whose_loader_is_missing(build):
    path = build(EMPTY, "-Wl,--dynamic-linker=/lib/ld-nowhere.so.1")

    assert "needs the loader /lib/ld-nowhere.so.1, which is not on this machine" in refusal(path)[0]


def test_the_loader_itself_is_accepted_with_a_note(build):
    headers = subprocess.run(
        ["readelf", "-l", build(EMPTY)], check=True, capture_output=True, text=True
    ).stdout
    loader = headers.split("interpreter: ")[1].split("]")[0]

    assert "is a loader" in inspect_program(loader).notes[0]


@pytest.mark.parametrize("style", ["gnu", "sysv"])
def test_a_program_that_defines_malloc(build, style):
    path = build(OWN_MALLOC, f"-Wl,--hash-style={style}", "-fno-builtin")

    message, hint = refusal(path)

    assert f"{path} defines malloc itself" in message
    assert "MALLOC_CONF" in hint


@pytest.mark.parametrize("style", ["gnu", "sysv"])
def test_a_program_that_only_uses_malloc_does_not_define_it(build, style):
    path = build(
        "#include <stdlib.h>\nint main(void) { free(malloc(3)); return 0; }",
        f"-Wl,--hash-style={style}",
        "-rdynamic",
        "-fno-builtin",
    )

    assert inspect_program(str(path)).path == str(path)


def test_a_program_with_address_sanitizer(build):
    path = build(EMPTY, "-fsanitize=address")

    message, hint = refusal(path)

    assert "was built with AddressSanitizer" in message
    assert "it reports leaks" in hint


# -- privileges ----------------------------------------------------------------


def test_a_setuid_program_of_another_user(as_nobody):
    # passwd belongs to root on every Debian machine.
    text = as_nobody(lambda: "{} | {}".format(*refusal("/usr/bin/passwd")))

    assert "/usr/bin/passwd is a setuid program of another user" in text
    assert "LD_PRELOAD" in text
    assert "uid 0" in text
    assert "cp /usr/bin/passwd /tmp/" in text


def test_a_setgid_program(as_nobody):
    text = as_nobody(lambda: "{} | {}".format(*refusal("/usr/bin/chage")))

    assert "/usr/bin/chage is a setgid program" in text


def test_su_is_to_be_put_outside(as_nobody):
    text = as_nobody(lambda: "{} | {}".format(*refusal("/usr/bin/su")))

    assert "su leakscope run -- PROGRAM" in text


@pytest.mark.root
def test_root_may_trace_what_is_setuid_to_root_but_not_to_others(build, shared_folder):
    path = shared_folder / "other"
    shutil.copy(build(EMPTY), path)
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o4755)

    assert inspect_program("/usr/bin/passwd").path == "/usr/bin/passwd"
    assert "setuid program of another user" in refusal(path)[0]


@pytest.mark.root
def test_file_capabilities_hinder_users_but_not_root(build, shared_folder, as_nobody):
    path = shared_folder / "capable"
    shutil.copy(build(EMPTY), path)
    os.setxattr(path, "security.capability", CAP_NET_RAW)

    assert inspect_program(str(path)).path == str(path)
    text = as_nobody(lambda: "{} | {}".format(*refusal(path)))
    assert f"{path} has file capabilities" in text
    assert "Run leakscope as root" in text


@pytest.mark.root
def test_a_program_that_may_be_executed_but_not_read_passes_with_a_note(
    build, shared_folder, as_nobody
):
    path = shared_folder / "secret"
    shutil.copy(build(EMPTY), path)
    path.chmod(0o711)

    text = as_nobody(lambda: str(inspect_program(str(path)).notes))

    assert f"{path} may not be read" in text
