# SPDX-License-Identifier: Apache-2.0
"""Heap dumps made by hand, by the grammar of the format, and Java programs to take real ones of."""

import json
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

import leakscope.report

SCHEMAS = Path(leakscope.report.__file__).parent / "schemas"
PROGRAMS = Path(__file__).parent / "programs" / "java"
ORACLE_JAR = Path("/usr/share/visualvm/visualvm/modules/org-graalvm-visualvm-lib-jfluid-heap.jar")
SAMPLE = Path(__file__).parents[2] / "shared" / "samples" / "hprof" / "jdk17-live.hprof.gz"
JVM = ("-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
TYPES = {"object": 2, "boolean": 4, "char": 5, "float": 6, "double": 7}
TYPES |= {"byte": 8, "short": 9, "int": 10, "long": 11}


class Dump:
    """A dump under construction. Objects are named by their addresses."""

    def __init__(self, id_size=8, version="1.0.2", android=False):
        self.id_size = id_size
        self.names = {}
        self.head = f"JAVA PROFILE {version}".encode() + b"\0"
        self.head += struct.pack(">IQ", id_size, 1_700_000_000_000)
        self.records = b""
        self.body = b""
        self.serial = 0
        self.android = android
        self.fields = {}

    def id(self, value):
        return value.to_bytes(self.id_size, "big")

    def record(self, tag, body):
        self.records += struct.pack(">BII", tag, 0, len(body)) + body

    def text(self, text):
        if text not in self.names:
            self.names[text] = 0x1000 + len(self.names)
            self.record(0x01, self.id(self.names[text]) + text.encode())
        return self.names[text]

    def define(self, address, name, super_=0, *, loader=0, fields=(), statics=(), size=0):
        """A class: `fields` are (name, type), `statics` (name, type, value)."""
        self.serial += 1
        self.fields[address] = (super_, [kind for _, kind in fields])
        self.record(
            0x02, struct.pack(">I", self.serial) + self.id(address) + bytes(4) + self.id(self.text(name))
        )  # fmt: skip
        body = self.id(address) + bytes(4) + self.id(super_) + self.id(loader)
        body += self.id(0) * 4 + struct.pack(">I", size) + struct.pack(">H", 0)
        body += struct.pack(">H", len(statics))
        for field, kind, value in statics:
            body += self.id(self.text(field)) + bytes((TYPES[kind],)) + self.pack(kind, value)
        body += struct.pack(">H", len(fields))
        for field, kind in fields:
            body += self.id(self.text(field)) + bytes((TYPES[kind],))
        self.body += b"\x20" + body
        return address

    def pack(self, kind, value):
        if kind == "object":
            return self.id(value)
        letter = {"boolean": "?", "char": "H", "float": "f", "double": "d"}
        letter |= {"byte": "b", "short": "h", "int": "i", "long": "q"}
        return struct.pack(">" + letter[kind], value)

    def instance(self, address, class_, *values):
        kinds, at = [], class_
        while at:
            at, own = self.fields[at]
            kinds += own
        data = b"".join(self.pack(kind, v) for kind, v in zip(kinds, values, strict=True))
        self.body += b"\x21" + self.id(address) + bytes(4) + self.id(class_)
        self.body += struct.pack(">I", len(data)) + data
        return address

    def array(self, address, class_, *elements):
        self.body += b"\x22" + self.id(address) + bytes(4) + struct.pack(">I", len(elements))
        self.body += self.id(class_) + b"".join(map(self.id, elements))
        return address

    def numbers(self, address, kind, values):
        self.body += b"\x23" + self.id(address) + bytes(4) + struct.pack(">I", len(values))
        self.body += bytes((TYPES[kind],)) + b"".join(self.pack(kind, v) for v in values)
        return address

    def root(self, tag, address, *words):
        self.body += (
            bytes((tag,)) + self.id(address) + b"".join(struct.pack(">I", w) for w in words)
        )

    def raw(self, data):
        self.body += data

    def bytes(self, tag=0x1C, *, end=True):
        heap = struct.pack(">BII", tag, 0, len(self.body)) + self.body
        return self.head + self.records + heap + (struct.pack(">BII", 0x2C, 0, 0) if end else b"")

    def write(self, path, **options):
        path.write_bytes(self.bytes(**options))
        return path


def java_classes(folder):
    """Compile the programs once for each folder."""
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed; tools/setup-debian --test does it")
    done = subprocess.run(
        ["javac", "-nowarn", "-d", folder, PROGRAMS / "Leaks.java", PROGRAMS / "ByName.java"],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


class Program:
    """A virtual machine that runs Leaks.java and grows when it is told to. A context manager."""

    def __init__(self, classes, kind, *options, main="Leaks", **more):
        self.process = subprocess.Popen(
            ["java", *JVM, *options, "-cp", classes, main, kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"
        self.pid = self.process.pid

    def grow(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def dump(self, path, count=None, minute=None):
        """Dump the heap, when it has grown by `count`; `minute` is when that shall have been.

        A busy machine would make the same growth fast or slow.
        """
        from leakscope.java.attach import jcmd
        from leakscope.java.machines import find_machine

        if count is not None:
            self.grow(count)
        jcmd(find_machine(self.pid), f"GC.heap_dump {path}", patience_s=60)
        if minute is not None:
            with path.open("r+b") as file:
                file.seek(len(b"JAVA PROFILE 1.0.2\0") + 4)
                file.write(struct.pack(">Q", 1_700_000_000_000 + 60_000 * minute))
        return path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()  # it takes its socket in /tmp with it
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def validated(text):
    """A document, which follows the schema that it names."""
    document = json.loads(text)
    name = document["schema"].replace("/", "-")
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    assert schema["title"] == document["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    return document


def wait_for(condition, patience_s=20.0):
    """Wait until a condition holds."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def environment():
    """Without what would make a virtual machine say more than it does."""
    return {k: v for k, v in os.environ.items() if k not in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")}
