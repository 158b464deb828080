# SPDX-License-Identifier: Apache-2.0
"""`leakscope watch`: is it a leak at all, and whose? Looks on until told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._progress import Progress
from leakscope.cli._status import LEAKS, UNDECIDED
from leakscope.cli._streams import complain
from leakscope.cli._writing import (
    check_outputs,
    open_private,
    write_report,
    write_text,
)
from leakscope.errors import LeakscopeError, TargetError, UsageError
from leakscope.observe.asked import find_cgroup, find_processes, parse_distance, parse_duration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from leakscope.observe.gather import Gatherer
    from leakscope.observe.store import StoreWriter
    from leakscope.workflow.heaps import WatchedHeaps
    from leakscope.workflow.watching import Judgement, Watch

__all__ = ["add_store_options", "add_watching_options", "report_store", "watch_on"]

HELP = """\
Watch processes, cgroups and kernel caches, and say which of them leak.

Without an argument it watches everything it may see. A verdict takes 15 minutes of
watching and 40 minutes of a process's life: until then it says how much longer to watch.
How fast something grows, and when its limit is reached, it says from the second look on.
Exit status: 0 no leak, 1 a leak was found, 2 could not do it, 3 undecided: not enough data,
or something grows fast and that alone is no proof (1 with --fail-on growth).
"""

_ACCOUNTS = 4  # processes that have a line of their own at each look
_SOONEST_S = 0.1  # between looks


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("targets", nargs="*", metavar="PID|NAME", help="only these processes")
    parser.add_argument("--cgroup", metavar="PATH", help="only this cgroup and all below it")
    add_watching_options(parser)
    parser.add_argument(
        "--scan",
        action="store_true",
        help="walk the heaps of the processes named, at the beginning and the end, and say what"
        " grew; stops each of them twice for 0.1 s at most",
    )
    parser.add_argument(
        "--heap",
        action="store_true",
        help="at the end say how much of each heap is free; stops the process for some ms",
    )


def add_watching_options(parser: argparse.ArgumentParser) -> None:
    """Add what `watch_on` reads from its `args`."""
    parser.add_argument("--for", dest="duration", metavar="TIME", help="stop after 20s, 30m, 2h")
    parser.add_argument("--every", default="10s", metavar="TIME", help="between looks (10s)")
    parser.add_argument(
        "--until-verdict",
        action="store_true",
        help="stop once every gauge has had the same verdict twice",
    )
    parser.add_argument("--record", metavar="FILE", help="also write what is seen to a new file")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    add_html_option(parser)
    parser.add_argument(
        "--report-file", metavar="FILE", help="write the report to FILE instead of the terminal"
    )
    parser.add_argument(
        "--fail-on",
        choices=("leaks", "growth"),
        default="leaks",
        help="growth: what grows fast gives exit status 1 as well, without proof of a leak",
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live screen")
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Watch, then say what was seen."""
    from leakscope.observe.gather import Gatherer
    from leakscope.workflow.heaps import WatchedHeaps
    from leakscope.workflow.opening import refuse_file

    every = parse_distance(args.every, _SOONEST_S)
    length = None if args.duration is None else parse_duration(args.duration)
    if args.targets and args.cgroup:
        raise UsageError("name processes or a cgroup, not both", hint="Leave out --cgroup.")
    check_outputs((args.report_file, args.html, args.record))
    for name in args.targets:
        refuse_file(name)
    only, names = find_processes(args.targets) if args.targets else (None, frozenset[str]())
    group = find_cgroup(args.cgroup) if args.cgroup else None
    if length is not None:
        every = min(every, max(length / 10, _SOONEST_S))
    if args.scan and only is None:
        raise UsageError("--scan needs the processes named", hint="leakscope watch PID --scan")
    gatherer = Gatherer(only=only, names=names, cgroup=group, system=only is None and group is None)
    heaps = WatchedHeaps(only) if args.scan and only is not None else None
    return watch_on(gatherer, args, every, length, heaps=heaps)


def watch_on(
    gatherer: Gatherer,
    args: argparse.Namespace,
    every: float,
    length: float | None,
    *,
    heaps: WatchedHeaps | None = None,
    facts: Callable[[Judgement], dict[str, list[str]]] | None = None,
) -> int:
    """Watch what `gatherer` sees, report, and return the exit status.

    `facts` returns what is to be said of subjects that leak or grow, by their keys.
    """
    from leakscope.workflow.watching import Watch

    store = _store(args.record, every) if args.record else None
    try:
        watch = Watch(gatherer, every, store)
        # That is how a watch ends: with the report.
        with _told_to_end(), contextlib.suppress(KeyboardInterrupt):
            _look_on(watch, args, length)
        lasted = watch.watched_s
        with Progress() as progress:
            progress.stage("judging what was seen")
            judgement = watch.judge()
    finally:
        gatherer.close()
        if store is not None:
            store.close()
    cost = (
        f"Cost: {watch.looks} looks of {watch.look_s * 1000:.1f} ms each; with the verdicts"
        f" {watch.core_share * 100:.2f} % of one core."
    )
    told = facts(judgement) if facts is not None else {}
    status = _tell(judgement, args, lasted, watch.look_s, cost, watch.missing, gatherer.only or (), heaps, told)  # fmt: skip
    targets = getattr(args, "targets", [])
    unseen = TargetError(
        f"nothing could be read of {', '.join(targets)[:80]}",
        hint="Kernel threads and zombies hold no memory; another user's process may be hidden.",
    )
    return _unless(
        watch.store_error or (unseen if targets and not judgement.trends else None), status
    )


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Make SIGTERM and a closed terminal end the watch as Ctrl-C does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)


def _unless(error: LeakscopeError | None, status: int) -> int:
    """Return `status`, or say what went wrong besides and return 2."""
    if error is None:
        return status
    complain(error)
    return 2


def report_store(path: str, args: argparse.Namespace) -> int:
    """Show the report on a recording of a watch."""
    from leakscope.workflow.replay import Extract, Replay

    check_outputs((args.report_file, args.html, args.csv), [path])
    since = 0.0 if args.since is None else parse_duration(args.since)
    until = None if args.until is None else parse_duration(args.until)
    replay = Replay(Path(path), Extract(args.of, since, until))
    with Progress() as progress:
        if args.csv is not None:
            from leakscope.report.watch_csv import write_csv

            progress.stage(f"writing {args.csv}")
            with open_private(Path(args.csv)) as file:
                write_csv(replay.rows(), file)
        progress.stage(f"reading {path}")
        replay.read()
        progress.stage("judging what was seen")
        judgement = replay.judge()
    return _unless(replay.damage, _tell(judgement, args, replay.watched_s, 0.0, replay.cost))


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add what `report_store` reads from its `args`."""
    group = parser.add_argument_group("recordings of a watch")
    group.add_argument("--of", metavar="PID|NAME", help="only what is called so")
    group.add_argument(
        "--since",
        metavar="TIME|MARK",
        help="leave out the first 20s, 30m, 2h; of a program's recording: what was allocated before"
        " that time, or before a mark of that name (`leakscope control PID mark NAME`)",
    )
    group.add_argument("--until", metavar="TIME", help="leave out what came later than this")
    group.add_argument(
        "--csv", metavar="FILE", help="also write every value, for sqlite, DuckDB or a sheet"
    )


def _look_on(watch: Watch, args: argparse.Namespace, length: float | None) -> None:
    """Look until the time is over, every process has ended, or everything has its verdict."""

    def over() -> bool:
        if watch.gatherer.only is not None and watch.gatherer.ended:
            return True
        if args.until_verdict:
            watch.judge_when_due()
            if watch.settled:
                return True
        return length is not None and watch.watched_s + watch.interval_s > length

    if args.plain or args.json or args.report_file or not _is_terminal():
        due, heard = time.monotonic(), not args.json
        while True:
            watch.look()
            if heard and watch.looks == 1:
                heard = write_text(sys.stdout, _beginning(watch))
            if heard and not _say_lines(watch):
                if not (watch.store or args.report_file or args.html):
                    return  # nobody listens and nothing is kept
                heard = False
            if over():
                return
            due = max(due + watch.pause_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    from leakscope.tui.watch import LiveScreen

    screen = LiveScreen(watch, over)
    try:
        screen.run()
    finally:
        screen.finish()


def _beginning(watch: Watch) -> str:
    """Say what is watched and what goes further, before the first line."""
    from leakscope.report.gauges import subject_name

    only = watch.gatherer.only
    subjects = {s.subject.pid: s.subject for s in watch.collection.standings()}
    names = [subject_name(subjects[pid]) for pid in sorted(only or ()) if pid in subjects]
    pace = f"a look every {watch.interval_s:g} s; Ctrl-C ends with the report"
    if not names:
        every = watch.gatherer.label == "everything"
        more = " One process: leakscope watch PID" if every else ""
        return f"Watching {watch.gatherer.label}, {pace}.{more}\n"
    more = f" and {len(names) - _ACCOUNTS} more" if len(names) > _ACCOUNTS else ""
    pid = next(pid for pid in sorted(only or ()) if pid in subjects)
    who = ", ".join(names[:_ACCOUNTS]) + more
    return f"Watching {who}, {pace}. Its heap meanwhile: leakscope scan {pid}\n"


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _say_lines(watch: Watch) -> bool:
    """Write where everything stands; return whether somebody still reads it.

    That is a line for each of a few processes that were asked for, and one on all of many.
    """
    from leakscope.judge.growing import growth_now
    from leakscope.report.watch import render_line, render_standing

    only = watch.gatherer.only
    if only is None or len(only) > _ACCOUNTS:
        text = render_standing(watch.watched_s, watch.processes, watch.collection.standings())
        return write_text(sys.stdout, f"{text}\n")
    heard = True
    for pid in sorted(only):
        gauges = watch.collection.latest(pid)
        if gauges:
            growths = {
                one.metric: growth
                for one in watch.collection.series(pid)
                if (growth := growth_now(one)) is not None
            }
            who = f"{pid} " if len(only) > 1 else ""
            heard &= write_text(
                sys.stdout, f"{who}{render_line(watch.watched_s, gauges, growths)}\n"
            )
    return heard


def _tell(
    judgement: Judgement,
    args: argparse.Namespace,
    watched_s: float,
    look_s: float,
    cost: str,
    missing: Sequence[str] = (),
    only: Sequence[int] | frozenset[int] | None = None,
    heaps: WatchedHeaps | None = None,
    told: Mapping[str, list[str]] | None = None,
) -> int:
    """Report; `only` is None when nothing is alive any more to be looked at."""
    from leakscope._accounts import accounts
    from leakscope.model.watched import Watched
    from leakscope.report.watch import render_watch, to_json

    holds = accounts(judgement, only, heap=args.heap) if only is not None else {}
    holds |= told or {}
    from leakscope.report.find import heap_growth_lines

    grown = heaps.compare() if heaps is not None else {}
    if heaps is not None:
        for pid, lines in heap_growth_lines(grown, heaps.failures).items():
            key = next((key for key in holds if key.startswith(f"{pid}@")), str(pid))
            holds[key] = [*holds.get(key, []), *lines]
    watched = Watched(
        judgement.trends,
        judgement.causes,
        watched_s,
        cost,
        look_s,
        missing,
        judgement.killed,
        holds,
        judgement.reserved,
        grown,
        heaps.failures if heaps is not None else {},
        getattr(args, "again", "leakscope watch"),
    )
    stream = None if args.report_file else sys.stdout
    text = to_json(watched) if args.json else render_watch(watched, ink_for(stream, args.colour))
    html = getattr(args, "html", None)
    if html is not None:  # first: the terminal may be gone
        from leakscope.report.answers.watches import of_watch

        write_page(html, [of_watch(watched)])
    write_report(text, args, sys.stdout)
    proved = watched.leak_count > 0
    return int(getattr(args, "exit_code", LEAKS)) if proved else _status(judgement, args)


def _status(judgement: Judgement, args: argparse.Namespace) -> int:
    """Return 1 for leaks, 3 when what was seen cannot exclude them."""
    wanted = args.fail_on  # of `report` it is the set of verdicts that count
    growth = wanted == "growth" if isinstance(wanted, str) else "growing" in map(str, wanted)
    if judgement.leaks or (judgement.growing and growth):
        return int(getattr(args, "exit_code", LEAKS))
    return int(getattr(args, "undecided_exit_code", UNDECIDED)) if judgement.undecided else 0


def _store(path: str, every: float) -> StoreWriter:
    from leakscope.observe.store import StoreWriter

    about = {"interval_s": every, "host": os.uname().nodename, "kernel": os.uname().release}
    return StoreWriter(path, {**about, "started": time.time()})
