# SPDX-License-Identifier: Apache-2.0
"""Where the system keeps the allocators that programs bring along."""

from pathlib import Path

import pytest

FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib")
NAMES = ("libjemalloc", "libtcmalloc_minimal")


def library(name):
    """Return the path of the allocator's library; skip the test where it is not installed."""
    found = (p for folder in FOLDERS for p in sorted(Path(folder).glob(f"{name}.so.*")))
    path = next(found, None)
    if path is None:
        pytest.skip(f"{name} is not installed; tools/setup-debian --test does it")
    return path
