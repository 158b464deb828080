# SPDX-License-Identifier: Apache-2.0
"""What a source may add to the name of a kind of allocation, in brackets behind it.

Such memory grows without being a leak on this evidence; `leakscope.judge.kernel_kinds` says why.
"""

from __future__ import annotations

__all__ = ["FREES_UNSEEN", "LEVEL", "RECLAIMABLE"]

RECLAIMABLE = " (reclaimable)"
LEVEL = " (level)"
FREES_UNSEEN = " (frees unseen)"
