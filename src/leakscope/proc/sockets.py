# SPDX-License-Identifier: Apache-2.0
"""Sockets: how many there are, and what the one behind a descriptor is connected to."""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass

from leakscope.proc.text import read_text

__all__ = ["SocketTotals", "parse_internet", "parse_sockstat", "parse_unix", "read_peers"]
__all__ += ["read_sockstat"]

_STATES = dict(
    enumerate(
        (
            "established",
            "syn-sent",
            "syn-received",
            "fin-wait-1",
            "fin-wait-2",
            "time-wait",
            "closed",
            "close-wait",
            "last-ack",
            "listening",
            "closing",
        ),
        start=1,
    )
)


@dataclass(frozen=True, slots=True)
class SocketTotals:
    """All sockets of this network namespace, and the pages of 4 KiB or so in their buffers."""

    count: int
    pages: int


def parse_sockstat(text: str) -> SocketTotals:
    """Read the text of /proc/net/sockstat."""
    count = pages = 0
    for line in text.split("\n"):
        name, _, rest = line.partition(":")
        words = rest.split()
        pairs = dict(zip(words[::2], words[1::2], strict=False))
        if name == "sockets" and pairs.get("used", "").isdecimal():
            count = int(pairs["used"])
        elif pairs.get("mem", "").isdecimal():
            pages += int(pairs["mem"])
    return SocketTotals(count, pages)


def read_sockstat() -> SocketTotals:
    """Return the totals; zeros on a kernel without networking."""
    return parse_sockstat(read_text("/proc/net/sockstat", 1 << 16) or "")


def parse_internet(text: str, protocol: str) -> dict[int, str]:
    """Return inode -> "tcp to 10.0.0.7:5432, close-wait" from a text such as /proc/net/tcp."""
    found: dict[int, str] = {}
    for line in text.split("\n")[1:]:
        words = line.split()
        if len(words) < 10 or not words[9].isdecimal():
            continue
        try:
            local, remote = _address(words[1]), _address(words[2])
            state = int(words[3], 16)
        except ValueError:
            continue
        if protocol == "tcp" and state == 10:
            found[int(words[9])] = f"tcp listening on {local}"
        elif remote.endswith(":0"):
            found[int(words[9])] = f"{protocol} on {local}"
        else:
            after = f", {_STATES.get(state, 'unknown state')}" if protocol == "tcp" else ""
            found[int(words[9])] = f"{protocol} to {remote}{after}"
    return found


def parse_unix(text: str) -> dict[int, str]:
    """Return inode -> "unix /run/x.sock" from the text of /proc/net/unix."""
    found: dict[int, str] = {}
    for line in text.split("\n")[1:]:
        words = line.split(None, 7)
        if len(words) < 7 or not words[6].isdecimal():
            continue
        # A name may hold a line that looks like another socket's: then nobody knows.
        name = f"unix {words[7]}" if len(words) > 7 else "unix, unnamed"
        found[int(words[6])] = "unix" if int(words[6]) in found else name
    return found


def read_peers(pid: int | str) -> dict[int, str]:
    """Return what each socket of the network namespace of `pid` is, by inode."""
    found: dict[int, str] = {}
    for name in ("tcp", "tcp6", "udp", "udp6"):
        text = read_text(f"/proc/{pid}/net/{name}") or ""
        found |= parse_internet(text, name.removesuffix("6"))
    return found | parse_unix(read_text(f"/proc/{pid}/net/unix") or "")


def _address(text: str) -> str:
    """Return "1.2.3.4:80" of "04030201:0050": 32-bit words in the byte order of the machine."""
    host, _, port = text.partition(":")
    raw = bytes.fromhex(host)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    shown = f"[{address}]" if address.version == 6 and mapped is None else str(mapped or address)
    return f"{shown}:{int(port, 16)}"
