# SPDX-License-Identifier: Apache-2.0
import ctypes
import mmap
import os
import subprocess
from pathlib import Path

import pytest

from leakscope.errors import TargetError
from leakscope.proc.elf import read_elf
from leakscope.proc.maps import read_maps
from leakscope.proc.status import CAP_SYS_ADMIN, read_status


def test_maps_name_a_shared_file_and_whether_it_was_deleted(tmp_path):
    path = tmp_path / "with blank and\nline"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as memory:
        memory[:1] = b"x"
        inode = path.stat().st_ino
        before = [m for m in read_maps(os.getpid()) if m.inode == inode]
        path.unlink()
        after = [m for m in read_maps(os.getpid()) if m.inode == inode]

    assert [m.path for m in before] == [str(path)]
    assert before[0].permissions == "rw-s"
    assert before[0].end - before[0].start == 4096
    assert not before[0].deleted
    assert after[0].deleted
    assert after[0].path == str(path)


def test_the_span_of_a_mapping_is_its_name_below_map_files():
    # The kernel names mappings of files there; the lowest of all may be memory without one.
    mapping = next(m for m in read_maps(os.getpid()) if "libc.so" in m.path)

    assert mapping.span in [entry.name for entry in Path("/proc/self/map_files").iterdir()]


def test_a_process_that_does_not_exist():
    with pytest.raises(TargetError, match="there is no process 4194999"):
        read_maps(4194999)
    with pytest.raises(TargetError, match="there is no process 4194999"):
        read_status(4194999)


def test_a_zombie_has_no_mappings_but_a_status():
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        assert read_maps(child.pid) == ()
        assert read_status(child.pid).state == "Z"


def test_status_says_who_a_process_is():
    me = read_status()

    assert me.pid == os.getpid()
    assert me.parent == os.getppid()
    assert (me.uid, me.euid, me.gid, me.egid) == (
        os.getuid(),
        os.geteuid(),
        os.getgid(),
        os.getegid(),
    )
    assert me.tracer == 0
    assert me.seccomp == ctypes.CDLL(None).prctl(21, 0, 0, 0, 0)  # PR_GET_SECCOMP
    assert me.no_new_privs == bool(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))
    assert read_status(1).uid == 0


def test_capabilities_of_a_process_without_any():
    dropped = subprocess.Popen(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "sleep", "9"])
    try:
        while read_status(dropped.pid).name != "sleep":
            pass
        assert read_status(dropped.pid).can(CAP_SYS_ADMIN) is False
        assert read_status().can(CAP_SYS_ADMIN) == (os.geteuid() == 0)
    finally:
        dropped.kill()
        dropped.wait()


@pytest.fixture(scope="module")
def debug_program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elf")
    (folder / "p.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-g", "-Wl,--build-id", "-o", "p", "p.c"], cwd=folder, check=True)
    subprocess.run(["objcopy", "--only-keep-debug", "p", "p.dbg"], cwd=folder, check=True)
    subprocess.run(["objcopy", "-g", "--add-gnu-debuglink=p.dbg", "p", "q"], cwd=folder, check=True)
    return folder


def test_an_elf_file_tells_where_its_debug_information_is(debug_program):
    notes = subprocess.run(
        ["readelf", "-n", debug_program / "p"], check=True, capture_output=True, text=True
    ).stdout
    build_id = notes.split("Build ID: ")[1].split()[0]

    whole, stripped = read_elf(debug_program / "p"), read_elf(debug_program / "q")

    assert whole.has_debug_info
    assert whole.build_id == stripped.build_id == build_id
    assert whole.debug_link is None
    assert not stripped.has_debug_info
    assert stripped.debug_link == "p.dbg"
    assert not whole.is_go


def test_exports_are_those_that_nm_shows():
    libc = next(m.path for m in read_maps(os.getpid()) if "libc.so" in m.path or "libc-" in m.path)
    shown = subprocess.run(["nm", "-D", libc], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1].split("@")[0] for line in shown.splitlines() if " U " not in line}
    asked = (*sorted(names)[:400], "malloc", "free", "no_such_symbol", "mallo", "mallocc")

    assert read_elf(libc, asked).exports == names.intersection(asked)


def test_a_file_that_is_not_elf():
    with pytest.raises(TargetError, match="is not an ELF program"):
        read_elf("/etc/passwd")
