# SPDX-License-Identifier: Apache-2.0
"""Counters of virtual machines, what jcmd prints, and who may be asked."""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreign import SAMPLES
from leakscope.errors import TargetError
from leakscope.java import machines, perf_data
from leakscope.java.attach import ask
from leakscope.java.diagnostics import parse_histogram, parse_native_memory, parse_string_table
from leakscope.java.machines import Machine, find_machine
from leakscope.proc.process import read_start
from leakscope.proc.rights import folder_of_process


def counters(entries, order="<"):
    body = b""
    for name, value in entries:
        text = isinstance(value, str)
        raw = name.encode() + b"\0"
        raw += bytes(-(20 + len(raw)) % 8)
        data = value.encode() + b"\0" if text else struct.pack(order + "q", value)
        length = 20 + len(raw) + len(data)
        body += struct.pack(
            order + "iiiBBBBi", length, 20, len(data) if text else 0, ord("B" if text else "J"), 0, 1, 1,
            20 + len(raw),
        ) + raw + data  # fmt: skip
    head = struct.pack(">I", 0xCAFEC0C0) + bytes((1 if order == "<" else 0, 2, 0, 1))
    head += struct.pack(order + "iiqii", 32 + len(body), 0, 0, 32, len(entries))
    return head + body


REAL = [
    ("sun.gc.generation.0.maxCapacity", 20 << 20),
    ("sun.gc.generation.1.maxCapacity", 44 << 20),
    ("sun.gc.generation.0.space.0.name", "eden"),
    ("sun.gc.generation.0.space.0.used", 70000),
    ("sun.gc.generation.0.space.1.used", 1000),
    ("sun.gc.generation.1.space.0.used", 2000),
    ("sun.gc.collector.0.invocations", 7),
    ("sun.gc.collector.1.invocations", 2),
    ("sun.gc.collector.2.name", "G1 concurrent cycle pauses"),
    ("sun.gc.collector.2.invocations", 40),
    ("java.threads.live", 12),
    ("java.property.java.version", "17.0.15"),
    ("sun.rt.javaCommand", "com.example.Main --port 80"),
]


@pytest.mark.parametrize("order", ["<", ">"])
def test_counters_are_read_in_either_byte_order(order):
    found = perf_data.parse(counters(REAL, order))
    # What is in eden was allocated since the last collection.
    assert (found.heap_after, found.heap_most, found.collections) == (3000, 64 << 20, 9)
    assert (found.heap_in_use, found.full_collections) == (73000, 2)
    assert (found.threads, found.version) == (12, "17.0.15")
    assert found.command == "com.example.Main --port 80"
    assert found.metaspace is None


@pytest.mark.parametrize(
    ("name", "collector"),
    [
        ("Z concurrent cycle pauses", "ZGC"),
        ("ZGC minor collection pauses", "ZGC"),
        ("Shenandoah full", "Shenandoah"),
    ],
)
def test_pauses_of_a_collector_beside_the_program_are_no_collections(name, collector):
    found = perf_data.parse(
        counters(
            [
                ("sun.gc.generation.1.space.0.name", "space"),
                ("sun.gc.generation.1.space.0.used", 2000),
                ("sun.gc.collector.2.invocations", 27),
                ("sun.gc.collector.2.name", name),
            ]
        )
    )
    assert (found.collections, found.full_collections, found.heap_after) == (None, None, None)
    assert (found.heap_in_use, found.collector) == (2000, collector)


def test_the_generations_of_g1_share_what_there_is():
    both = [(f"sun.gc.generation.{n}.maxCapacity", (64 << 20) + n) for n in (0, 1)]
    assert perf_data.parse(counters(both)).heap_most == (64 << 20) + 1


@given(st.binary(max_size=400), st.integers(0, 300), st.binary(max_size=8))
def test_counters_that_are_none_do_no_harm(data, at, new):
    perf_data.parse(struct.pack(">I", 0xCAFEC0C0) + data)
    whole = counters(REAL)
    perf_data.parse(whole[:at] + new + whole[at + len(new) :])


def test_what_jcmd_prints():
    before = parse_histogram((SAMPLES / "jmap-histo/jdk17-histo-before.txt").read_text())
    after = parse_histogram((SAMPLES / "jmap-histo/jdk17-histo-after.txt").read_text())
    assert (sum(c for c, _ in before.values()), sum(s for _, s in before.values())) == (
        14455,
        688048,
    )
    assert (before["Leak$Session"][0], after["Leak$Session"][0]) == (500, 1500)
    native = parse_native_memory((SAMPLES / "nmt/jdk17-nmt-summary.txt").read_text())
    assert native["Total"] == 92163 * 1024
    assert native["Other"] == 8192 * 1024
    assert parse_native_memory("Native memory tracking is not enabled") is None
    assert parse_string_table("Number of entries       :      1753 =  28048 bytes") == 1753


@pytest.mark.parametrize(
    "text",
    [
        # JDK 8, 9 to 11 and later, and 21 and 25 with a collector's own classes.
        (
            "\n num     #instances         #bytes  class name\n"
            "----------------------------------------------\n"
            "   1:          4000         416000  [B\n   2:            10            320  a.B$C\n"
            "Total          4010         416320\n"
        ),
        (
            " num     #instances         #bytes  class name (module)\n"
            "-------------------------------------------------------\n"
            "   1:          4000         416000  [B (java.base@11.0.2)\n"
            "   2:            10            320  a.B$C (app@1.0)\n"
            "Total          4010         416320\n"
        ),
        (
            "   1:          4000         416000  [B (java.base@21.0.3-ea)\r\n"
            "   2:            10            320  a.B$C\r\n"
            "   3:             5            200  [Ljdk.internal.vm.FillerElement; (java.base@21.0.3)\r\n"
        ),
    ],
)
def test_histograms_of_every_jdk(text):
    found = parse_histogram(text)
    assert (found["byte[]"], found["a.B$C"]) == ((4000, 416000), (10, 320))
    assert set(found) <= {"byte[]", "a.B$C", "jdk.internal.vm.FillerElement[]"}


def machine(**more):
    facts = {
        "pid": os.getpid(), "inner_pid": os.getpid(), "uid": os.geteuid(), "user": "me", "name": "x",
        "start": read_start(os.getpid()), "hotspot": True, "answers_signal": False,
        "counters_path": None,
    }  # fmt: skip
    return Machine(**{**facts, **more})


def test_no_signal_is_sent_to_what_would_die_of_it():
    """SIGQUIT would end this test."""
    with pytest.raises(TargetError, match="does not catch SIGQUIT"):
        ask(machine(), "jcmd", "help")
    with pytest.raises(TargetError, match="is not a HotSpot virtual machine"):
        ask(machine(hotspot=False), "jcmd", "help")
    with pytest.raises(TargetError, match="has ended"):
        ask(machine(start=1, answers_signal=True), "jcmd", "help")


def test_another_process_at_its_socket_is_asked_nothing():
    """Of the same user, or root's: who listens there says the kernel."""
    program = """
import socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.bind(sys.argv[1])
channel.listen()
print("ready", flush=True)
while not (said := channel.accept()[0].recv(1000)):
    pass
print(said)
"""
    path = f"/tmp/.java_pid{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE
    ) as listener:
        try:
            assert listener.stdout.readline() == b"ready\n"
            with pytest.raises(TargetError, match="does not catch SIGQUIT"):
                ask(machine(), "jcmd", "help", patience_s=1)
        finally:
            listener.kill()
            os.unlink(path)
        assert listener.stdout.read() == b""


def test_anothers_virtual_machine_is_not_asked(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    with pytest.raises(TargetError, match="belongs to shop, who alone may ask it"):
        ask(machine(uid=77, user="shop"), "jcmd", "help")


def test_what_is_no_virtual_machine():
    with pytest.raises(TargetError, match="is no Java virtual machine"):
        find_machine(1)
    with pytest.raises(TargetError, match="there is no process"):
        find_machine(999_999_999)


def test_counters_are_those_of_its_own_user(tmp_path):
    """Everybody can make a folder of that name in /tmp, with a file of any number in it."""
    pid, me = os.getpid(), os.geteuid()
    folder = Path(tempfile.mkdtemp(prefix="hsperfdata_leakscope-", dir="/tmp"))
    try:
        path = folder / str(pid)
        path.write_bytes(counters([("sun.rt.javaCommand", "Planted")]))
        assert perf_data.read(str(path), me).command == "Planted"
        assert perf_data.read(str(path), me + 1) is None
        assert machines._counters_path(pid, pid, me).endswith(f"{folder.name}/{pid}")
        assert machines._counters_path(pid, pid, me + 1) is None
        path.rename(folder / "elsewhere")
        path.symlink_to("elsewhere")
        assert machines._counters_path(pid, pid, me) is None
    finally:
        shutil.rmtree(folder)


def test_a_link_in_the_root_of_another_process_leads_nowhere_else(tmp_path, request):
    """/tmp of a container may be a link to a place of ours: nothing is looked for, or made, there."""
    root, outside = tmp_path / "root", Path(tempfile.mkdtemp(dir="/var/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(outside))
    inside = root / outside.relative_to("/")
    inside.mkdir(parents=True)
    (root / "tmp").symlink_to(outside)
    for place, name in ((outside, "Planted"), (inside, "Shop")):
        (place / "hsperfdata_shop").mkdir()
        (place / "hsperfdata_shop" / "1").write_bytes(counters([("sun.rt.javaCommand", name)]))
    program = "import os, sys; os.chroot(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(root)]
    if os.geteuid():
        command = ["unshare", "--user", "--map-root-user", *command]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        with folder_of_process(process.pid, "/tmp") as name:
            assert os.path.samefile(name, inside)
        path = machines._counters_path(process.pid, 1, os.geteuid())
        there = machine(pid=process.pid, start=read_start(process.pid), counters_path=path)
        assert there.counters().command == "Shop"
        process.stdin.close()


def test_openj9_is_no_hotspot_whatever_its_libraries_are_called(tmp_path):
    """SIGQUIT makes it write a file."""
    program = """
import mmap, pathlib, sys
held = []
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        held.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
print("ready", flush=True)
sys.stdin.read()
"""
    for name in ("libjvm.so", "libj9vm29.so"):
        (tmp_path / name).write_bytes(bytes(4096))
    for names, hotspot in ((("libjvm.so",), True), (("libjvm.so", "libj9vm29.so"), False)):
        with subprocess.Popen(
            [sys.executable, "-c", program, *(str(tmp_path / name) for name in names)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout.readline() == b"ready\n"
            assert find_machine(process.pid).hotspot is hotspot
            process.stdin.close()
