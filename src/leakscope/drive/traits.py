# SPDX-License-Identifier: Apache-2.0
"""What each tool can tell by its nature: why two of them say different things of one program."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Traits", "traits"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What a tool looks at. The sentences say what it leaves out, None where it does not."""

    looks: bool = False  # for pointers to each block
    lists_held: bool = True  # also what is not lost
    callers: int | None = None  # frames that it has of a stack; None: many
    only_new: bool = False
    rounds_up: bool = False  # sizes are those of its classes
    least: str | None = None  # what is too little to be listed
    late: bool = False  # came after the program's start


_TRAITS = {
    "valgrind": Traits(looks=True),
    "lsan": Traits(looks=True, lists_held=False),
    "massif": Traits(least="massif names only places with 0.1 % or more of what was held"),
    "dhat": Traits(),
    "mtrace": Traits(callers=1),
    "heaptrack": Traits(),
    "jemalloc": Traits(rounds_up=True),
    "gperftools": Traits(),
    "dmalloc": Traits(callers=1),
    "efence": Traits(lists_held=False),
    "leaktracer": Traits(callers=1, only_new=True),
    "libleak": Traits(late=True),
    "memleax": Traits(late=True),
    "bcc": Traits(late=True),
}


def traits(name: str) -> Traits:
    """Return what a tool of `drive.TOOLS` can tell."""
    return _TRAITS.get(name, Traits())
