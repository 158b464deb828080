# SPDX-License-Identifier: Apache-2.0
"""Kinds of kernel memory that grow without being a leak: the remark of the source says it."""

from __future__ import annotations

from leakscope.model.remarks import FREES_UNSEEN, LEVEL, OF_TASKS, RECLAIMABLE

__all__ = ["quiet_kind"]

_REASONS = {
    RECLAIMABLE: "reclaimable: the kernel takes it back when memory is short",
    LEVEL: "level: the kernel's own count of this cache did not grow with it",
    OF_TASKS: "of tasks: no more than processes and threads that are alive have, and goes with them",
    FREES_UNSEEN: "frees unseen: its objects go by ways that no event tells of (RCU, in bulk)",
}


def quiet_kind(kind: str) -> str | None:
    """Return why what grows in a kind is no leak on this evidence, None when nothing says so."""
    return next((why for remark, why in _REASONS.items() if kind.endswith(remark)), None)
