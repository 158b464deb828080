# SPDX-License-Identifier: Apache-2.0
"""Regular expressions that are compiled when they are first used.

To compile one takes longer than to load the module that it is in, and a run that finds nothing
needs none of those that the engine tells functions and files apart with.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LatePattern"]


class LatePattern:
    """What `re.compile` returns for `text`, as far as it is used here, but compiled later."""

    __slots__ = ("findall", "fullmatch", "match", "search", "sub", "text")

    findall: Callable[[str], list[str]]
    fullmatch: Callable[[str], re.Match[str] | None]
    match: Callable[[str], re.Match[str] | None]
    search: Callable[[str], re.Match[str] | None]
    sub: Callable[[str, str], str]

    def __init__(self, text: str) -> None:
        self.text = text

    def __getattr__(self, name: str) -> object:
        """Compile: called for what is not there yet, so once."""
        if name not in LatePattern.__slots__ or name == "text":
            raise AttributeError(name)
        compiled = re.compile(self.text)
        for each in LatePattern.__slots__:
            if each != "text":
                setattr(self, each, getattr(compiled, each))
        return getattr(compiled, name)
