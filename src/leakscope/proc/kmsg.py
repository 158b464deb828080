# SPDX-License-Identifier: Apache-2.0
"""Which out-of-memory kills the kernel's log still tells, and whose limit was reached."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["OomKills", "new_messages", "parse_oom_kills", "read_log", "read_oom_kills"]

# mm/oom_kill.c, dump_oom_summary() (Linux 5.0 and newer); before it, the sentence of the kill alone.
_SUMMARY = re.compile(
    r"oom-kill:constraint=(CONSTRAINT_\w+),.*?(?:oom_memcg=([^,\n]*),)?task_memcg="
)
_SENTENCE = re.compile(r"(Memory cgroup out of memory|Out of memory): Kill(?:ed)? process \d+")
_RECORD = 8192
_MOST = 200_000  # records; the log is a ring of fixed size


@dataclass(frozen=True, slots=True)
class OomKills:
    """Kills by the machine's own shortage, and by cgroup whose limit was reached ("" unknown)."""

    machine: int = 0
    groups: Counter[str] = field(default_factory=Counter)


def parse_oom_kills(messages: list[str]) -> OomKills:
    """Count the kills in messages of the kernel's log, the oldest first."""
    machine, groups = 0, Counter[str]()
    told = ""  # by the summary before the sentence
    for message in messages:
        if (summary := _SUMMARY.search(message)) is not None:
            told = summary[2] or ""
        elif (sentence := _SENTENCE.search(message)) is not None:
            if sentence[1] == "Out of memory":
                machine += 1
            else:
                groups[told] += 1
            told = ""
    return OomKills(machine, groups)


def read_oom_kills(path: str = "/dev/kmsg") -> OomKills | None:
    """Return what the kernel's log still holds; None when this user may not read it."""
    records = read_log(lambda text: "oom-kill:" in text or "ut of memory" in text, path)
    return None if records is None else parse_oom_kills([text for _, text in records])


@contextlib.contextmanager
def new_messages(path: str = "/dev/kmsg") -> Iterator[Callable[[], list[str]]]:
    """Give a function that returns what the kernel has logged since. Raises `OSError`."""
    log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def read() -> list[str]:
        found: list[str] = []
        while len(found) < _MOST:
            try:
                record = os.read(log, _RECORD)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue
                break
            if not record:
                break
            found.append(record.decode("utf-8", "replace").partition(";")[2].partition("\n")[0])
        return found

    try:
        os.lseek(log, 0, os.SEEK_END)
        yield read
    finally:
        os.close(log)


def read_log(
    wanted: Callable[[str], bool], path: str = "/dev/kmsg"
) -> list[tuple[float, str]] | None:
    """Return the records of the kernel's log that are `wanted`, the oldest first.

    Each is the seconds since boot (without suspends) and its text. None: it may not be read.
    """
    try:
        log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    found: list[tuple[float, str]] = []
    try:
        for _ in range(_MOST):
            try:
                record = os.read(log, _RECORD)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while we read: go on with the next
                    continue
                return None
            if not record:
                break
            head, _, rest = record.decode("utf-8", "replace").partition(";")
            text = rest.partition("\n")[0]
            if wanted(text):
                words = head.split(",")
                known = len(words) > 2 and words[2].isdecimal()
                found.append((int(words[2]) / 1e6 if known else 0.0, text))
    finally:
        os.close(log)
    return found
