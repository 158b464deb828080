# SPDX-License-Identifier: Apache-2.0
"""Demangle Rust symbols: the v0 scheme (RFC 2603) and the older one in C++ clothes.

Pure and bounded: recursion, back references and the length of the result have limits, and
whatever does not parse gives None. Crate hashes and disambiguators are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["demangle_rust"]

_MAX_DEPTH = 128
_MAX_RESULT = 1 << 14
_MAX_STEPS = 1 << 15

_LEGACY = re.compile(r"_?_?ZN.*17h[0-9a-f]{16}E(?:\.[\w.$@]*)?\Z", re.DOTALL)
_LEGACY_ESCAPES = {
    "SP": "@",
    "BP": "*",
    "RF": "&",
    "LT": "<",
    "GT": ">",
    "LP": "(",
    "RP": ")",
    "C": ",",
}
_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")

_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8",
    "i": "isize", "j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_",
    "s": "i16", "t": "u16", "u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip


def demangle_rust(symbol: str) -> str | None:
    """Return the readable name, None when `symbol` is not a Rust one."""
    try:
        if symbol.startswith("_R"):
            return _V0(symbol[2:].split(".", 1)[0]).symbol()
        if _LEGACY.match(symbol):
            return _legacy(symbol[symbol.index("ZN") + 2 :])
    except (_NotRustError, IndexError, ValueError, OverflowError):
        pass
    return None


class _NotRustError(Exception):
    pass


def _legacy(text: str) -> str | None:
    parts = []
    at = 0
    while text[at] != "E":
        start = at
        while text[at].isdecimal():
            at += 1
        size = int(text[start : min(at, start + 6)])
        if size == 0 or at + size > len(text):
            return None
        parts.append(text[at : at + size])
        at += size
    names = []
    for part in parts[:-1]:  # the last one is the hash
        plain = part[1:] if part.startswith("_$") else part
        names.append(_ESCAPE.sub(_unescape, plain.replace("..", "::")))
    return "::".join(names)


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    return _LEGACY_ESCAPES.get(code) or chr(int(code[1:], 16))


class _V0:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.steps = 0
        self.size = 0
        self.bound = 0  # lifetimes bound by the binders around

    def symbol(self) -> str:
        if not self.text.isascii() or self.text[0].isdecimal():
            raise _NotRustError  # an encoding version of the future
        name = self.path(value=True)
        if len(name) > _MAX_RESULT:
            raise _NotRustError
        return name

    # Reading

    def next(self) -> str:
        char = self.text[self.at]
        self.at += 1
        return char

    def eat(self, char: str) -> bool:
        if self.at < len(self.text) and self.text[self.at] == char:
            self.at += 1
            return True
        return False

    def base62(self) -> int:
        if self.eat("_"):
            return 0
        value = 0
        while True:
            char = self.next()
            if char == "_":
                return value + 1
            digit = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".index(char)
            value = value * 62 + digit
            if value > 1 << 64:
                raise _NotRustError

    def disambiguator(self) -> int:
        return self.base62() + 1 if self.eat("s") else 0

    def identifier(self) -> str:
        coded = self.eat("u")
        start = self.at
        if not self.eat("0"):
            while self.text[self.at].isdecimal():
                self.at += 1
        size = int(self.text[start : self.at][:6])
        self.eat("_")
        if self.at + size > len(self.text):
            raise _NotRustError
        name = self.text[self.at : self.at + size]
        self.at += size
        if coded:
            name = "-".join(name.rsplit("_", 1)).encode().decode("punycode")
        return name

    def enter(self) -> None:
        self.depth += 1
        self.steps += 1
        if self.depth > _MAX_DEPTH or self.steps > _MAX_STEPS:
            raise _NotRustError

    def checked(self, text: str) -> str:
        self.depth -= 1
        if len(text) > _MAX_RESULT:
            raise _NotRustError
        return text

    def back(self, parse: Callable[[], str]) -> str:
        target = self.base62()
        if target >= self.at - 2:
            raise _NotRustError
        saved, self.at = self.at, target
        text = parse()
        self.at = saved
        return text

    # Grammar

    def path(self, *, value: bool) -> str:
        self.enter()
        kind = self.next()
        if kind == "C":
            self.disambiguator()
            text = self.identifier()
        elif kind == "M":
            self.impl_path()
            text = f"<{self.type()}>"
        elif kind == "X":
            self.impl_path()
            own = self.type()
            text = f"<{own} as {self.path(value=False)}>"
        elif kind == "Y":
            own = self.type()
            text = f"<{own} as {self.path(value=False)}>"
        elif kind == "N":
            text = self.nested(value)
        elif kind == "I":
            outer = self.path(value=value)
            arguments = ", ".join(self.until_end(self.generic))
            text = f"{outer}{'::' if value else ''}<{arguments}>"
        elif kind == "B":
            text = self.back(lambda: self.path(value=value))
        else:
            raise _NotRustError
        return self.checked(text)

    def nested(self, value: bool) -> str:
        space = self.next()
        outer = self.path(value=value)
        number = self.disambiguator()
        name = self.identifier()
        if space.isupper():
            what = {"C": "closure", "S": "shim"}.get(space, space)
            return f"{outer}::{{{what}{':' if name else ''}{name}#{number}}}"
        return f"{outer}::{name}" if name else outer

    def impl_path(self) -> None:
        self.disambiguator()
        self.path(value=False)

    def until_end(self, parse: Callable[[], str]) -> list[str]:
        found = []
        while not self.eat("E"):
            found.append(parse())
            if len(found) > 1024:
                raise _NotRustError
        return found

    def generic(self) -> str:
        if self.eat("L"):
            return self.lifetime(self.base62())
        if self.eat("K"):
            return self.const()
        return self.type()

    def lifetime(self, index: int) -> str:
        if index == 0:
            return "'_"
        number = self.bound - index
        if number < 0:
            raise _NotRustError
        return f"'{chr(ord('a') + number)}" if number < 26 else f"'_{number}"

    def binder(self) -> tuple[str, int]:
        if not self.eat("G"):
            return "", 0
        count = self.base62() + 1
        if count > 64:
            raise _NotRustError
        self.bound += count
        names = ", ".join(self.lifetime(count - i) for i in range(count))
        return f"for<{names}> ", count

    def type(self) -> str:
        self.enter()
        kind = self.next()
        basic = _BASIC.get(kind)
        if basic is not None:
            text = basic
        elif kind == "A":
            item = self.type()
            text = f"[{item}; {self.const()}]"
        elif kind == "S":
            text = f"[{self.type()}]"
        elif kind == "T":
            items = self.until_end(self.type)
            text = f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        elif kind in "RQ":
            index = self.base62() if self.eat("L") else 0
            life = f"{self.lifetime(index)} " if index else ""
            text = f"&{life}{'mut ' if kind == 'Q' else ''}{self.type()}"
        elif kind in "PO":
            text = f"*{'const' if kind == 'P' else 'mut'} {self.type()}"
        elif kind == "F":
            text = self.function()
        elif kind == "D":
            text = self.dynamic()
        elif kind == "B":
            text = self.back(self.type)
        else:
            self.at -= 1
            text = self.path(value=False)
        return self.checked(text)

    def function(self) -> str:
        prefix, count = self.binder()
        if self.eat("U"):
            prefix += "unsafe "
        if self.eat("K"):
            abi = "C" if self.eat("C") else self.identifier().replace("_", "-")
            prefix += f'extern "{abi}" '
        text = f"{prefix}fn({', '.join(self.until_end(self.type))})"
        result = self.type()
        self.bound -= count
        return text if result == "()" else f"{text} -> {result}"

    def dynamic(self) -> str:
        prefix, count = self.binder()
        text = f"dyn {prefix}{' + '.join(self.until_end(self.dynamic_trait))}"
        self.bound -= count
        if not self.eat("L"):
            raise _NotRustError
        index = self.base62()
        return f"{text} + {self.lifetime(index)}" if index else text

    def dynamic_trait(self) -> str:
        text = self.path(value=False)
        bindings = []
        while self.eat("p"):
            name = self.identifier()
            bindings.append(f"{name} = {self.type()}")
        if not bindings:
            return text
        if text.endswith(">"):
            return f"{text[:-1]}, {', '.join(bindings)}>"
        return f"{text}<{', '.join(bindings)}>"

    def const(self) -> str:
        self.enter()
        kind = self.next()
        if kind == "p":
            return self.checked("_")
        if kind == "B":
            return self.checked(self.back(self.const))
        if kind not in "abchijlmnostxy":
            raise _NotRustError  # strings, references and structures: not worth it
        negative = self.eat("n")
        end = self.text.index("_", self.at)
        digits, self.at = self.text[self.at : end], end + 1
        number = int(digits or "0", 16)
        if kind == "b":
            text = "true" if number else "false"
        elif kind == "c":
            text = repr(chr(number))
        else:
            text = f"{'-' if negative else ''}{number}"
        return self.checked(text)
