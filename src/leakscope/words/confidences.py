# SPDX-License-Identifier: Apache-2.0
"""Probabilities in words."""

from __future__ import annotations

__all__ = ["confidence_words"]

_WORDS = (
    (0.99, "almost certain"),
    (0.95, "very likely"),
    (0.85, "likely"),
    (0.6, "possible"),
)


def confidence_words(confidence: float) -> str:
    """Say a probability in the words that every report uses (docs/verdicts.md has the table)."""
    for floor, words in _WORDS:
        if confidence >= floor:
            return words
    return "only a suspicion"
