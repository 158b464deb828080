# SPDX-License-Identifier: Apache-2.0
"""Make the kernel allocate: `kernel_load.py leak|churn|cache SECONDS [FILE]`.

leak: 50 times a second a pipe, an epoll instance and a socket that stay open, told at the end.
churn: the same, closed at once. cache: FILE is written and read again and again (page cache).
"""

import os
import resource
import select
import socket
import sys
import time

what, seconds = sys.argv[1], float(sys.argv[2])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = []
until = time.monotonic() + seconds
rounds = 0
print("begun", flush=True)
while time.monotonic() < until:
    rounds += 1
    if what == "cache":
        with open(sys.argv[3], "wb") as file:
            file.write(bytes(4 << 20))
        with open(sys.argv[3], "rb") as file:
            file.read()
        time.sleep(0.05)
        continue
    reader, writer = os.pipe()
    other, peer = select.epoll(), socket.socket(socket.AF_UNIX)
    if what == "leak" and rounds * 4 + 64 < most:
        kept += [reader, writer, other, peer]
    else:
        os.close(reader)
        os.close(writer)
        other.close()
        peer.close()
    time.sleep(0.02)
print(rounds, flush=True)
