# SPDX-License-Identifier: Apache-2.0
"""Boots a kernel in QEMU with the host's files as its root, and returns what a script there said."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

HERE = ROOT / "tests/lab"
LEAKSCOPE = f"{ROOT}/.venv/bin/leakscope"
BOOT_S = 900
TOLD = re.compile(r"@@BEGIN (\S+)\n(.*?)\n@@END \1 (\d+)\n", re.DOTALL)
COMMAND = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-nodefaults",
           "-display", "none", "-serial", "stdio", "-no-reboot"]  # fmt: skip
ROOTFS = "root=host rootfstype=9p rootflags=trans=virtio,version=9p2000.L,cache=loose ro"


class Answer(NamedTuple):
    text: str
    status: int


def made(script, seconds):
    console = folder / "console"
    command = [*COMMAND, "-virtfs", share, "-kernel", kernel, *extra, *options, "-append", line]
    with console.open("wb") as out:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=seconds, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            pass  # how far it came stands on the console
    text = console.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    assert "@@LAB done" in text, text[-3000:]
    return {name: Answer(said, int(status)) for name, said, status in TOLD.findall(text)}


def source_lines(path):
    """The line in each function of the module on which it asks for memory."""
    found = {}
    function = None
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.startswith("static"):
            function = line.split("(")[0].split()[-1]
        elif line.startswith("\t") and re.search(r"alloc\w*\(", line) and function is not None:
            found.setdefault(function, number)
    return found


def document(answer):
    """The JSON document in what a command said, between words on its progress."""
    return json.JSONDecoder().raw_decode(answer.text, answer.text.index("{"))[0]
