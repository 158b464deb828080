# SPDX-License-Identifier: Apache-2.0
"""Where code is: modules, addresses inside them, and the source lines they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = [
    "Address",
    "Code",
    "Frame",
    "FrameName",
    "Module",
    "Origin",
    "is_system_path",
    "plain_name",
]

_SYSTEM = re.compile(
    r"/(?:usr/(?:local/)?)?(?:lib(?:64|32|exec)?|s?bin)/|/nix/store/|/snap/|/gnu/store/"
)

# The name of an operator, with the blank before its template arguments; no group: a conversion.
_OPERATOR = re.compile(
    r"(?<![\w$])operator(?![\w$])(?:( ?(?:\(\)|\[\]|<=>|->\*?|<<=?|>>=?|\+\+|--|&&|\|\|"
    r"|[-+*/%^&|=!<>]=|[-+*/%^&|=!<>~,]|\"\" ?\w+|(?:new|delete)(?:\[\])?(?!\w)|co_await(?!\w)))"
    r"(?: (?=<))?|(?= ))"
)
_CLOSES = {"<": ">", "(": ")", "{": "}"}


@dataclass(frozen=True, slots=True)
class Module:
    """An ELF object as it was mapped in the traced process.

    `start`, `end` are run-time addresses; `bias` is run-time address minus ELF virtual
    address. `build_id` is lower-case hex or None when the object has none.
    `unloaded` tells that it was gone (dlclose) before the recording ended.
    """

    path: str
    build_id: str | None
    start: int
    end: int
    bias: int
    unloaded: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """An instruction in a module, independent of address-space randomisation.

    `module` indexes `Recording.modules`, None when the address lies in no known module;
    `offset` is then the absolute address, else the ELF virtual address. `exact` is False
    for return addresses: the call is at `offset - 1`.
    """

    module: int | None
    offset: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class FrameName:
    """What a source calls a frame that it names itself: a foreign file, an interpreter, a kernel.

    Fields that the source does not have are None. `class_name` is the class that a method belongs
    to, `interpreter` what runs the code ("java", "python"), None for machine code.
    """

    function: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    symbol: str | None = None
    module_path: str | None = None
    class_name: str | None = None
    interpreter: str | None = None
    inlined: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """On whose word a source file is named, and whose root directory its name belongs to.

    `authors` are user numbers; the file is to be shown when all of them may read it. `root` is
    such as /proc/PID/root, None where names mean what they mean to us.
    """

    authors: frozenset[int] = frozenset()
    root: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One function activation, innermost inlined function first when an address has several.

    `address` is None where the source gave a name and no address. Fields that nobody could determine are None. `function` is demangled, `symbol` is the
    name in the symbol table. `inlined` is True for a frame inlined into the next one.
    `artificial` is reserved for placeholder frames such as a truncated stack. `entry` is the ELF
    virtual address of the function's first instruction, where only that is known of it.
    """

    address: Address | None
    module_path: str | None = None
    build_id: str | None = None
    function: str | None = None
    symbol: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    inlined: bool = False
    artificial: bool = False
    entry: int | None = None
    class_name: str | None = None
    interpreter: str | None = None
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """Return such as "parse(int) at /src/app.cc:8"; what is not known is left out."""
        where = f"{self.address.offset:#x}" if self.address is not None else "?"
        name = self.function or self.symbol or where
        if self.file is None:
            return f"{name} in {self.module_path}" if self.module_path else name
        return f"{name} at {self.file}" + (f":{self.line}" if self.line is not None else "")


@dataclass(frozen=True, slots=True)
class Code:
    """What is known of the function that a frame is in. None: nobody knows.

    `returns` is "nothing", "bytes" (void *, char *), "object" (another pointer, a class) or
    "value"; `size` is that of its machine code in bytes, None for an inlined function.
    """

    returns: str | None = None
    size: int | None = None


@lru_cache(maxsize=1 << 14)
def plain_name(function: str) -> str:
    """`std::vector<A> util::make<A>(int) const` is util::make<A>.

    Operators, lambdas and local classes keep the brackets that are part of their names:
    `int f(int)::{lambda(int)#1}::operator()(int) const` is f(int)::{lambda(int)#1}::operator().
    """
    start, end, at = 0, len(function), 0
    open_: list[str] = []  # what closes the brackets that are open
    while at < len(function):
        letter = function[at]
        if letter == "o" and (operator := _OPERATOR.match(function, at)) is not None:
            at = operator.end()
            if (
                operator[1] is None and not open_
            ):  # a conversion: its type goes on to the parameters
                found = function.find("(", at)
                end = found if found >= 0 else end
                break
            continue
        if open_:
            if letter == open_[-1]:
                open_.pop()
            elif letter in _CLOSES:
                open_.append(_CLOSES[letter])
        elif letter == "(":
            if function[at - 1 : at] == " " and function[at + 1 : at + 2] in ("*", "&"):
                break  # it returns a pointer to a function
            behind = _behind(function, at)
            if behind is None:
                end = at
                break
            if function[at - 1 : at] == " " and not function.startswith("decltype (", at - 9):
                start = at
            at = behind
            continue
        elif letter in "<{":
            open_.append(_CLOSES[letter])
        elif letter == " " and function[at + 1 : at + 2] != "(":
            start = at + 1
        at += 1
    return function[start:end].rstrip().lstrip("*&") or function


def _behind(function: str, at: int) -> int | None:
    """Return the end of brackets that are part of a name, None where they are its parameters.

    They are of a function in which something is (`f(int)::X`), of Go's receivers (`main.(*T).f`),
    of C++'s `(anonymous namespace)` and `decltype (…)`.
    """
    depth = 0
    for place in range(at, len(function)):
        depth += (function[place] == "(") - (function[place] == ")")
        if depth == 0:
            rest = function[place + 1 :]
            if rest.startswith(" const::"):
                return place + 7
            part = rest.startswith("::")
            go = function[at - 1 : at] == "." and function[at + 1] == "*"
            if part or go or function.startswith("decltype (", at - 9 if at > 8 else 0):
                return place + 1
            return place + 1 if function.startswith("(anonymous", at) else None
    return None


def is_system_path(path: str) -> bool:
    """Whether an installed program or library has this path, rather than one that is worked on."""
    return _SYSTEM.match(path) is not None
