# SPDX-License-Identifier: Apache-2.0
"""Suppressions in the syntaxes of LeakSanitizer and of valgrind, as people already have them.

LeakSanitizer: one `leak:PATTERN` a line. PATTERN is matched anywhere in the function, source
file or module of any frame; `*` matches any text, `^` and `$` anchor (the compiler-rt
documentation). Valgrind: blocks in braces whose frame lines (`fun:`, `obj:`, `src:`, `...`)
must match from the innermost frame outwards (valgrind manual 2.5); only blocks for
Memcheck:Leak apply. Both may stand in one file.

A comment `# until: 2027-03-01 why`, before a line or block or inside of the block, gives what
follows it a last day; other tools take it for a comment.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from leakscope.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.model.frames import Frame

__all__ = ["Glob", "Suppression", "load_suppressions", "parse_suppressions"]

_MOST_BYTES = 16 << 20
_UNTIL = re.compile(r"#+\s*until:\s*(\S+)(.*)", re.IGNORECASE)
_LEAK_KINDS = frozenset({"definite", "indirect", "possible", "reachable", "all", "none"})

_ALLOCATORS = re.compile(
    r"malloc|calloc|realloc|reallocarray|memalign|aligned_alloc|posix_memalign|valloc|pvalloc"
    r"|_Zn[wa].*|operator new.*|mmap(?:64)?|mremap|sbrk|brk"
)


class Glob:
    """A pattern in which `*` is any text and `?` any character; matching takes linear steps."""

    def __init__(self, pattern: str, *, question: bool = True) -> None:
        wild = "." if question else re.escape("?")
        self._parts = [
            re.compile("".join(wild if c == "?" else re.escape(c) for c in part), re.DOTALL)
            for part in pattern.split("*")
        ]
        self._tail = len(pattern.rsplit("*", 1)[-1])

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` fits."""
        first, *others = self._parts
        if not others:
            return first.fullmatch(text) is not None
        head = first.match(text)
        if head is None:
            return False
        at, end = head.end(), len(text) - self._tail
        # The earliest place for each part leaves the most room for the others.
        for part in others[:-1]:
            found = part.search(text, at, end) if end >= at else None
            if found is None:
                return False
            at = found.end()
        return end >= at and others[-1].match(text, end) is not None


@dataclass(frozen=True, slots=True)
class _Line:
    kind: str  # "fun", "obj", "src", "..."
    pattern: Glob | None

    def matches(self, frame: Frame) -> bool:
        if self.kind == "obj":
            texts = [frame.module_path]
        elif self.kind == "src":
            place = None if frame.file is None else f"{frame.file}:{frame.line}"
            base = None if frame.file is None else frame.file.rsplit("/", 1)[-1]
            texts = [frame.file, base, place, None if base is None else f"{base}:{frame.line}"]
        else:
            texts = [frame.symbol, frame.function, _bare(frame.function)]
        assert self.pattern is not None
        return any(text is not None and self.pattern.matches(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Suppression:
    """One rule; `lines` is empty for LeakSanitizer's syntax."""

    name: str
    source: str  # file:line
    anywhere: Glob | None = None
    lines: tuple[_Line, ...] = ()
    kinds: frozenset[str] = frozenset({"all"})
    until: str | None = None  # the last day on which it hides anything, "2027-03-01"
    why: str | None = None  # what stands behind that
    expired: bool = False

    def matches(self, stack: Sequence[Frame], kind: str | None = None) -> bool:
        """Whether this rule hides the stack. `kind` is memcheck's leak kind, None when unknown."""
        if kind is not None and not self.kinds & {kind, "all"}:
            return False
        frames = [frame for frame in stack if not frame.artificial]
        if self.anywhere is not None:
            return any(
                text is not None and self.anywhere.matches(text)
                for frame in frames
                for text in (frame.function, frame.symbol, frame.file, frame.module_path)
            )
        # Valgrind's innermost frame is the allocator itself, which our stacks do not have.
        if _match(self.lines, frames):
            return True
        first = self.lines[0] if self.lines else None
        if first is None or first.kind == "...":
            return False
        allocator = first.kind == "obj" or any(
            first.pattern is not None and first.pattern.matches(name)
            for name in (
                "malloc",
                "calloc",
                "realloc",
                "memalign",
                "_Znwm",
                "_Znam",
                "mmap",
                "strdup",
            )
        )
        return allocator and len(self.lines) > 1 and _match(self.lines[1:], frames)


def load_suppressions(
    paths: Iterable[str | os.PathLike[str]], today: dt.date | None = None
) -> tuple[Suppression, ...]:
    """Read suppression files. Raises `UsageError` naming the file and line that is wrong.

    `today` is the day on which they are to hold, this day when it is None.
    """
    found: list[Suppression] = []
    for path in paths:
        try:
            text = _text_of(path)
        except OSError as error:
            raise UsageError(
                f"the suppressions {path} cannot be read: {error.strerror}",
                hint="Name a readable file in LeakSanitizer's or valgrind's syntax.",
            ) from error
        if len(text) > _MOST_BYTES:
            raise UsageError(f"the suppressions {path} are larger than 16 MiB")
        found += parse_suppressions(text, str(path), today)
    return tuple(found)


def _text_of(path: str | os.PathLike[str]) -> str:
    """Return the start of a regular file; of a pipe or a device nobody knows when it ends."""
    # Not blocking: opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(
                f"the suppressions {path} are not a regular file",
                hint="Name a readable file in LeakSanitizer's or valgrind's syntax.",
            )
        return file.read(_MOST_BYTES + 1)


def parse_suppressions(text: str, name: str, today: dt.date | None = None) -> list[Suppression]:
    """Parse one file's text; `name` is used in messages and in `Suppression.source`."""
    today = today or dt.datetime.now().astimezone().date()
    found: list[Suppression] = []
    until: _Until | None = None
    lines = enumerate(text.splitlines(), 1)
    for number, raw in lines:
        line = raw.strip()
        before = len(found)
        if not line:
            continue
        if line.startswith("#"):
            until = _until(line, number, name) or until
            continue
        if line == "{":
            block, inner = _block(lines, number, name)
            found += block
            until = inner or until
        elif line.startswith("leak:"):
            pattern = line.removeprefix("leak:").strip()
            if not pattern:
                raise _wrong(name, number, "there is no pattern after 'leak:'")
            found.append(Suppression(line, f"{name}:{number}", anywhere=_sanitizer(pattern)))
        elif re.match(r"[a-z_]+:", line):
            pass  # other sanitizers' suppressions live in the same files
        else:
            raise _wrong(
                name, number, f"{line[:60]!r} is neither 'leak:PATTERN' nor a valgrind block"
            )
        if until is not None:
            found[before:] = [_limited(each, until, today) for each in found[before:]]
            until = None
    return found


class _Until(NamedTuple):
    """A last day, and why there is one."""

    day: dt.date
    why: str | None


def _until(line: str, number: int, name: str) -> _Until | None:
    """Return what a comment says of a last day, None where it says nothing of it."""
    found = _UNTIL.match(line)
    if found is None:
        return None
    try:
        return _Until(dt.date.fromisoformat(found[1]), found[2].strip() or None)
    except ValueError:
        raise _wrong(name, number, f"{found[1][:40]!r} is no date such as 2027-03-01") from None


def _limited(rule: Suppression, until: _Until, today: dt.date) -> Suppression:
    return replace(rule, until=until.day.isoformat(), why=until.why, expired=today > until.day)


def _block(lines: enumerate[str], start: int, name: str) -> tuple[list[Suppression], _Until | None]:
    body: list[tuple[int, str]] = []
    until: _Until | None = None
    for number, raw in lines:
        line = raw.strip()
        if line == "}":
            break
        if line.startswith("#"):
            until = _until(line, number, name) or until
        elif line:
            body.append((number, line))
    else:
        raise _wrong(name, start, "the block that starts here has no closing '}'")
    if len(body) < 2:
        raise _wrong(name, start, "a block needs a name and a kind such as Memcheck:Leak")
    tools, _, kind = body[1][1].partition(":")
    if not kind:
        raise _wrong(name, body[1][0], f"{body[1][1][:60]!r} is no kind such as Memcheck:Leak")
    if kind.strip() != "Leak" or "Memcheck" not in [tool.strip() for tool in tools.split(",")]:
        return [], None
    kinds = frozenset({"all"})
    frames: list[_Line] = []
    for number, line in body[2:]:
        key, _, value = line.partition(":")
        value = value.strip()
        if line == "...":
            frames.append(_Line("...", None))
        elif key == "match-leak-kinds":
            kinds = frozenset(part.strip() for part in value.split(","))
            if not kinds <= _LEAK_KINDS:
                raise _wrong(
                    name, number, f"{', '.join(sorted(kinds - _LEAK_KINDS))} is no leak kind"
                )
        elif key in {"fun", "obj", "src"}:
            frames.append(_Line(key, Glob(value)))
        else:
            raise _wrong(name, number, f"{line[:60]!r} is no frame (fun:, obj:, src: or ...)")
    if not frames:
        raise _wrong(name, start, "the block has no frames, it would hide everything")
    return [Suppression(body[0][1], f"{name}:{start}", lines=tuple(frames), kinds=kinds)], until


def _match(lines: Sequence[_Line], frames: Sequence[Frame]) -> bool:
    """Match `lines` against the innermost frames, `...` standing for any number of them.

    The set of positions that can be reached, so that no pattern takes exponential time.
    """
    reached = {0}
    for line in lines:
        if line.kind == "...":
            reached = set(range(min(reached), len(frames) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(frames) and line.matches(frames[at])}
        if not reached:
            return False
    return True


def _sanitizer(pattern: str) -> Glob:
    front, back = pattern.startswith("^"), pattern.endswith("$")
    body = pattern[front : len(pattern) - back]
    return Glob(f"{'' if front else '*'}{body}{'' if back else '*'}", question=False)


def _bare(function: str | None) -> str | None:
    """The name without its parameters: people write `fun:serve` for C++ as well."""
    return None if function is None else re.sub(r"\(.*", "", function, flags=re.DOTALL)


def _wrong(name: str, number: int, why: str) -> UsageError:
    return UsageError(
        f"{name}:{number}: {why}",
        hint="Write LeakSanitizer's 'leak:PATTERN' or a valgrind block { name, Memcheck:Leak, frames }.",
    )
