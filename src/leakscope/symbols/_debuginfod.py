# SPDX-License-Identifier: Apache-2.0
"""Fetch debug files by build-id from debuginfod servers, within a fixed time.

The cache has the layout of elfutils' own client, so both share what they fetched. A server
that cannot be reached is asked once, and `notes` says so; nothing here raises for a network
that is missing, slow or lying. What arrives is used only if it has the build-id asked for.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._paths import is_directory, users_home
from leakscope.errors import SymbolError
from leakscope.proc.elf_file import ElfFile

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Debuginfod"]

_ANSWER_SECONDS = 4.0  # a server that says nothing for so long is left alone
_TOTAL_SECONDS = 20.0  # for all files of one report; DEBUGINFOD_MAXTIME changes it
_MAX_BYTES = 2 << 30
_MISS_SECONDS = 600.0  # how long a "not found" is remembered, as in elfutils


class Debuginfod:
    """The servers of DEBUGINFOD_URLS and their cache on disk."""

    def __init__(
        self, environ: Mapping[str, str] = os.environ, total_seconds: float | None = None
    ) -> None:
        """`total_seconds` bounds all fetching; by default DEBUGINFOD_MAXTIME or 20."""
        self.urls = [
            url.rstrip("/")
            for url in environ.get("DEBUGINFOD_URLS", "").split()
            if url.lower().startswith(("http://", "https://"))
        ]
        self.notes: list[str] = []
        self._left = (
            total_seconds
            if total_seconds is not None
            else _number(environ.get("DEBUGINFOD_MAXTIME"), _TOTAL_SECONDS)
        )
        self._answer = min(_number(environ.get("DEBUGINFOD_TIMEOUT"), _ANSWER_SECONDS), 60.0)
        self._max_bytes = int(_number(environ.get("DEBUGINFOD_MAXSIZE"), _MAX_BYTES))
        self._cache = _cache_folder(environ)
        self._dead: set[str] = set()
        self._out_of_time = False

    def cached(self, build_id: str) -> str | None:
        """Return the path of the debug file if the cache has it, without any network."""
        path = self._cache / build_id / "debuginfo"
        try:
            status = path.stat()
        except OSError:
            return None
        return str(path) if stat.S_ISREG(status.st_mode) and status.st_size > 0 else None

    def find(self, build_id: str) -> str | None:
        """Return the path of the debug file with `build_id`, fetching it if need be.

        `build_id` is lower-case hex, already checked.
        """
        known = self.cached(build_id)
        if known is not None or self._missed_lately(build_id):
            return known
        asked = False
        for url in self.urls:
            if url in self._dead or self._left <= 0:
                continue
            status = self._fetch(url, build_id)
            if status is True:
                return self.cached(build_id)
            asked = asked or status is False
        if self._left <= 0 and not self._out_of_time:
            self._out_of_time = True
            self.notes.append(
                "fetching debug information took too long and was stopped; "
                "set DEBUGINFOD_MAXTIME to more seconds to wait longer"
            )
        if asked and len(self._dead) == 0 and self._left > 0:
            self._remember_miss(build_id)
        return None

    def _fetch(self, url: str, build_id: str) -> bool | None:
        """True: in the cache now. False: this server does not have it. None: trouble."""
        folder = self._cache / build_id
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="debuginfo.", dir=folder)
        except OSError as error:
            self._give_up(url, f"cannot keep debug information in {folder}: {error.strerror}")
            return None
        os.close(handle)
        temporary = Path(name)
        job = _Download(
            f"{url}/buildid/{build_id}/debuginfo", temporary, self._answer, self._max_bytes
        )
        started = time.monotonic()
        job.start()
        # The answer has its own limit: timeouts of sockets do not bound a name that is looked up
        # for long, several addresses tried in turn, or headers that arrive byte by byte.
        answered = job.answered.wait(min(self._answer, self._left))
        job.join(self._left - (time.monotonic() - started) if answered else 0)
        self._left -= time.monotonic() - started
        try:
            return self._keep(job, url, build_id, folder / "debuginfo", answered)
        except OSError as error:
            self._give_up(url, f"cannot keep debug information in {folder}: {error.strerror}")
            return None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
            with contextlib.suppress(OSError):
                folder.rmdir()  # succeeds only when nothing was kept in it

    def _keep(
        self, job: _Download, url: str, build_id: str, target: Path, answered: bool
    ) -> bool | None:
        if job.is_alive():
            job.stop = True
            if answered:
                self._left = 0
            else:
                self._give_up(
                    url, f"the debuginfod server {url} cannot be used: it does not answer"
                )
            return None
        if job.trouble is not None:
            self._give_up(url, f"the debuginfod server {url} cannot be used: {job.trouble}")
            return None
        if not job.found:
            return False
        if not _has_build_id(job.path, build_id):
            self._give_up(
                url,
                f"the debuginfod server {url} sent a file that is not the one asked for; "
                "it was not used",
            )
            return None
        job.path.chmod(0o400)
        job.path.replace(target)
        return True

    def _give_up(self, url: str, note: str) -> None:
        self._dead.add(url)
        self.notes.append(note)

    def _missed_lately(self, build_id: str) -> bool:
        try:
            status = (self._cache / build_id / "debuginfo").stat()
        except OSError:
            return False
        return status.st_size == 0 and 0 <= time.time() - status.st_mtime < _MISS_SECONDS

    def _remember_miss(self, build_id: str) -> None:
        # An empty file says "not found", in elfutils too.
        folder = self._cache / build_id
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / "debuginfo"
            path.unlink(missing_ok=True)
            path.touch(mode=0o600, exist_ok=False)
        except OSError:
            pass


class _Download(threading.Thread):
    # A thread, because looking up a host name cannot be given a timeout.

    def __init__(self, url: str, path: Path, answer_seconds: float, max_bytes: int) -> None:
        super().__init__(name="debuginfod", daemon=True)
        self.url, self.path = url, path
        self.answer_seconds, self.max_bytes = answer_seconds, max_bytes
        self.answered = threading.Event()  # its headers are here, or it failed
        self.found = False
        self.stop = False
        self.trouble: str | None = None

    def run(self) -> None:
        import urllib.error  # here: most reports fetch nothing, and this costs a tenth of them
        from http.client import HTTPException

        try:
            self._run()
        except urllib.error.HTTPError as error:
            if error.code != 404:
                self.trouble = f"it answered {error.code}"
            error.close()
        except urllib.error.URLError as error:
            self.trouble = _reason(error.reason)
        except (OSError, HTTPException, ValueError) as error:
            self.trouble = _reason(error)
        finally:
            self.answered.set()

    def _run(self) -> None:
        import urllib.request

        # Only http and https get here: Debuginfod drops other URLs.
        request = urllib.request.Request(self.url, headers={"User-Agent": "leakscope"})  # noqa: S310
        with (
            urllib.request.urlopen(request, timeout=self.answer_seconds) as answer,  # noqa: S310
            self.path.open("wb") as file,
        ):
            self.answered.set()
            size = 0
            while not self.stop:
                part = answer.read(1 << 18)
                if not part:
                    self.found = True
                    return
                size += len(part)
                if size > self.max_bytes:
                    self.trouble = "the file is larger than DEBUGINFOD_MAXSIZE"
                    return
                file.write(part)


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _has_build_id(path: Path, build_id: str) -> bool:
    try:
        with ElfFile(str(path)) as elf:
            return elf.build_id() == build_id
    except SymbolError:
        return False


def _number(text: str | None, default: float) -> float:
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return default
    return value if 0 < value < 1e12 else default


def _cache_folder(environ: Mapping[str, str]) -> Path:
    given = environ.get("DEBUGINFOD_CACHE_PATH")
    if given:
        return Path(given)
    home = Path(environ.get("HOME") or users_home())
    old = home / ".debuginfod_client_cache"
    if is_directory(old):
        return old
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home / ".cache") / "debuginfod_client"
