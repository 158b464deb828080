# SPDX-License-Identifier: Apache-2.0
"""Names of C++ classes from the names in their type information, which no strip removes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.symbols._demangle import demangle

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_class_names"]

_PREFIX = "_ZTS"
_READABLE = "typeinfo name for "


def read_class_names(names: Iterable[str]) -> dict[str, str]:
    """Return by name in type information ("7Request") that of the class ("Request").

    Those that are no such names are left out.
    """
    wanted = {_PREFIX + name.removeprefix("*"): name for name in names}
    return {
        wanted[symbol]: text.removeprefix(_READABLE)
        for symbol, text in demangle(wanted).items()
        if text.startswith(_READABLE)
    }
