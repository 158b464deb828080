# SPDX-License-Identifier: Apache-2.0
"""Write a folder as an initial file system (cpio, format newc) to standard output."""

import os
import sys
from pathlib import Path


def entry(name, mode, data=b""):
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return pad(head) + pad(data)


def pad(data):
    return data + b"\0" * (-len(data) % 4)


def main(root):
    out = sys.stdout.buffer
    out.write(entry("dev", 0o40755))
    for path in sorted(Path(root).rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        out.write(entry(str(path.relative_to(root)), os.lstat(path).st_mode, data))
    out.write(entry("TRAILER!!!", 0))


main(sys.argv[1])
