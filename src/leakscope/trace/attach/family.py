# SPDX-License-Identifier: Apache-2.0
"""A process that is attached to, and its descendants with it: each by an attach of its own.

A forked child inherits the jumps of its parent and none of its recording. It is given its functions
back and attached to anew, once it has lived for a moment; a program that one of them runs is attached to
when its loader is done. Who was not attached to is counted with the reason.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from leakscope.errors import LeakscopeError, TargetError
from leakscope.proc.maps import read_maps
from leakscope.proc.process import children_of, pids, read_name, read_start
from leakscope.proc.status import read_status
from leakscope.trace.attach.births import Births, open_births
from leakscope.trace.attach.detach import Removed, remove
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.kin import has_same_memory, is_at_work, is_loading
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakscope.model.recordings import Recording
    from leakscope.trace.attach.inject import Wishes
    from leakscope.trace.attach.island import Attached
    from leakscope.trace.attach.plan import Plan

__all__ = ["MOST_AT_ONCE", "Family", "Missed"]

MOST_AT_ONCE = 32
_HEARD_S = 30.0  # so late may we hear of one that a list has shown
_SETTLED_S = 0.15  # one that ends before that is not worth a pause
_AGAIN_S, _PATIENCE_S = 0.3, 3.0  # a refusal may be one of a loader at work, or of a busy machine
_LOOK_S, _LISTS_S = 0.1, 2.0
_CHECK_S = 1.0  # between looks whether one is still attached to; more where there are many
_MOST_NAMED, _MOST_REASONS = 20, 8
_MOST_ENDED = 4096
_LEAST_BUDGET = 16 << 20
_SWEEPS = 5
_ENDED = "ended too early to be attached to"
_VFORKED = "shares the memory of its parent (vfork) and has run no program of its own yet"
_LAST = "had just begun when the attach was ended"


@dataclass(frozen=True, slots=True)
class Missed:
    """A process that was not attached to."""

    pid: int
    name: str
    reason: str


@dataclass(slots=True)
class _Waiting:
    parent: int
    how: str  # "forked", "exec", "there"
    begun: float  # time.monotonic()
    due: float
    start: int | None
    name: str = ""
    reason: str = ""


@dataclass(slots=True)
class _Member:
    session: Session
    note: str
    program: tuple[bytes, str]


@dataclass(slots=True)
class Family:
    """The descendants of a process, as a context manager: at the end all of them are detached.

    `plan` is that of the first process and must not refuse; `finished` is given each recording when
    its process has ended, runs another program, or is detached. Raises `TargetError` when the first
    process cannot be attached to.
    """

    plan: Plan
    wishes: Wishes
    max_pause_s: float
    finished: Callable[[Recording, Session], None]
    say: Callable[[str], None] = lambda _: None
    most: int = MOST_AT_ONCE
    examine: Callable[[Session], Recording | None] | None = None
    attached: int = 0  # attaches that were made, to programs that run on after exec as well
    silent: int = 0  # of these, such as neither allocated nor freed anything meanwhile
    missed: Counter[str] = field(default_factory=Counter)  # by reason
    named: list[Missed] = field(default_factory=list)  # the first ones
    detached: int = 0
    longest_ms: float = 0.0  # that one stood still to be detached
    unclean: list[Removed] = field(default_factory=list)  # where something was left, or was foreign
    problems: list[str] = field(default_factory=list)
    full: bool = False  # whether `most` was ever reached
    told: bool = False  # whether the kernel told of each fork
    _births: Births | None = None
    _members: dict[int, _Member] = field(default_factory=dict)
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _known: dict[int, None] = field(default_factory=dict)
    _unplaced: list[tuple[int, int]] = field(default_factory=list)
    _made: dict[int, Attached] = field(default_factory=dict)  # by when they began
    _lists: float = 0.0
    _listed: dict[int, float] = field(default_factory=dict)  # found in lists of late
    _checks: float = 0.0
    _changed: set[int] = field(default_factory=set)  # run another program, as we were told

    def __enter__(self) -> Self:
        pid = self.plan.pid
        self._births = open_births(pid)
        self.told = self._births is not None
        try:
            self._known[pid] = None
            self._attach(self.plan, "")
            self._look_at_lists("there")
        except BaseException:
            self.detach()
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.detach()
        finally:
            self._close()

    @property
    def sessions(self) -> Sequence[Session]:
        """Those that are attached to now."""
        return [member.session for member in self._members.values()]

    @property
    def lost(self) -> int:
        """How often the kernel could not tell of what happened."""
        return 0 if self._births is None else self._births.lost

    def wait(self, seconds: float, stopped: Callable[[float], bool]) -> str:
        """Follow for `seconds`; say why it was ended before: "stop", "end" of all of them; or ""."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if stopped(min(left, _LOOK_S)):
                return "stop"
            self.look(stopped)
            if not self._members and not self._waiting:
                return "end"
        return ""

    def look(self, stopped: Callable[[float], bool] = lambda _: False) -> None:
        """Notice who came, who went, and who runs another program; attach to those that are due."""
        self._hear()
        if time.monotonic() >= self._lists:
            self._look_at_lists("forked")
        check = time.monotonic() >= self._checks
        if check:
            self._checks = time.monotonic() + _CHECK_S * max(len(self._members) / 8, 1)
        for pid, member in [*self._members.items()]:
            if not member.session.is_alive():
                self._finish(pid, alive=False)
            elif (check or pid in self._changed) and not member.session.is_attached():
                is_other = _program(pid) != member.program
                self._finish(pid, alive=True)
                if is_other:
                    self._expect(pid, 0, "exec")
                else:
                    self.say(f"process {pid} was detached by somebody else")
        self._changed.clear()
        for pid, waiting in [*self._waiting.items()]:
            if time.monotonic() >= waiting.due and not stopped(0):
                self._try(pid, waiting)

    def detach(self) -> None:
        """Take everything out of all of them. May be called more than once."""
        if self._births is not None:
            self._hear()
        for pid, waiting in [*self._waiting.items()]:
            gone = _start_of(pid) != waiting.start
            self._miss(pid, waiting, _ENDED if gone else waiting.reason or _LAST)
        for pid, member in [*self._members.items()]:
            self._finish(pid, alive=member.session.is_alive())
        self._sweep()

    def sentences(self) -> list[str]:
        """Say what was not seen of the family, for people."""
        found = []
        for reason, count in self.missed.most_common(_MOST_REASONS):
            names = [f"{one.pid} {one.name}".rstrip() for one in self.named if one.reason == reason]
            more = [f"{count - len(names):,} more"] if count > len(names) else []
            noun = "descendant was" if count == 1 else "descendants were"
            found.append(f"{count:,} {noun} not recorded ({', '.join(names + more)}): {reason}")
        others = sum(self.missed.values()) - sum(
            n for _, n in self.missed.most_common(_MOST_REASONS)
        )
        if others:
            found.append(f"{others:,} more descendants were not recorded, for other reasons")
        if self.silent:
            found.append(
                f"{self.silent:,} of {self.attached:,} programs that were attached to neither allocated nor"
                " freed anything meanwhile, and have no recording"
            )
        if self.full:
            found.append(
                f"the limit of {self.most} processes attached to at once was reached, and others waited"
            )
        if not self.told:
            found.append(
                "the kernel does not tell this user of forks (perf_event_open): children that lived for"
                f" less than {_LISTS_S / 4:g} s may be missing and not counted"
            )
        elif self.lost:
            found.append(
                f"the kernel told of too much at once, and {self.lost:,} of its messages were lost:"
                " children may be missing and not counted"
            )
        return found

    # -- who is there ------------------------------------------------------------

    def _hear(self) -> None:
        if self._births is None:
            return
        kept: list[tuple[int, int]] = []
        execs: list[int] = []
        forks = self._unplaced
        fresh = []
        for birth in self._births.read():
            if birth.parent:
                fresh.append((birth.pid, birth.parent))
            else:
                execs.append(birth.pid)
        for number, pair in enumerate([*forks, *fresh]):
            kept.append(pair)
            if pair[0] in self._known and pair[1] not in self._known and number >= len(forks):
                self._forget(pair[0])  # its number is another process's now
        again = True
        while again:
            again = False
            for pair in [*kept]:
                if pair[1] in self._known:
                    kept.remove(pair)
                    if not self._is_expected(pair[0]):
                        self._expect(*pair, "forked")
                    again = True
        self._unplaced = [pair for pair in kept if pair in fresh]
        for pid in execs:
            if pid in self._members:
                self._changed.add(pid)
            elif pid in self._known:
                before = self._waiting.get(pid)
                self._expect(pid, before.parent if before else 0, "exec")

    def _is_expected(self, pid: int) -> bool:
        """Whether one of whose fork we hear was found in a list of children before."""
        member = self._members.get(pid)
        if member is not None:
            if member.session.is_alive():
                return True
            self._finish(pid, alive=False)
        waiting = self._waiting.get(pid)
        if waiting is not None and waiting.start == _start_of(pid):
            return True
        # Once: the next process of that number is another one.
        return time.monotonic() - self._listed.pop(pid, -_HEARD_S) < _HEARD_S

    def _look_at_lists(self, how: str) -> None:
        """Look at the lists of children: of those that were there, and where nobody told us."""
        now = time.monotonic()
        self._lists = now + (_LISTS_S if self.told else _LISTS_S / 8)
        self._listed = {pid: at for pid, at in self._listed.items() if now - at < _HEARD_S}
        pending = [*self._members, *self._waiting]
        seen = set(pending)
        while pending:
            pid = pending.pop()
            for child in children_of(pid):
                if child in seen:
                    continue
                seen.add(child)
                pending.append(child)
                if child not in self._known:
                    self._listed[child] = now
                    self._expect(child, pid, how)

    def _expect(self, pid: int, parent: int, how: str) -> None:
        now = time.monotonic()
        start = _start_of(pid)
        self._known.pop(pid, None)
        self._known[pid] = None
        wait_s = 0.0 if how == "there" else _SETTLED_S
        waiting = _Waiting(parent, how, now, now + wait_s, start, read_name(pid))
        if start is None:
            self._waiting.pop(pid, None)
            self._miss(pid, waiting, _ENDED)
        else:
            self._waiting[pid] = waiting

    def _forget(self, pid: int) -> None:
        self._known.pop(pid, None)
        waiting = self._waiting.get(pid)
        if waiting is not None:
            self._miss(pid, waiting, _ENDED)

    def _miss(self, pid: int, waiting: _Waiting, reason: str) -> None:
        self._waiting.pop(pid, None)
        if reason not in self.missed and len(self.missed) >= _MOST_ENDED:
            reason = "other reasons"
        self.missed[reason] += 1
        if sum(one.reason == reason for one in self.named) < _MOST_NAMED and (
            len(self.named) < _MOST_NAMED * _MOST_REASONS
        ):
            self.named.append(Missed(pid, waiting.name, reason))
        while len(self._known) > _MOST_ENDED + len(self._members) + len(self._waiting):
            oldest = next(
                p for p in self._known if p not in self._members and p not in self._waiting
            )
            del self._known[oldest]

    # -- one of them -------------------------------------------------------------

    def _try(self, pid: int, waiting: _Waiting) -> None:
        """Attach to one that has lived for a moment, or note why not."""
        if waiting.start is None or _start_of(pid) != waiting.start:
            self._miss(pid, waiting, _ENDED)
            return
        waiting.name = read_name(pid)
        now = time.monotonic()
        waiting.due = now + _AGAIN_S
        if len(self._members) >= self.most:
            if not self.full:
                self.full = True
                self.say(
                    f"{self.most} processes are attached to, and no more at once: others wait for a place"
                )
            waiting.reason = f"found no place among {self.most} attached to at once"
            return
        try:
            if waiting.parent and has_same_memory(pid, waiting.parent):
                waiting.reason = _VFORKED  # until it runs a program
                return
            if not self._give_back(pid):
                waiting.reason = _VFORKED
                return
            plan = make_plan(pid)
            if plan.refusal is not None:
                raise TargetError(plan.refusal)
            if is_loading(plan):
                raise TargetError("its loader is at work")
            share = max(plan.budget_bytes // self.most & -4096, _LEAST_BUDGET)
            plan = replace(plan, budget_bytes=min(plan.budget_bytes, share))
            session = self._attach(plan, _note(waiting))
        except (LeakscopeError, OSError) as error:
            if _start_of(pid) != waiting.start:
                self._miss(pid, waiting, _ENDED)
                return
            waiting.reason = (
                str(error)
                .removeprefix(f"process {pid} cannot be attached to: ")
                .replace(f"process {pid} ", "it ")
            )
            if now - waiting.begun > _PATIENCE_S:
                self.say(f"process {pid} ({waiting.name}) is not attached to: {waiting.reason}")
                self._miss(pid, waiting, waiting.reason)
            return
        del self._waiting[pid]
        pauses = session.pauses_ms
        self.say(
            f"attached to process {pid} ({plan.name}), too; it stood still for"
            f" {pauses.get('map', 0):.1f} ms and {pauses.get('patch', 0):.1f} ms"
        )

    def _give_back(self, pid: int) -> bool:
        """Undo in a forked child what its parent's attach has left there.

        False when its memory is that of its parent, where that is at work.
        """
        inherited = find_attached(pid)
        if inherited is None or not self._is_ours(inherited):
            return True
        if is_at_work(inherited):
            return False
        remove(inherited, max_pause_s=self.max_pause_s)
        return True

    def _is_ours(self, attached: Attached) -> bool:
        mine = self._made.get(attached.started_unix_ns)
        return mine is not None and attached.identity == mine.identity

    def _attach(self, plan: Plan, note: str) -> Session:
        program = _program(plan.pid)
        session = Session(plan, self.wishes, self.max_pause_s, alone=True)
        session.__enter__()
        self._members[plan.pid] = _Member(session, note, program)
        made = session.attached
        self._made[made.started_unix_ns] = replace(made, patches=())
        if len(self._made) > _MOST_ENDED:
            del self._made[next(iter(self._made))]
        self.attached += 1
        return session

    def _finish(self, pid: int, *, alive: bool) -> None:
        """Detach one of them, and hand over what was recorded."""
        member = self._members.pop(pid)
        session = member.session
        recording: Recording | None = None
        try:
            was_attached = alive and session.is_attached()
            if was_attached and self.examine is not None:
                recording = self.examine(session)
            session.detach()
            if was_attached and session.removed is not None:
                self._count(session.removed)
            recording = recording or session.recording()
        except (LeakscopeError, OSError) as error:  # the others are taken out all the same
            self._trouble(f"process {pid} was not detached, or its recording not read: {error}")
        else:
            self.silent += recording is None
        finally:
            with contextlib.suppress(LeakscopeError, OSError):
                session.__exit__(None, None, None)
        if recording is not None:
            coverage = recording.coverage
            notes = (*coverage.notes, member.note) if member.note else coverage.notes
            self.finished(replace(recording, coverage=replace(coverage, notes=notes)), session)

    def _count(self, removed: Removed) -> None:
        self.detached += removed.unmapped
        self.longest_ms = max(self.longest_ms, removed.pause_ms, removed.alone_ms)
        if (not removed.unmapped or removed.foreign) and len(self.unclean) < _MOST_ENDED:
            self.unclean.append(removed)

    def _trouble(self, text: str) -> None:
        self.say(text)
        if len(self.problems) < _MOST_ENDED:
            self.problems.append(text)

    def _sweep(self) -> None:
        """Take out what those have inherited that were never attached to themselves.

        One may fork another while we look: hence again, until there is none.
        """
        for _ in range(_SWEEPS):
            found = False
            for pid in pids() if self._made else ():
                with contextlib.suppress(TargetError):
                    one = find_attached(pid, read_maps(pid))
                    if one is not None and self._is_ours(one) and one.patches:
                        found = True
                        self._count(remove(one, max_pause_s=self.max_pause_s))
            if not found:
                return

    def _close(self) -> None:
        if self._births is not None:
            self._births.close()


def _start_of(pid: int) -> int | None:
    """Return when a process began, None when it has ended."""
    try:
        if read_status(pid).state[:1] in "ZX":
            return None
    except LeakscopeError:
        return None
    return read_start(pid)


def _program(pid: int) -> tuple[bytes, str]:
    """Return what differs after exec."""
    try:
        return Path(f"/proc/{pid}/auxv").read_bytes(), str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return b"", ""


def _note(waiting: _Waiting) -> str:
    """Say what of a process was not seen."""
    if waiting.how == "there":
        return ""
    took = time.monotonic() - waiting.begun
    if waiting.how == "exec":
        return (
            f"attached {took:.1f} s after it was seen to run this program: what it allocated before"
            " that was not seen"
        )
    return (
        f"attached {took:.1f} s after process {waiting.parent} was seen to fork it: what it inherited,"
        " and what it allocated in between, was not seen"
    )
