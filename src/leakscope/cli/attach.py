# SPDX-License-Identifier: Apache-2.0
"""`leakscope attach`: record the allocations of a program that runs already."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from leakscope.cli._gate import export_names
from leakscope.cli._output import add_report_options, report_recordings
from leakscope.cli._writing import check_outputs
from leakscope.errors import LeakscopeError, UsageError
from leakscope.words import bytes_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from types import FrameType

    from leakscope.model.earlier import Earlier
    from leakscope.model.recordings import Recording
    from leakscope.scan.census import Census
    from leakscope.trace.attach.inject import Wishes
    from leakscope.trace.attach.plan import Plan
    from leakscope.trace.attach.session import Session
    from leakscope.trace.output import Output
    from leakscope.workflow.near_end import NearEnd

_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3600.0
_FOREVER_S = 10 * 365 * 86400.0
_MOST_AT_ONCE = 128

HELP = """\
Attach to a running process, and report which of its allocations from now on leak, with call stacks.

Nothing is restarted. The beginnings of its allocation functions are made to lead to leakscope's agent, whose
memory is mapped into the process; Ctrl-C, or --for, reports and takes all of it out again. The
process stands still for a moment at each end, and for --max-pause seconds at most when it is attached to;
each pause is printed. What was allocated before is unknown, and its frees count against nobody.
With --follow its descendants are attached to as well, the workers of a prefork server say; what a child allocates
between its fork and the attach is not seen, and who was not recorded is in the report with the reason.
`leakscope doctor PID` says beforehand what would be done, and why it cannot be where it cannot.
When this command is killed, the process runs on, and `leakscope detach PID` clears away what is left.
Exit status: 0 nothing leaks, 1 leaks, 2 could not do it, 3 undecided.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("target", metavar="PID|NAME", help="the process")
    what = parser.add_argument_group("what is recorded")
    what.add_argument(
        "--sample",
        metavar="SIZE",
        help="sample one byte in SIZE on average, for example 512KiB, at nearly no cost"
        " (default: every allocation)",
    )
    what.add_argument("--min-size", metavar="SIZE", help="leave out smaller allocations")
    what.add_argument("--max-size", metavar="SIZE", help="leave out larger allocations")
    what.add_argument(
        "--depth",
        type=int,
        default=128,
        metavar="N",
        help="frames kept of each stack (default: 128)",
    )
    what.add_argument(
        "--follow",
        action="store_true",
        help="attach to its descendants as well: those that are there, those that are forked meanwhile,"
        " and the programs that they run",
    )
    what.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="with --follow, processes attached to at once, 1 to 128 (default: 32)",
    )
    when = parser.add_argument_group("when")
    when.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        help="detach after so long, 6h say (default: Ctrl-C)",
    )
    when.add_argument(
        "--every", metavar="TIME", help="write a snapshot of the recording every so often, 10m say"
    )
    when.add_argument(
        "--max-pause",
        metavar="SECONDS",
        type=float,
        default=_PAUSE_S,
        help="undo the attach when the process would stand still for longer (default: 0.1)",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--scan",
        action="store_true",
        help="before it is detached, look which blocks nothing points to any more; and walk the heap"
        " before and after, to say what was there already and what became of it",
    )
    results.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="directory or file name for the recording; %%n stands for the program, %%p for its pid"
        " (default: %%n.%%p.leakscope in the current directory)",
    )
    results.add_argument("-q", "--quiet", action="store_true", help="say nothing but the report")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Attach, wait, detach, report, and return the exit status."""
    from leakscope.recording import packed
    from leakscope.trace.attach.plan import make_plan
    from leakscope.trace.attach.session import Session, Wishes
    from leakscope.trace.output import plan_output
    from leakscope.trace.settings import parse_size
    from leakscope.workflow.near_end import NearEnd
    from leakscope.workflow.opening import pid_of

    outputs = [args.report_file, args.html, *export_names(args)]
    check_outputs(outputs, [args.output] if args.output else [])
    for_s, every_s = _seconds(args.duration), _seconds(args.every)
    if not 0 < args.max_pause <= _LONGEST_PAUSE_S:
        raise UsageError(
            f"a pause of {args.max_pause:g} s is not possible", hint="--max-pause SECONDS, 0.1 say."
        )
    if not 1 <= args.depth <= 256:
        raise UsageError(f"a depth of {args.depth} is not possible", hint="--depth N, 1 to 256.")
    if args.at_once is not None and (not args.follow or not 1 <= args.at_once <= _MOST_AT_ONCE):
        raise UsageError(
            f"{args.at_once} processes at once are not possible",
            hint="--follow --at-once N, 1 to 128.",
        )
    wishes = Wishes(
        sample_bytes=parse_size(args.sample) if args.sample else 0,
        min_size=parse_size(args.min_size) if args.min_size else 0,
        max_size=parse_size(args.max_size) if args.max_size else 0,
        depth=args.depth,
    )
    output = plan_output(args.output)
    plan = make_plan(pid_of(args.target))
    say = _Speaker(quiet=args.quiet)
    if plan.refusal is None:
        say(
            f"process {plan.pid} ({plan.name}): {plan.allocator}; {len(plan.sites)} of its functions"
            f" will lead to leakscope, at two pauses of at most {args.max_pause:g} s"
        )
        for name, reason in plan.skipped:
            say(f"{name} stays as it is: {reason}")
    earlier = None
    if args.scan and args.follow:
        say("what was there before is not looked at: that is done of one process, without --follow")
    elif args.scan and plan.refusal is None:
        earlier = _count_earlier(plan.pid, args.max_pause, say)
    stopping = _Stopping()
    if args.follow:
        return _follow(args, plan, wishes, stopping, output, say)
    with stopping, Session(plan, wishes, args.max_pause) as session:
        pauses = session.pauses_ms
        if session.cleared is not None:
            say(
                "what an earlier attach had left in it was taken out, for which it stood still for"
                f" {session.cleared.pause_ms:.1f} ms"
            )
        say(
            f"attached; one thread stood still for {pauses.get('map', 0):.1f} ms, then all"
            f" {plan.threads} for {pauses.get('patch', 0):.1f} ms."
            + (" Ctrl-C reports and detaches." if for_s is None else "")
        )
        near = NearEnd(lambda: [session], output, plan.pid, args.max_pause)
        with near:
            why = _wait(session, _telling(stopping, near, say), for_s, every_s, output, say)
        scanned = _scan(session, args.max_pause, say) if args.scan and why in ("", "stop") else None
        stuck = _detach(session)
        if not session.is_alive():
            why = "end"
        elif session.removed is not None and session.removed.absent:
            why = "gone"
        recording = session.recording()
        if recording is not None and why == "end":
            recording = _ended(near.joined(session, recording), near)
    _tell_near(near, say)
    if why == "end" and (killed := near.killed()) is not None:
        say(killed)
    if stuck is None:
        _tell_end(session, why, say)
    else:
        say(f"not detached: {stuck}. Later: leakscope detach {plan.pid}")
    if recording is None:
        say(f"process {plan.pid} neither allocated nor freed anything while it was attached to")
        return 0 if stuck is None else 2
    recorded = recording  # a scan adds what was lost before
    if scanned is not None:
        recording = scanned
    path = _pack(recording, output)
    if earlier is not None:
        recording = replace(recording, earlier=_fate(earlier, recorded, session, why, args))
        try:
            packed.write(recording, path)
        except LeakscopeError as error:
            say(f"the earlier heap is not in the recording: {error}")
    status = report_recordings([(path, recording)], args, sys.stdout)
    say(f"recording: {path}")
    return status if stuck is None else 2


def _follow(
    args: argparse.Namespace,
    plan: Plan,
    wishes: Wishes,
    stopping: _Stopping,
    output: Output,
    say: _Speaker,
) -> int:
    """Do the same with its descendants."""
    from leakscope.cli._following import Kept, tell_family, wait_family
    from leakscope.trace.attach.family import MOST_AT_ONCE, Family
    from leakscope.workflow.near_end import NearEnd

    for_s = _seconds(args.duration)
    kept = Kept(plan.pid, lambda recording: _pack(recording, output))
    near: NearEnd

    def add(recording: Recording, session: Session) -> None:
        if recording.process.ended != "running":
            recording = _ended(near.joined(session, recording), near)
        kept.add(recording, session)

    family = Family(
        plan, wishes, args.max_pause, add, say, args.at_once or MOST_AT_ONCE,
        (lambda session: _scan(session, args.max_pause, say)) if args.scan else None,
    )  # fmt: skip
    near = NearEnd(lambda: family.sessions, output, plan.pid, args.max_pause)
    with stopping, family, near:
        pauses = family.sessions[0].pauses_ms
        say(
            f"attached; one thread stood still for {pauses.get('map', 0):.1f} ms, then all"
            f" {plan.threads} for {pauses.get('patch', 0):.1f} ms. Its descendants are followed."
            + (" Ctrl-C reports and detaches." if for_s is None else "")
        )
        why = wait_family(
            family,
            _telling(stopping, near, say),
            for_s if for_s is not None else _FOREVER_S,
            _seconds(args.every),
            lambda session: _snapshot(session, output, say),
        )
        near.stop()
        family.detach()
    _tell_near(near, say)
    if why == "end":
        say(f"process {plan.pid} and its descendants have ended, or are detached")
    notes = tell_family(family, kept, say)
    if not kept.paths:
        say(f"process {plan.pid} and its descendants neither allocated nor freed anything")
        return 2 if kept.problems or family.problems else 0
    status = report_recordings(kept.recordings(notes), args, sys.stdout)
    count = len(kept.paths)
    own = "the program's own" if kept.has_root else "the first one"
    say(
        f"recording: {kept.paths[0]}"
        if count == 1
        else f"{count} recordings, {own}: {kept.paths[0]}"
    )
    return 2 if kept.problems or family.problems else status


class _Speaker:
    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, text: str) -> None:
        from leakscope.report.text import printable

        if not self._quiet:
            # A terminal that was closed: what was recorded is worth more than what is said.
            with contextlib.suppress(OSError):
                print(f"leakscope: {printable(text)}", file=sys.stderr, flush=True)


class _Stopping:
    """A context manager: signals that end a command end the waiting instead."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: list[tuple[int, object]] = []

    def __enter__(self) -> None:
        for number in self._SIGNALS:
            self._before.append((number, signal.signal(number, self._seen)))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> bool:
        """Wait for at most so long; whether a signal came."""
        return self._event.wait(seconds)

    def _seen(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._event.set()


def _seconds(text: str | None) -> float | None:
    from leakscope.observe.asked import parse_duration

    return None if text is None else parse_duration(text)


def _telling(stopping: _Stopping, near: NearEnd, say: _Speaker) -> Callable[[float], bool]:
    """Return how to wait for a signal while what the watch for memory did is said."""

    def wait(seconds: float) -> bool:
        for text in near.told():
            say(text)
        return stopping.wait(seconds)

    return wait


def _tell_near(near: NearEnd, say: _Speaker) -> None:
    for text in near.told():
        say(text)


def _ended(recording: Recording, near: NearEnd) -> Recording:
    """Note in the recording of a process that has ended that the kernel killed for memory."""
    killed = near.killed()
    if killed is None:
        return recording
    coverage = recording.coverage
    return replace(recording, coverage=replace(coverage, notes=(*coverage.notes, killed)))


def _wait(
    session: Session,
    stopped: Callable[[float], bool],
    for_s: float | None,
    every_s: float | None,
    output: Output,
    say: _Speaker,
) -> str:
    """Wait for the end, with snapshots; return why it came: "stop", "end", "gone", or ""."""
    end = time.monotonic() + (for_s if for_s is not None else _FOREVER_S)
    while (left := end - time.monotonic()) > 0:
        why = session.wait(min(left, every_s or left), stopped)
        if why:
            return why
        if every_s is not None and time.monotonic() < end:
            _snapshot(session, output, say)
    return ""


def _snapshot(session: Session, output: Output, say: _Speaker) -> None:
    try:
        recording = session.recording()
        if recording is not None:
            live = int(recording.sites["live_bytes"].sum()) if len(recording.sites) else 0
            path = _pack(recording, output, snapshot=True)
            say(f"snapshot: {path} ({bytes_text(live)} held)")
    except LeakscopeError as error:
        say(f"no snapshot this time: {error}")


def _detach(session: Session) -> LeakscopeError | None:
    """Detach, and return why that cannot be done: what was recorded is reported even so."""
    try:
        session.detach()
    except LeakscopeError as error:
        return error
    return None


def _scan(session: Session, max_pause_s: float, say: _Speaker) -> Recording | None:
    from leakscope.workflow.attaching import scan_attached

    try:
        return scan_attached(session, max_pause_s)
    except LeakscopeError as error:
        say(f"not scanned: {error}")
        return None


def _count_earlier(pid: int, max_pause_s: float, say: _Speaker) -> Census | None:
    from leakscope.report.earlier import heap_text
    from leakscope.workflow.attaching import count_earlier, earlier_of

    try:
        before = count_earlier(pid, max_pause_s)
    except LeakscopeError as error:
        say(f"what was there before is not known: {error}")
        return None
    earlier = earlier_of(before)
    say(
        f"before attach: {heap_text(earlier)}; to be walked, it stood still for"
        f" {earlier.stopped_ms:.1f} ms"
    )
    return before


def _fate(
    before: Census, recording: Recording, session: Session, why: str, args: argparse.Namespace
) -> Earlier:
    """Look what became of the earlier heap; the recording is written already."""
    from leakscope.workflow.attaching import fate_of_earlier, without_fate

    if why == "end":
        return without_fate(before, "the process ended before it could be walked again")
    if why not in ("", "stop") or session.removed is None or not session.removed.unmapped:
        return without_fate(before, "the agent was not taken out by this command")
    try:
        return fate_of_earlier(before, recording, args.max_pause)
    except KeyboardInterrupt:
        return without_fate(before, "the walk was interrupted")


def _tell_end(session: Session, why: str, say: _Speaker) -> None:
    pid = session.plan.pid
    if why == "end":
        say(f"process {pid} ended")
        return
    removed = session.removed
    if why == "gone":
        say(f"process {pid} was detached by somebody else, or runs another program now")
    elif removed is not None and removed.unmapped:
        say(
            f"detached; all its threads stood still for {removed.pause_ms:.1f} ms, then one for"
            f" {removed.alone_ms:.1f} ms, and nothing of leakscope is left in it"
        )
    elif removed is not None:
        say(
            f"detached; it stood still for {removed.pause_ms:.1f} ms. The agent's memory stays in it, unused,"
            f" because {removed.reason}; later, `leakscope detach {pid}` may take it out"
        )
    if removed is not None and removed.foreign:
        say(f"{removed.foreign} functions were changed by somebody else meanwhile, and left alone")
    if session.setup_ms:
        say(f"the first event waited {session.setup_ms:.1f} ms until recording began")
    if session.lonely:
        say("recording ended early: the process heard nothing from leakscope for ten seconds")
    for child in session.children:
        if child.failed:
            say(f"its child {child.pid} is not detached: {child.reason}")
            continue
        kept = f"; the agent's memory stays in it, unused, because {child.reason}"
        say(
            f"its child {child.pid} was detached, too ({child.pause_ms:.1f} ms)"
            + ("" if child.unmapped else kept)
        )


def _pack(recording: Recording, output: Output, *, snapshot: bool = False) -> str:
    from leakscope._paths import as_typed
    from leakscope.recording import packed
    from leakscope.trace.attach.session import program_name

    name, pid = program_name(recording), recording.process.pid or 0
    path = output.snapshot(name, pid) if snapshot else output.path(name, pid)
    try:
        packed.write(replace(recording), path)
    except BaseException:
        output.release(path)
        raise
    return str(as_typed(path))
