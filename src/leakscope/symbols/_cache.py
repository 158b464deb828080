# SPDX-License-Identifier: Apache-2.0
"""Keep what was found out about addresses, so that the next report need not find it again.

One file a module and set of debug files, named by a hash of both, private to the user. A file
that is damaged, of another version or not ours is as good as none. The whole cache is kept
under a fixed size, oldest files leave first.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leakscope._paths import users_home

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Cache", "Located", "default_folder"]

FORMAT = 4  # raise it whenever the same input gives other answers
_MAX_FILE = 256 << 20
_MAX_TOTAL = 512 << 20
_MAX_ENTRIES = 2_000_000


class Located(NamedTuple):
    """One function active at an address, in the terms of a `Frame`."""

    function: str | None
    symbol: str | None
    file: str | None
    line: int | None
    column: int | None


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$XDG_CACHE_HOME/leakscope/symbols`, by default below `~/.cache`."""
    base = environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        return users_home() / ".cache/leakscope/symbols"
    return Path(base, "leakscope", "symbols")


class Cache:
    """A folder of answers. Nothing here raises: a cache that cannot be used is no cache."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is created with mode 0700 when something is stored."""
        self.folder = folder

    def load(self, identity: str) -> dict[int, tuple[Located, ...]]:
        """Return what is known by address. Empty when there is nothing usable."""
        try:
            body = self._read(self._path(identity), identity)
            return {} if body is None else _unpack(body)
        except (OSError, ValueError, TypeError, LookupError, RecursionError, zlib.error):
            return {}

    def store(self, identity: str, entries: Mapping[int, tuple[Located, ...]]) -> None:
        """Replace what is known about `identity`."""
        if len(entries) > _MAX_ENTRIES:
            return
        text = json.dumps(_pack(entries), separators=(",", ":"), ensure_ascii=True)
        body = zlib.compress(text.encode("ascii"), 1)
        head = json.dumps({"leakscope-symbols": FORMAT, "of": identity, "crc": zlib.crc32(body)})
        path = self._path(identity)
        try:
            if not self._own_folder():
                return
            handle, temporary = tempfile.mkstemp(prefix=".new-", dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(head.encode("ascii") + b"\n" + body)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink()
                raise
            self._prune()
        except OSError:
            return

    def _path(self, identity: str) -> Path:
        return self.folder / hashlib.sha256(f"{FORMAT} {identity}".encode()).hexdigest()[:40]

    def _own_folder(self) -> bool:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(self.folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False  # somebody else's, or a symbolic link
        if stat.S_IMODE(status.st_mode) & 0o077:
            self.folder.chmod(0o700)
        return True

    def _read(self, path: Path, identity: str) -> bytes | None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
                return None
            if status.st_uid != os.geteuid():
                return None
            head = json.loads(file.readline(1 << 16))
            body = file.read(_MAX_FILE)
        good = (
            head["leakscope-symbols"] == FORMAT
            and head["of"] == identity
            and head["crc"] == zlib.crc32(body)
        )
        return zlib.decompressobj().decompress(body, _MAX_FILE) if good else None

    def _prune(self) -> None:
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                abandoned = entry.name.startswith(".new-") and time.time() - status.st_mtime > 3600
                if abandoned:
                    Path(entry.path).unlink()
                elif stat.S_ISREG(status.st_mode):
                    files.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= _MAX_TOTAL:
                return
            Path(path).unlink()
            total -= size


def _pack(entries: Mapping[int, tuple[Located, ...]]) -> dict[str, Any]:
    strings: dict[str | None, int] = {None: 0}
    places: dict[Located, int] = {}
    chains: dict[tuple[Located, ...], int] = {}
    for chain in entries.values():
        if chain not in chains:
            chains[chain] = len(chains)
            for place in chain:
                places.setdefault(place, len(places))
                for text in place[:3]:
                    strings.setdefault(text, len(strings))
    return {
        "strings": list(strings)[1:],
        "places": [
            [strings[p.function], strings[p.symbol], strings[p.file], p.line or 0, p.column or 0]
            for p in places
        ],
        "chains": [[places[place] for place in chain] for chain in chains],
        "addresses": list(entries),
        "of": [chains[chain] for chain in entries.values()],
    }


def _unpack(body: bytes) -> dict[int, tuple[Located, ...]]:
    data = json.loads(body)
    strings: list[str | None] = [None, *data["strings"]]
    places = [
        Located(strings[function], strings[symbol], strings[file], line or None, column or None)
        for function, symbol, file, line, column in data["places"]
    ]
    chains = [tuple([places[i] for i in chain]) for chain in data["chains"]]
    found = dict(zip(data["addresses"], [chains[i] for i in data["of"]], strict=True))
    if not all(type(address) is int for address in found):
        raise ValueError("an address that is no number")
    return found
