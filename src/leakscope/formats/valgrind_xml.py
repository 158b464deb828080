# SPDX-License-Identifier: Apache-2.0
"""The XML that valgrind's memcheck writes with --xml=yes, protocols 3 and 4, as recordings.

The file is not to be trusted: it is parsed in pieces, document types and entities are refused,
and depth, texts and stacks are bounded. It may hold several bodies behind one header (forks
with one --xml-file), end anywhere, and have bytes that are no UTF-8.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.parsers import expat

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._lines import number
from leakscope.formats._text import allocation_kind, frame
from leakscope.model.builder import MOST_ERRORS, RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process, Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.formats._file import ForeignFile
    from leakscope.model.builder import BuiltFrame

__all__ = ["read", "recognises"]

_ROOT = "valgrindoutput"
_OPENING, _CLOSING = f"<{_ROOT}>", f"</{_ROOT}>"
_COMMENT, _COMMENT_ENDS = "<usercomment>", "</usercomment>"
_MOST_DEPTH = 64
_MOST_TEXT = 1 << 16  # characters of one element
_MOST_DISTINCT = 1 << 20  # frames of one body
_MOST_SILENT = 64  # pieces that are one piece of markup

# Characters that XML 1.0 does not have; programs have them in names all the same.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_OWNED = re.compile(r"\(([\d,]{1,30}) direct, ([\d,]{1,30}) indirect\)")
_TIME = re.compile(r"(\d{1,6}):(\d\d):(\d\d):(\d\d)\.(\d{3})")
_VERSION = re.compile(r"Using Valgrind-(\S{1,40})")

_KINDS = {
    "Leak_DefinitelyLost": Reachability.DEFINITELY_LOST,
    "Leak_IndirectlyLost": Reachability.INDIRECTLY_LOST,
    "Leak_PossiblyLost": Reachability.POSSIBLY_LOST,
    "Leak_StillReachable": Reachability.REACHABLE,
}
_LOST = {Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST}


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is valgrind's XML."""
    return _OPENING.encode() in head


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each process in the file. Raises `RecordingError`."""
    bodies: list[_Body] = []
    header: _Body | None = None
    for parts in _bodies(file):
        body = _Body(file.path, header)
        body.parse(parts)
        if body.empty and header is not None:
            continue
        bodies.append(body)
        header = header if body.own_header is None else body
    if not bodies or (len(bodies) == 1 and bodies[0].empty):
        why = bodies[0].problem if bodies and bodies[0].problem else "it is empty"
        raise RecordingError(
            f"{file.path} is no report of valgrind: {why}",
            hint="Make it with valgrind --leak-check=full --xml=yes --xml-file=FILE.",
        )
    return tuple(
        _recording(body, shared=len(bodies) > 1, last=body is bodies[-1]) for body in bodies
    )


# ---- the text


def _bodies(file: ForeignFile) -> Iterator[Iterator[str]]:
    """Yield the text of each body, with an element of its own around it."""
    texts = _without_comment(_texts(file))
    rest, first = "", True
    while True:
        body = _BodyText(texts, rest, first=first)
        if not body.found:
            return
        yield iter(body)
        for _ in body:  # what a parser left over
            pass
        rest, first = body.rest, False


def _texts(file: ForeignFile) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in file.pieces():
        yield _NO_XML.sub("\ufffd", decoder.decode(piece))
    yield _NO_XML.sub("\ufffd", decoder.decode(b"", final=True))


def _without_comment(texts: Iterator[str]) -> Iterator[str]:
    """Yield the text without what --xml-user-comment asked for, which need be no XML."""
    text, inside = "", False
    for piece in texts:
        text += piece
        while True:
            tag = _COMMENT_ENDS if inside else _COMMENT
            before, found, after = text.partition(tag)
            if not found:
                break
            if not inside:
                yield before
            text, inside = after, not inside
        kept = len(tag) - 1
        if not inside:
            yield text[:-kept]
        text = text[-kept:]
    if not inside:
        yield text


class _BodyText:
    """The pieces of one body: from where it begins to its closing tag, or to the end."""

    def __init__(self, texts: Iterator[str], rest: str, *, first: bool) -> None:
        self._texts, self._text = texts, rest
        self.rest = ""
        self._done = False
        self.found = self._begin(first=first)
        self._pieces = self._split()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def _begin(self, *, first: bool) -> bool:
        """Go to the start of the body. Only the first, and a file appended to, has a header."""
        while not self._text.strip() or (_OPENING not in self._text and first):
            more = next(self._texts, None)
            if more is None:
                return False
            self._text += more
        self._text = self._text.lstrip()
        at = self._text.find(_OPENING)
        prolog = self._text[:at] if at >= 0 and "<status>" not in self._text[:at] else None
        if prolog is None:
            self._text = _OPENING + self._text
        else:
            # What stands before it is not parsed, but for what would give its texts a meaning.
            keep = re.search(r"<!(?:DOCTYPE|ENTITY)", prolog)
            self._text = self._text[keep.start() if keep else at :]
        return True

    def _split(self) -> Iterator[str]:
        kept = len(_CLOSING) - 1
        while True:
            at = self._text.find(_CLOSING)
            if at >= 0:
                end = at + len(_CLOSING)
                self.rest = self._text[end:]
                yield self._text[:end]
                return
            ready, self._text = self._text[:-kept], self._text[-kept:]
            if ready:
                yield ready
            more = next(self._texts, None)
            if more is None:
                yield self._text
                return
            self._text += more


# ---- one body


@dataclass(slots=True)
class _Frame:
    ip: int | None = None
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Record:
    """One leak record."""

    kind: Reachability
    size: int  # direct bytes
    owned: int | None  # bytes that are lost with them
    blocks: int
    stack: list[_Frame]
    cut: bool
    after_end: bool  # not from a leak check that the program asked for


class _Error:
    """An <error> while it is read."""

    def __init__(self) -> None:
        self.kind = ""
        self.what = ""
        self.size = self.blocks = 0
        self.stack: list[_Frame] | None = None
        self.stacks = 0
        self.cut = False


class _Body:
    """What one process wrote, read by a parser of its own."""

    def __init__(self, path: str, header: _Body | None) -> None:
        self._path = path
        self._before = header
        self._open: list[str] = []
        self._text: list[str] = []
        self._length = 0
        self._error: _Error | None = None
        self._frame: _Frame | None = None
        self._known: dict[tuple[object, ...], _Frame] = {}
        self._silent = 0
        self._state = ""
        self.own_header: dict[str, str] | None = None
        self.lines: list[str] = []
        self.valgrind_args: list[str] = []
        self.exe: str | None = None
        self.records: list[_Record] = []
        self.others: Counter[str] = Counter()
        self.errors: list[tuple[str, str, list[_Frame]]] = []
        self.suppressed = 0
        self.finished = False
        self.duration_ns: int | None = None
        self.problem: str | None = None
        self.left_out = 0

    @property
    def empty(self) -> bool:
        """Whether nothing of a report was in it."""
        return not (self.own_header or self.lines or self.records or self.others or self._state)

    @property
    def head(self) -> _Body:
        """The body whose header is this one's."""
        return self if self.own_header is not None or self._before is None else self._before

    def parse(self, parts: Iterator[str]) -> None:
        """Read the body; what is wrong with it is in `problem`, and the rest is kept."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.CommentHandler = self._moved
        parser.ProcessingInstructionHandler = self._moved
        try:
            for part in parts:
                self._silent += 1
                parser.Parse(part, False)
                if self._silent > _MOST_SILENT:  # the parser keeps what it cannot end
                    raise RecordingError(f"{self._path} is no report of valgrind: no tag ends")
            parser.Parse("", True)
        except expat.ExpatError as error:
            cut = error.code == expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS] or (
                self._open and not _has_more(parts)
            )
            self.problem = (
                "it ends too early" if cut else f"it is no XML from line {error.lineno} on"
            )

    def _moved(self, *_: object) -> None:
        self._silent = 0

    def _refuse(self, *_: object) -> None:
        raise RecordingError(
            f"{self._path} declares a document type or entities, which valgrind never writes",
            hint="It is not read: such declarations are used for attacks.",
        )

    def _start(self, name: str, _: dict[str, str]) -> None:
        if len(self._open) >= _MOST_DEPTH:
            raise RecordingError(f"{self._path} is no report of valgrind: elements lie too deep")
        self._open.append(name)
        self._silent = 0
        self._text.clear()
        self._length = 0
        where = self._open[-2:-1]
        if name == "error" and where == [_ROOT]:
            self._error = _Error()
        elif self._error is not None and name == "stack" and where == ["error"]:
            self._error.stacks += 1
            if self._error.stacks == 1:
                self._error.stack = []
        elif name == "frame" and where == ["stack"]:
            self._frame = _Frame()

    def _data(self, text: str) -> None:
        self._silent = 0
        if self._length < _MOST_TEXT:
            self._text.append(text[: _MOST_TEXT - self._length])
            self._length += len(text)

    def _end(self, name: str) -> None:
        self._silent = 0
        text = "".join(self._text).strip()
        self._text.clear()
        self._open.pop()
        parent = self._open[-1] if self._open else ""
        if self._frame is not None:
            self._in_frame(name, text)
        elif self._error is not None:
            self._in_error(name, parent, text)
        elif parent == _ROOT and name in {"pid", "ppid", "tool"}:
            self.own_header = {**(self.own_header or {}), name: text[:200]}
        elif parent == "preamble" and name == "line":
            self.lines.append(text)
            del self.lines[100:]
        elif parent == "vargv" and name == "arg":
            self.valgrind_args.append(text)
            del self.valgrind_args[10_000:]
        elif parent == "argv" and name == "exe":
            self.exe = text or None
        elif parent == "status":
            self._in_status(name, text)
        elif parent == "pair" and name == "count" and "suppcounts" in self._open:
            self.suppressed += number(text) or 0

    def _in_status(self, name: str, text: str) -> None:
        if name == "state":
            self._state = text
            self.finished = self.finished or text == "FINISHED"
        elif name == "time" and self._state == "FINISHED" and (found := _TIME.search(text)):
            days, hours, minutes, seconds, ms = (int(each) for each in found.groups())
            self.duration_ns = (
                (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + ms
            ) * 1_000_000

    def _in_frame(self, name: str, text: str) -> None:
        frame, error = self._frame, self._error
        assert frame is not None
        if name == "ip":
            frame.ip = number(text, 16)
        elif name in {"obj", "fn", "dir", "file", "line"}:
            frame.texts.setdefault(name, text)
        elif name == "frame":
            self._frame = None
            if error is not None and error.stacks == 1 and error.stack is not None:
                self._keep(frame, error, error.stack)

    def _keep(self, frame: _Frame, error: _Error, stack: list[_Frame]) -> None:
        """Add a frame to the stack; most are in many stacks and kept once."""
        key = (frame.ip, *sorted(frame.texts.items()))
        known = self._known.get(key)
        if known is None and len(self._known) < _MOST_DISTINCT:
            known = self._known[key] = frame
        if known is None or len(stack) >= MOST_FRAMES:
            error.cut = True
        else:
            stack.append(known)

    def _in_error(self, name: str, parent: str, text: str) -> None:
        error = self._error
        assert error is not None
        if parent == "error" and name == "kind":
            error.kind = text[:200]
        elif (parent == "xwhat" and name == "text") or (parent == "error" and name == "what"):
            error.what = text
        elif parent == "xwhat" and name == "leakedbytes":
            error.size = number(text) or 0
        elif parent == "xwhat" and name == "leakedblocks":
            error.blocks = number(text) or 0
        elif name == "error" and parent == _ROOT:
            self._error = None
            self._take(error)

    def _take(self, error: _Error) -> None:
        kind = _KINDS.get(error.kind)
        if kind is None:
            if len(self.others) < 1000 or error.kind in self.others:
                self.others[error.kind or "no kind"] += 1
            if len(self.errors) < MOST_ERRORS:
                kind_name = error.kind or "no kind"
                self.errors.append((kind_name, error.what[:4096] or kind_name, error.stack or []))
            return
        if len(self.records) >= MOST_RECORDS:
            self.left_out += 1
            return
        direct, owned = error.size, None
        found = _OWNED.search(error.what)
        if found is not None and kind is Reachability.DEFINITELY_LOST:
            parts = [number(each.replace(",", "")) or 0 for each in found.groups()]
            # The total has what is lost with it, and that has records of its own.
            if sum(parts) == error.size:
                direct, owned = parts
        self.records.append(
            _Record(kind, direct, owned, error.blocks, error.stack or [], error.cut, self.finished)
        )


def _has_more(parts: Iterator[str]) -> bool:
    return any(part.strip() for part in parts)


# ---- the recording


def _recording(body: _Body, *, shared: bool, last: bool) -> Recording:
    """Make the recording of a body; `shared` tells that the file holds several."""
    head = body.head
    header = head.own_header or {}
    own = not shared or last  # the header is the parent's, whose body comes last
    build = RecordingBuilder(
        Process(
            pid=_pid(header.get("pid")) if own else None,
            ppid=_pid(header.get("ppid")) if own else None,
            exe=head.exe,
            ended="exited" if body.finished else None,
        ),
        _coverage(body, head, own=own),
        duration_ns=body.duration_ns,
    )
    for record in _current(body.records):
        kind, frames = _stack(record.stack)
        node = build.stack(frames, truncated=record.cut)
        site = build.site(node, kind, live_bytes=record.size, live_count=record.blocks)
        build.reach(site, record.kind, record.blocks, record.size)
    for name, text, stack in body.errors:
        build.error(name, text, [b for one in stack if (b := _built(one)) is not None])
    if _was_checked(body, _tool(head)):
        build.reach_is_known()
    return build.build()


def _current(records: list[_Record]) -> list[_Record]:
    """The records of the last check: the program may have asked for others before its end."""
    at_end = [record for record in records if record.after_end]
    return at_end or records


def _pid(text: str | None) -> int | None:
    return number(text) if text else None


def _stack(frames: list[_Frame]) -> tuple[str, list[BuiltFrame]]:
    """Return the kind of the allocation, and its stack without valgrind's own frames."""
    kind = "malloc"
    inner = list(itertools.takewhile(_is_valgrinds, frames))
    if inner:
        kind = allocation_kind(inner[-1].texts.get("fn", ""))
    return kind, [built for frame in frames[len(inner) :] if (built := _built(frame)) is not None]


def _is_valgrinds(frame: _Frame) -> bool:
    module = frame.texts.get("obj", "").rsplit("/", 1)[-1]
    return module.startswith("vgpreload_") or frame.texts.get("file") == "vg_replace_malloc.c"


def _built(told: _Frame) -> BuiltFrame | None:
    texts = told.texts
    file = texts.get("file")
    if file and texts.get("dir") and not file.startswith("/"):
        file = f"{texts['dir'].rstrip('/')}/{file}"
    line = number(texts.get("line", ""))
    return frame(told.ip, texts.get("fn"), file, line, texts.get("obj"), exact=True)


def _tool(head: _Body) -> str:
    return (head.own_header or {}).get("tool") or "memcheck"


def _coverage(body: _Body, head: _Body, *, own: bool) -> Coverage:
    tool = _tool(head)
    found = next((m for line in head.lines if (m := _VERSION.search(line))), None)
    mode = f"valgrind {tool}" + (f" {found.group(1)}" if found else "")
    troubles, notes = [], []
    if not _was_checked(body, tool):
        troubles.append(NO_CHECK)
        notes.append(_why_unchecked(body, tool))
    elif body.problem is not None or not body.finished:
        notes.append(f"the report is not whole: {body.problem or 'it has no end'}")
    if not own:
        notes.append("one of several processes in this file; which one is not told there")
    notes += _other_notes(body)
    return Coverage(mode=mode, troubles=tuple(troubles), notes=tuple(notes))


def _was_checked(body: _Body, tool: str) -> bool:
    """Whether something says that valgrind looked for leaks, and told of each.

    What is lost stays so, whatever is missing behind it.
    """
    if any(record.kind in _LOST for record in body.records):
        return True
    if tool != "memcheck" or not body.finished or body.problem is not None:
        return False
    asked = [arg for arg in body.head.valgrind_args if arg.startswith("--leak-check=")]
    full = bool(asked) and asked[-1] in {"--leak-check=full", "--leak-check=yes"}
    return full or bool(body.records)


def _why_unchecked(body: _Body, tool: str) -> str:
    if tool != "memcheck":
        return f"valgrind's {tool} does not look for leaks; memcheck does"
    if not body.finished or body.problem is not None:
        why = body.problem or "it has no end"
        return f"the program was killed, or the file cut, before the leak check ended: {why}"
    return "valgrind was not asked to list leaks: run it with --leak-check=full"


def _other_notes(body: _Body) -> list[str]:
    notes = []
    listed = sum(r.size for r in body.records if r.kind is Reachability.INDIRECTLY_LOST)
    owned = sum(r.owned or 0 for r in body.records)
    if owned > listed:
        notes.append(
            f"{owned - listed:,} more bytes are lost with the blocks that owned them; valgrind lists"
            " them with --show-leak-kinds=all"
        )
    kinds = {record.kind for record in body.records}
    if body.records and Reachability.REACHABLE not in kinds:
        notes.append("what is still reachable is not in this report")
    if body.others:
        every = sum(body.others.values())
        names = ", ".join(f"{count} {kind}" for kind, count in body.others.most_common(5))
        more = ", ..." if len(body.others) > 5 else ""
        noun = "error in this report is" if every == 1 else "errors in this report are"
        notes.append(f"{every} other {noun} no leak: {names}{more}")
    if body.suppressed:
        notes.append(f"valgrind's own suppressions hid errors {body.suppressed:,} times")
    if body.left_out:
        notes.append(f"{body.left_out:,} leak records beyond {MOST_RECORDS:,} were not read")
    return notes
