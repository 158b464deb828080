# SPDX-License-Identifier: Apache-2.0
"""`leakscope java`: virtual machines listed, watched and dumped, with and without their help."""

import html
import os
import resource
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from java_dumps import Program, environment, java_classes, validated, wait_for
from leakscope.cli import main
from leakscope.java import dumping
from leakscope.java.machines import find_machine
from leakscope.java.watching import MachineWatch, facts_of

# Virtual machines are found by name: those of two workers would be taken for one another.
pytestmark = pytest.mark.xdist_group("java")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return java_classes(tmp_path_factory.mktemp("classes"))


class Growing(Program):
    """Grows a little every so often, until the end."""

    def __init__(self, classes, kind, count, *options):
        super().__init__(classes, kind, *options, env=environment())
        self.grow(count)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, args=(count,))
        self._thread.start()

    def _go(self, count):
        while not self._stop.wait(0.05):
            self.grow(count)

    def __exit__(self, *rest):
        self._stop.set()
        self._thread.join()
        super().__exit__(*rest)


G1 = ("-XX:-UseSerialGC", "-XX:+UseG1GC")  # what a server takes by itself
NMT = ("-XX:NativeMemoryTracking=summary",)
ZGC = ("-XX:-UseSerialGC", "-XX:+UseZGC")
SHENANDOAH = ("-XX:-UseSerialGC", "-XX:+UseShenandoahGC")


def watched(program, capsys, *arguments, seconds="4s"):
    status = main(
        ["java", "watch", str(program.pid), "--for", seconds, "--every", "0.25s", "--json", *arguments]
    )  # fmt: skip
    return status, validated(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("kind", "count", "whose", "options"),
    [
        ("static", 100, "the Java heap", ()),
        ("threads", 2, "threads", ()),
        ("classloader", 2, "class data (metaspace)", ()),
        ("direct", 2, "direct buffers", ("-XX:NativeMemoryTracking=summary",)),
        ("native", 8, "native code that the virtual machine does not track", ()),
        ("unsafe", 4, "memory that Java code takes outside the heap (Unsafe)", NMT),
        ("direct", 4, "direct buffers", (*G1, *NMT)),
        ("static", 100, "the Java heap", G1),
        ("native", 8, "native code that the virtual machine does not track", G1),
        ("static", 100, "the Java heap", ZGC),
        ("native", 8, "native code that the virtual machine does not track", ZGC),
        ("static", 100, "the Java heap", SHENANDOAH),
    ],
)
def test_whose_growth_it_is(classes, kind, count, whose, options, capsys):
    with Growing(classes, kind, count, *options) as program:
        status, found = watched(program, capsys)
    assert found["growth_of"] == whose, (found["sentence"], found["changes"], found["notes"])
    assert found["verdict"] in ("growing", "filling")  # a busy machine makes it grow unevenly
    assert status == 3
    assert found["histograms"] == 5
    expected = {"unsafe": f"leakscope find {program.pid}"}
    expected |= {"native": f"leakscope find {program.pid}", "threads": "Thread.print"}
    assert expected.get(kind, f"leakscope java dump {program.pid}") in found["next_step"]
    if kind == "static":
        assert found["classes"][0]["class_name"] == "byte[]"
        assert "Leaks$Session" in {one["class_name"] for one in found["classes"]} | {
            "Leaks$Session"
        }


@pytest.mark.parametrize(
    ("kind", "count", "options"),
    [
        ("bounded", 3000, ()),
        ("churn", 1000, ()),
        ("bounded", 3000, G1),
        ("churn", 3000, ZGC),
        ("churn", 3000, SHENANDOAH),
    ],
)
def test_what_only_looks_like_growth(classes, kind, count, options, capsys):
    with Growing(classes, kind, count, *options) as program:
        status, found = watched(program, capsys)
    assert (status, found["verdict"]) == (0, None), found["sentence"]


def test_a_cache_of_soft_references_is_no_leak(classes, capsys, tmp_path):
    page = tmp_path / "page.html"
    with Growing(classes, "soft", 60) as program:
        _, found = watched(program, capsys, "--html", str(page))
    assert html.escape(found["sentence"], quote=False)[:60] in page.read_text()
    assert found["verdict"] != "leaking"
    if found["classes"]:
        assert "it may be a cache" in found["classes"][0]["sentence"]


@pytest.mark.parametrize("options", [(), G1, ("-XX:-UseSerialGC", "-XX:+UseParallelGC")])
def test_the_heap_after_a_collection_is_without_what_was_allocated_since(classes, options):
    with Program(classes, "churn", *options, env=environment()) as program:
        for _ in range(40):
            program.grow(3000)  # 3 MB that nothing holds
            facts = facts_of(find_machine(program.pid))
            if facts.collections:
                assert facts.heap_used < 4 << 20
        assert facts.collections


@pytest.mark.parametrize(("options", "name"), [(ZGC, "ZGC"), (SHENANDOAH, "Shenandoah")])
def test_pauses_are_not_told_as_collections(classes, options, name, capsys):
    with Growing(classes, "churn", 3000, *options) as program:
        assert main(["java", "--for", "3s", "--every", "0.2s", "--json"]) in (0, 3)
        machines = validated(capsys.readouterr().out)["machines"]
        (found,) = [one for one in machines if one["pid"] == program.pid]
        assert (found["collections"], found["full_collections"]) == (None, None)
        assert found["remark"].startswith(f"{name} counts its pauses, not its collections")
        heap = found["gauges"]["heap_after_gc"]["values"]
        assert found["heap_used"] == heap[-1]
        assert max(heap) < 48 << 20  # of 64 MB, nearly all of it garbage
        assert main(["java", "--for", "0.5s", "--every", "0.2s"]) in (0, 3)
        assert f"{name} counts its pauses" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("options", [(), G1, ZGC, (*G1, "-Xmx1g"), (*G1, "-Xmx2g", "-Xshare:off")])
def test_the_heap_is_not_outside_itself(classes, options):
    with Program(classes, "static", *options, env=environment()) as program:
        watch = MachineWatch(find_machine(program.pid), areas=True)
        watch.look()
        program.grow(20_000)  # 20 MB
        watch.look()
        courses = {one.metric: one.values for one in watch.series()}
        assert courses["outside_heap"][1] - courses["outside_heap"][0] < 8 << 20


def test_virtual_machines_are_listed_and_nothing_is_asked_of_them(classes, capsys):
    with Program(classes, "static", env=environment()) as program:
        program.grow(100)
        assert main(["java", "--for", "0.3s", "--every", "0.1s", "--json"]) in (0, 3)
        machines = validated(capsys.readouterr().out)["machines"]
        (found,) = [one for one in machines if one["pid"] == program.pid]
        assert (found["name"], found["heap_most"]) == ("Leaks static", 64 << 20)
        assert found["version"].startswith("17.")
        assert not os.path.exists(f"/tmp/.java_pid{program.pid}")
        assert main(["java", "list", "--for", "0.2s"]) in (0, 3)
        assert "Leaks static" in capsys.readouterr().out


def test_a_dump_says_its_cost_first_and_is_whole_or_not_there(
    classes, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with Program(classes, "static", main="ByName", env=environment()) as program:
        program.grow(1000)
        assert main(["java", "dump", "ByName", "--dry-run"]) == 0
        assert "will stand still for about" in capsys.readouterr().err
        assert os.listdir(tmp_path) == []
        assert main(["java", "dump", str(program.pid), "-o", "a.hprof"]) == 0
        out, told = capsys.readouterr()
        assert "leakscope report a.hprof" in out
        assert told.index("stand still") >= 0
        assert (tmp_path / "a.hprof").stat().st_mode & 0o777 == 0o600
        assert main(["report", "a.hprof"]) == 3
        assert "Leaks.SESSIONS" in capsys.readouterr().out
        assert main(["java", "dump", str(program.pid), "-o", "b.hprof.gz", "--gz"]) == 0
        # Not over what is there, not into nowhere, not where there is no room.
        before = (tmp_path / "a.hprof").read_bytes()
        assert main(["java", "dump", str(program.pid), "-o", "a.hprof"]) == 2
        assert main(["java", "dump", str(program.pid), "-o", "no/where"]) == 2
        assert (tmp_path / "a.hprof").read_bytes() == before
        usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
        monkeypatch.setattr(dumping.shutil, "disk_usage", lambda _: usage)
        capsys.readouterr()
        assert main(["java", "dump", str(program.pid), "-o", "c.hprof"]) == 2
        assert "are free in" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["a.hprof", "b.hprof.gz"]


def test_one_that_does_not_answer_is_told_of_and_left_in_peace(
    classes, tmp_path, capsys, monkeypatch
):
    with Program(classes, "static", env=environment()) as program:
        os.kill(program.pid, signal.SIGSTOP)
        wait_for(lambda: ") T " in Path(f"/proc/{program.pid}/stat").read_text())
        assert main(["java", "dump", str(program.pid), "-o", str(tmp_path / "d")]) == 2
        assert "does not answer: it is stopped" in capsys.readouterr().err
        os.kill(program.pid, signal.SIGCONT)
        program.grow(10)  # nothing but "done" is on its output
    with Program(classes, "static", "-XX:+DisableAttachMechanism", env=environment()) as program:
        assert main(["java", "dump", str(program.pid), "-o", str(tmp_path / "d")]) == 2
        assert "DisableAttachMechanism" in capsys.readouterr().err
        program.grow(10)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way_is_told_before_anything_stands_still(classes, tmp_path, capsys):
    (tmp_path / "there").write_text("kept")
    with Program(classes, "static", env=environment()) as program:
        for name in ("there", "no/where"):
            assert main(["java", "dump", str(program.pid), "-o", str(tmp_path / name)]) == 2
            assert "stand still" not in capsys.readouterr().err
        assert not os.path.exists(f"/tmp/.java_pid{program.pid}")


def test_a_heap_that_was_not_seen_is_not_called_well(classes, capsys):
    """Stopped, or asked once and never collected: nothing is known of its growth."""
    with Program(classes, "static", env=environment()) as program:
        status, found = watched(program, capsys, "--histograms", "0", seconds="1s")
        assert (status, found["verdict"], found["growth_of"]) == (3, "unknown", None)
        assert watched(program, capsys, "--histograms", "2", seconds="1s")[0] == 0
        os.kill(program.pid, signal.SIGSTOP)
        wait_for(lambda: ") T " in Path(f"/proc/{program.pid}/stat").read_text())
        began = time.monotonic()
        status, found = watched(program, capsys, seconds="1s")
        assert time.monotonic() - began < 30  # a minute of patience was for one that is busy
        assert (status, found["verdict"]) == (3, "unknown")
        assert "it is stopped" in " ".join(found["notes"])


CLOSED = "-XX:+DisableAttachMechanism"


@pytest.mark.parametrize("where", ["environment", "arguments", "flags"])
def test_one_that_is_closed_in_another_way_prints_nothing(classes, tmp_path, capsys, where):
    """It would print its threads on its standard output; `grow` reads that."""
    (tmp_path / "arguments").write_text(f"{CLOSED} -XX:-UsePerfData\n")
    (tmp_path / "flags").write_text(f"{CLOSED[4:]}\n")
    options = {"environment": (), "arguments": (f"@{tmp_path}/arguments",)}
    options["flags"] = ("-XX:-UsePerfData", f"-XX:Flags={tmp_path}/flags")
    variables = environment()
    if where == "environment":
        variables["JAVA_TOOL_OPTIONS"] = f"{CLOSED} -XX:-UsePerfData"
    with Program(classes, "static", *options[where], env=variables) as program:
        assert main(["java", "dump", str(program.pid), "-o", str(tmp_path / "d")]) == 2
        assert "cannot be asked: -XX:+DisableAttachMechanism" in capsys.readouterr().err
        program.grow(10)
    assert not (tmp_path / "d").exists()


def test_the_socket_of_one_that_was_killed_is_in_nobodys_way(classes, tmp_path):
    with Program(classes, "static", env=environment()) as program:
        path = f"/tmp/.java_pid{program.pid}"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        try:
            assert main(["java", "dump", str(program.pid), "-o", str(tmp_path / "d")]) == 0
        finally:
            Path(path).unlink(missing_ok=True)
        assert (tmp_path / "d").stat().st_size > 1 << 20


def test_a_dump_that_became_too_large_meanwhile_is_not_there(classes, tmp_path, capsys):
    with Program(classes, "static", env=environment()) as program:
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        assert main(["java", "dump", str(program.pid), "-o", str(tmp_path / "d")]) == 2
        assert "wrote no whole dump" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_what_is_none_gets_one_sentence(capsys):
    for arguments, said in (
        (["dump", "1"], "is no Java virtual machine"),
        (["watch", "no-such-program"], "no Java virtual machine here runs"),
        (["watch", "999999999"], "there is no process 999999999"),
        (["watch", "1", "--histograms", "x"], "is not a number"),
        (["list", "--every", "0.001s"], "too short"),
    ):
        assert main(["java", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
