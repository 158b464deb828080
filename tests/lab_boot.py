# SPDX-License-Identifier: Apache-2.0
"""Boots a kernel in QEMU with the host's files as its root, and returns what a script there said."""

import contextlib
import json
import os
import re
import shlex
import subprocess
from typing import NamedTuple

from conftest import ROOT

HERE = ROOT / "tests/lab"
LEAKSCOPE = f"{ROOT}/.venv/bin/leakscope"
# Seconds; a machine at rest needs a tenth, one where others work needs more.
BOOT_S = int(os.environ.get("LEAKSCOPE_LAB_BOOT_S", "900"))
TOLD = re.compile(r"@@BEGIN (\S+)\n(.*?)\n@@END \1 (\d+)\n", re.DOTALL)
# No AVX, which this emulation is new to; numpy needs no more than this processor has.
COMMAND = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "Nehalem", "-m", "1024", "-nodefaults",
           "-display", "none", "-serial", "stdio", "-no-reboot"]  # fmt: skip
ROOTFS = "root=host rootfstype=9p rootflags=trans=virtio,version=9p2000.L,cache=loose ro"
SHARE = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"


class Answer(NamedTuple):
    text: str
    status: int


def boot(script, folder, *, kernel, initrd=None, append="", options=(), seconds=BOOT_S):
    """Boot a kernel, run the script inside, and return what its sections said."""
    path, console = folder / "script", folder / "console"
    path.write_text(f"L={shlex.quote(LEAKSCOPE)}\n{script}")
    start = f"{ROOTFS} init={HERE}/init" if initrd is None else f"lab.init={HERE}/init"
    line = f"console=ttyS0 quiet panic=-1 {start} {append} lab.script={path}"
    extra = [] if initrd is None else ["-initrd", initrd]
    command = [*COMMAND, "-virtfs", SHARE, "-kernel", kernel, *extra, *options, "-append", line]
    # How far it came stands on the console, also when its time is over.
    with console.open("wb") as out, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=seconds, check=False
        )
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
