# SPDX-License-Identifier: Apache-2.0
"""Which kills for want of memory the kernel's log still tells, and whose limit was reached."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["OomKills", "parse_oom_kills", "read_oom_kills"]

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
    try:
        log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    messages: list[str] = []
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
            text = record.decode("utf-8", "replace").partition(";")[2].partition("\n")[0]
            if "oom-kill:" in text or "ut of memory" in text:
                messages.append(text)
    finally:
        os.close(log)
    return parse_oom_kills(messages)
