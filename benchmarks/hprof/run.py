#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Analyse a heap dump: time and memory of leakscope beside VisualVM's library.

    .venv/bin/python benchmarks/hprof/run.py [OBJECTS] [ROUNDS]

Makes a virtual machine with so many objects (default 1,000,000), dumps it, and lets both work out
the retained sizes of all objects, in turns. Then a dump with a million classes. Needs
`tools/setup-debian --test`. With 0 rounds leakscope is alone, for dumps that the library takes
minutes for (40,000,000 objects make 1.7 GB).
"""

import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
JAR = "/usr/share/visualvm/visualvm/modules/org-graalvm-visualvm-lib-jfluid-heap.jar"
OURS = """
import sys, time
from leakscope.java.dump import open_heap, visualvm_rules
began = time.perf_counter()
with open_heap(sys.argv[1], visualvm_rules(8)) as dump:
    took = time.perf_counter() - began
    best = int(dump.all_retained.argmax())
    print(hex(int(dump.objects["id"][best]))[2:], dump.retained(best), len(dump.objects),
          len(dump.classes), dump.core.facts.most, took, dump.core.facts.edges)
"""
WHOLE = """
import sys
from leakscope.java.analysis import analyse_dump
answer = analyse_dump(sys.argv[1])
print(answer.seconds, len(answer.suspects), answer.objects, answer.memory)
"""


def timed(command, **more):
    """Seconds, and what it printed, with its largest resident memory."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, **more)
    return time.perf_counter() - began, done.stdout.split()


def make_dump(folder, objects):
    subprocess.run(["javac", "-nowarn", "-d", folder, HERE / "Heap.java"], check=True)
    heap = max(128, objects * 60 >> 20)
    machine = subprocess.Popen(
        [
            "java",
            f"-Xmx{heap}m",
            "-Xss16m",
            "-XX:+UseSerialGC",
            "-cp",
            folder,
            "Heap",
            str(objects),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert machine.stdout.readline() == "ready\n"
        from leakscope.java.attach import jcmd
        from leakscope.java.machines import find_machine

        path = Path(folder) / "heap.hprof"
        jcmd(find_machine(machine.pid), f"GC.heap_dump {path}", patience_s=600)
        return path
    finally:
        machine.kill()
        machine.wait()


def many_classes(path, count):
    """A dump of so many classes, each with one object."""
    head = b"JAVA PROFILE 1.0.2\0" + struct.pack(">IQ", 8, 0)
    name = struct.pack(">BII", 1, 0, 8 + 5) + struct.pack(">Q", 7) + b"a/Two"
    loads = b"".join(
        struct.pack(">BIIIQIQ", 2, 0, 24, n, 0x100000 + 64 * n, 0, 7) for n in range(count)
    )
    subs = []
    for number in range(count):
        at = 0x100000 + 64 * number
        subs.append(
            b"\x20" + struct.pack(">QI", at, 0) + bytes(48) + struct.pack(">IHHH", 0, 0, 0, 0)
        )
        subs.append(b"\x21" + struct.pack(">QIQI", at + 32, 0, at, 0))
    subs.append(b"\xff" + struct.pack(">Q", 0x100000))
    heap = b"".join(subs)
    path.write_bytes(head + name + loads + struct.pack(">BII", 0x1C, 0, len(heap)) + heap)


def alone(path):
    """Time and memory of the whole report on one dump, in a process of its own."""
    seconds, said = timed([sys.executable, "-c", WHOLE, str(path)])
    count, most = int(said[2]), int(said[3])
    print(f"dump: {path.stat().st_size:,} bytes, {count:,} objects, {said[1]} suspects")
    print(f"leakscope, whole report  {seconds:8.2f} s")
    print(f"bytes an object          {most / count:8.0f}")
    return 0 if most / count <= 250 else 1


def main():
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder = tempfile.mkdtemp(prefix="leakscope-hprof-")
    try:
        path = make_dump(folder, objects)
        subprocess.run(["javac", "-cp", JAR, "-d", folder, HERE / "Library.java"], check=True)
        ours, theirs, whole = [], [], []
        for _ in range(rounds):
            shutil.rmtree(f"{path}.hwcache", ignore_errors=True)  # its index of earlier runs
            seconds, said = timed(
                ["java", "-Xmx2g", "-cp", f"{JAR}:{folder}", "Library", str(path)]
            )
            theirs.append(seconds)
            library = said[0], int(said[1])
            seconds, said = timed([sys.executable, "-c", OURS, str(path)])
            ours.append(seconds)
            assert (said[0], int(said[1])) == library, (said, library)
            count, most, core, edges = int(said[2]), int(said[4]), float(said[5]), int(said[6])
            seconds, _ = timed([sys.executable, "-c", WHOLE, str(path)])
            whole.append(seconds)
        if not rounds:
            return alone(path)
        size = path.stat().st_size
        print(f"dump: {size >> 20} MiB, {count:,} objects, {edges:,} references")
        print(f"VisualVM's library       {min(theirs):8.2f} s")
        print(f"leakscope, the same      {min(ours):8.2f} s ({core:.2f} s of it analysis)")
        print(f"leakscope, whole report  {min(whole):8.2f} s")
        ratio = min(theirs) / min(ours)
        print(f"times as fast            {ratio:8.1f}")
        print(f"bytes an object          {most / count:8.0f}")
        same = "the same object with the same retained size"
        print(f"heaviest: {same}, {library[1]:,} bytes")
        classes = Path(folder) / "classes.hprof"
        many_classes(classes, 1_000_000)
        seconds, said = timed([sys.executable, "-c", OURS, str(classes)])
        print(f"a million classes        {seconds:8.2f} s ({int(said[3]):,} classes)")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"largest process          {peak >> 10:8,} MiB")
    finally:
        shutil.rmtree(folder)
    return 0 if ratio >= 5 and most / count <= 250 else 1


if __name__ == "__main__":
    os.environ.pop("JAVA_TOOL_OPTIONS", None)
    sys.exit(main())
