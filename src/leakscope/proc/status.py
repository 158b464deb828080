# SPDX-License-Identifier: Apache-2.0
"""Who a process is and what it may do, from /proc/PID/status."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leakscope.errors import TargetError
from leakscope.proc.process import living_task

__all__ = [
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "ProcessStatus",
    "read_status",
]

_OF_PROCESS = ("Pid", "Name")
CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 19, 21, 38, 39


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """The fields of /proc/PID/status that decide what can be done to a process."""

    pid: int
    name: str  # at most 15 characters, as the kernel keeps it
    state: str  # one letter: R S D T t Z X I
    parent: int
    tracer: int  # pid of the debugger, 0: none
    uid: int  # real
    euid: int
    gid: int
    egid: int
    capabilities: int  # effective, as a bit set
    no_new_privs: bool
    seccomp: int  # 0 off, 1 strict, 2 filter

    def can(self, capability: int) -> bool:
        """Whether the process holds this capability."""
        return bool(self.capabilities >> capability & 1)


def read_status(pid: int | str = "self") -> ProcessStatus:
    """Return the status of `pid`. Raises `TargetError` when there is no such process.

    Of a process whose first thread has ended it is that of another one.
    """
    fields = _fields(pid)
    if isinstance(pid, int) and fields["State"].strip()[:1] in {"Z", "X"}:
        # Its first thread has ended: another one is what goes on.
        task = living_task(pid)
        fields |= {key: value for key, value in _fields(task).items() if key not in _OF_PROCESS}
    uid, euid = fields["Uid"].split()[:2]
    gid, egid = fields["Gid"].split()[:2]
    return ProcessStatus(
        pid=int(fields["Pid"]),
        name=fields["Name"].strip(),
        state=fields["State"].strip()[:1],
        parent=int(fields["PPid"]),
        tracer=int(fields["TracerPid"]),
        uid=int(uid),
        euid=int(euid),
        gid=int(gid),
        egid=int(egid),
        capabilities=int(fields["CapEff"], 16),
        no_new_privs=fields.get("NoNewPrivs", "0").strip() == "1",
        seccomp=int(fields.get("Seccomp", "0")),
    )


def _fields(pid: int | str) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"there is no process {pid}") from None
    return dict(line.split(":", 1) for line in text.split("\n") if ":" in line)
