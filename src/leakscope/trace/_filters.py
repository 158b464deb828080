# SPDX-License-Identifier: Apache-2.0
"""System call filters (seccomp) that leakscope itself lives under, and so does what it starts.

A program inherits them and cannot ask what they would do: a call that is not allowed may be
answered with an error or with death. So each kind of call that the agent makes is tried out in
a process of our own first.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from leakscope import _native

__all__ = ["inherited_filters"]

_PROBE = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).lss_make_calls()"
_PATIENCE_S = 20.0


def inherited_filters() -> tuple[int, bool]:
    """Return how many filters a program inherits from us, and whether the agent survives them."""
    try:
        text = Path("/proc/self/status").read_text("utf-8", "replace")
    except OSError:
        return 0, True
    if not re.search(r"^Seccomp:\s*2$", text, re.MULTILINE):
        return 0, True
    import subprocess

    count = re.search(r"^Seccomp_filters:\s*(\d+)$", text, re.MULTILINE)  # Linux 5.9
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-c", _PROBE, str(_native.path("libleakscope-scan.so"))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
        survives = tried.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        survives = False
    return int(count[1]) if count else 1, survives
