# SPDX-License-Identifier: Apache-2.0
"""Values of options, as argparse takes them: it shows what is wrong with one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["address_value", "exit_code_value", "size_value", "whole_number", "words_value"]


def address_value(text: str) -> int:
    """Return an address in memory. Raises `UsageError`."""
    try:
        value = int(text[:32], 16)
    except ValueError:
        value = -1
    if not 0 < value < 1 << 64:
        raise UsageError(
            f"{text[:40]!r} is no address", hint="Such as 0xffff888002e02000 in a report."
        )
    return value


def whole_number(text: str) -> int:
    """Return a whole number."""
    if not is_number(text) or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def exit_code_value(text: str) -> int:
    """Return an exit status."""
    number = whole_number(text)
    if number > 255:
        raise argparse.ArgumentTypeError(f"an exit status is between 0 and 255, not {number}")
    return number


def size_value(text: str) -> int:
    """Return bytes from a size with a unit."""
    from leakscope.trace.settings import parse_size

    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error}") from error


def words_value(text: str, known: Collection[str]) -> frozenset[str]:
    """Return words with commas between, each of them one of `known`."""
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if word not in known]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(known)}")
    return frozenset(words)
