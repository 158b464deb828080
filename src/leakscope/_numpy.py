# SPDX-License-Identifier: Apache-2.0
"""Import numpy so that the threads it starts leave signals alone.

Its linear algebra keeps threads. While a program is traced, signals for it are awaited by one
thread and blocked in it otherwise; any other thread that does not block them would be given a
SIGTERM instead, and end us by it.
"""

from __future__ import annotations

import signal

_before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
try:
    import numpy as np  # noqa: F401
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before)
