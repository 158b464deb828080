# SPDX-License-Identifier: Apache-2.0
"""bcc's memleak, which the kernel runs: it needs root, and the headers of the running kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from leakscope._paths import exists, is_directory
from leakscope.drive.find import find_command
from leakscope.drive.setup import COMPANION, Setup
from leakscope.errors import TargetError, UsageError

if TYPE_CHECKING:
    from leakscope.drive.setup import Target

__all__ = ["PACKAGE", "set_up"]

PACKAGE = "bpfcc-tools"
_HEADERS_IN_KERNEL = "/sys/kernel/kheaders.tar.xz"
_INTERVAL_S = 1
_MOST_STACKS = 1000


def set_up(target: Target) -> Setup:
    """Attach it right after the start, and take its last interval."""
    if target.depth is not None or target.sample is not None:
        raise UsageError(
            "bcc's memleak samples by count and keeps 127 frames: no --sample, no --depth"
        )
    release = os.uname().release
    if os.geteuid() != 0:
        raise TargetError("bcc's memleak runs in the kernel, which takes root", hint="Use sudo.")
    if not is_directory(f"/lib/modules/{release}/build") and not exists(_HEADERS_IN_KERNEL):
        raise TargetError(
            f"bcc's memleak is compiled for the running kernel, {release}, and its headers are not"
            f" on this machine",
            hint=f"Install them: apt install linux-headers-{release}; or, without the kernel:"
            f" leakscope run -- {target.name}",
        )
    command = find_command("memleak-bpfcc", PACKAGE, tool_path=target.tool_path)
    return Setup(
        COMPANION,
        companion=(command, "-p", "{pid}", "-T", str(_MOST_STACKS), str(_INTERVAL_S)),
        log=COMPANION,
        notes=("memleak came after the start: what the program did until then was not seen",),
        follows_children=False,
    )
