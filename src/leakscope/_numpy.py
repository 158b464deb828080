# SPDX-License-Identifier: Apache-2.0
"""Import numpy so that the threads it starts leave signals alone.

Its linear algebra keeps threads. While a program is traced, signals for it are awaited by one
thread and blocked in it otherwise; any other thread that does not block them would be given a
SIGTERM instead, and end us by it. We need none of those threads, and to start them takes a quarter
of the time of the import: one is asked for, unless the user said otherwise.
"""

from __future__ import annotations

import os
import signal

_THREADS = "OPENBLAS_NUM_THREADS"
_said = os.environ.get(_THREADS)
os.environ.setdefault(_THREADS, "1")
_before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
try:
    import numpy as np  # noqa: F401
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before)
    if _said is None:  # programs that we start find their environment as it was
        del os.environ[_THREADS]
