# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel trace`: outstanding allocations of the kernel with their stacks."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from leakscope.bpf.wire import KINDS
from leakscope.cli._output import add_report_options, judge_recordings, statuses
from leakscope.cli._progress import Progress
from leakscope.cli._streams import complain, require_output
from leakscope.cli._writing import check_outputs
from leakscope.errors import LeakscopeError, TargetError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from types import FrameType

    from leakscope.bpf.helper import KernelFilter
    from leakscope.kernel.trace_recording import Traced

HELP = """\
Say which allocations of the kernel stay, with their stacks, and which of them leak.

For a minute the kernel's tracepoints tell of kmalloc, its object caches, pages, per-cpu memory
and vmalloc. Stacks are sampled by bytes; every free is seen. What is allocated in that time and
not freed is shown by the stack that asked for it, judged by the lives of its blocks, and with the
process that made the kernel allocate. What was there before is not judged. It takes root, and
leaves nothing behind in the kernel, however it ends.
Exit status: 0 nothing leaks, 1 a leak, 2 could not do it, 3 undecided, or something was missed.
"""

_SOONEST_S, _LATEST_S = 0.1, 3600.0
_FEWEST_LOOKS = 12
_SAMPLE = "16KiB"
_FAILED = 2
_BLOCK_BYTES = 128  # that a block takes in the kernel


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        "--for", dest="duration", default="60s", metavar="TIME", help="trace for so long (60s)"
    )
    parser.add_argument("--every", default="3s", metavar="TIME", help="between looks (3s)")
    group = parser.add_argument_group("what is traced")
    group.add_argument("--pid", metavar="PID|NAME", help="only what this process asks for")
    group.add_argument("--cgroup", metavar="PATH", help="only what this cgroup asks for (v1 or v2)")
    group.add_argument("--cache", metavar="NAME", help="only this cache of /proc/slabinfo")
    group.add_argument(
        "--size", metavar="MIN-MAX", help="only blocks of such a size, for example 4KiB-64KiB"
    )
    group.add_argument(
        "--kinds", metavar="KINDS", help=f"only these, with commas between: {', '.join(KINDS)}"
    )
    group.add_argument(
        "--movable", action="store_true", help="also page cache and memory of programs"
    )
    group.add_argument(
        "--sample",
        default=_SAMPLE,
        metavar="SIZE",
        help=f"mean bytes between two samples, 1 for every allocation ({_SAMPLE})",
    )
    group.add_argument(
        "--blocks", type=int, metavar="N", help="room for so many living blocks (262144)"
    )
    parser.add_argument(
        "--record", metavar="FILE", help="also write what was seen, for leakscope report"
    )
    parser.add_argument(
        "--vmlinux", metavar="FILE", help="the kernel's image with debug information, for lines"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--bpf", action="store_true", help="by BPF or not at all")
    how.add_argument("--ftrace", action="store_true", help="by ftrace: slower, and needs no BPF")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Trace, report, and return the exit status."""
    from leakscope.kernel.lines import KernelLines
    from leakscope.kernel.trace_holders import with_holders
    from leakscope.kernel.trace_lines import named_places
    from leakscope.kernel.trace_recording import recording_of
    from leakscope.observe.asked import parse_distance, parse_duration
    from leakscope.proc.kallsyms import read_kallsyms
    from leakscope.proc.slabinfo import is_reclaimable

    if args.report_file is None:
        require_output()
    check_outputs([args.report_file, args.record])
    seconds = parse_duration(args.duration)
    every = parse_distance(args.every, _SOONEST_S, _LATEST_S)
    every = min(every, max(seconds / _FEWEST_LOOKS, _SOONEST_S))
    which = _filter(args)
    symbols = read_kallsyms()
    with _told_to_end() as ended:
        traced = _traced(args, which, seconds, every, _waiter(ended))
    if not len(symbols):
        hidden = "the kernel hides its symbols (kernel.kptr_restrict): frames are addresses"
        traced.notes = (hidden, *traced.notes)
    lines = KernelLines(args.debug_dir, args.vmlinux, debuginfod=not args.no_debuginfod)
    with Progress() as progress:
        progress.stage("looking up lines")
        recording, held = recording_of(
            traced, symbols, is_reclaimable, lambda places: named_places(places, lines)
        )
    failed = False
    if args.record:
        from leakscope.recording.packed import write

        try:
            write(recording, args.record)
        except LeakscopeError as error:  # what was seen is reported all the same
            complain(error)
            failed = True
    judged = judge_recordings(
        [("the kernel", recording)],
        args,
        sys.stdout,
        lambda findings: replace(
            with_holders(findings, held), notes=(*findings.notes, *lines.notes)
        ),
    )
    leaks, undecided = statuses(judged, args)
    return leaks or (_FAILED if failed else undecided)


def _traced(
    args: argparse.Namespace,
    which: KernelFilter,
    seconds: float,
    every: float,
    wait: Callable[[float], bool],
) -> Traced:
    from leakscope.bpf.helper import BpfUnavailableError
    from leakscope.kernel.trace import trace_by_bpf

    if not args.ftrace:
        try:
            return trace_by_bpf(which, seconds, every, wait, lambda: _say(seconds))
        except BpfUnavailableError as error:
            _refuse_lockdown()
            if args.bpf:
                raise
            complain(error)
    from leakscope.kernel.trace_ftrace import trace_by_ftrace

    _refuse_lockdown()
    return trace_by_ftrace(which, seconds, every, wait, lambda: _say(seconds))


def _refuse_lockdown() -> None:
    """Raises `TargetError` where the kernel lets nobody look into it, not even root."""
    from leakscope.kernel.mounts import lockdown

    if lockdown() == "confidentiality":
        raise TargetError(
            "the kernel is locked down (confidentiality): neither BPF nor ftrace may trace it",
            hint="Boot without lockdown (it comes with Secure Boot).",
        )


def _say(seconds: float) -> None:
    from leakscope.words import duration_text

    if sys.stderr.isatty():
        lasts = duration_text(round(seconds * 1e9))
        print(f"leakscope: tracing the kernel for {lasts}; Ctrl-C ends it sooner", file=sys.stderr)


def _filter(args: argparse.Namespace) -> KernelFilter:
    from leakscope.bpf.helper import KernelFilter
    from leakscope.kernel.trace_filter import find_cache, find_kernel_cgroup, is_kmalloc
    from leakscope.observe.asked import find_processes
    from leakscope.proc.meminfo import read_meminfo
    from leakscope.trace.settings import parse_size

    kinds = KINDS if args.kinds is None else tuple(args.kinds.split(","))
    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong:
        raise UsageError(f"'{wrong[0][:40]}' is none of {', '.join(KINDS)}")
    least, most = _sizes(args.size) if args.size else (None, None)
    caches: tuple[str, ...] = ()
    if args.cache:
        size = is_kmalloc(args.cache)
        names = find_cache(args.cache)
        if args.kinds or args.size:
            raise UsageError("--cache says what is traced: leave out --kinds and --size")
        if size is None:
            caches, kinds = names, ("kmem_cache",)
        else:
            least = most = size
            kinds = ("kmalloc",)
    pid = None
    if args.pid:
        found, _ = find_processes([args.pid])
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} processes are called '{args.pid[:80]}'",
                hint=f"Name one by its number: {', '.join(map(str, sorted(found)[:8]))}.",
            )
        pid = next(iter(found))
    group = find_kernel_cgroup(args.cgroup) if args.cgroup else None
    if args.blocks is not None and not 1024 <= args.blocks <= 1 << 24:
        raise UsageError("--blocks may be from 1024 to 16777216")
    available = read_meminfo().get("MemAvailable")
    if args.blocks and available is not None and args.blocks * _BLOCK_BYTES * 4 > available:
        raise UsageError(
            f"room for {args.blocks} blocks is more than a quarter of the memory that is available"
        )
    sample = parse_size(args.sample)
    if not 1 <= sample <= 1 << 26:
        raise UsageError(f"--sample {args.sample} may be from 1 to 64MiB")
    return KernelFilter(
        pid=pid,
        cgroup=None if group is None else group.number,
        controller=None if group is None else group.controller,
        min_size=least,
        max_size=most,
        caches=caches,
        kinds=kinds,
        movable=args.movable,
        sample_bytes=sample,
        most_blocks=args.blocks,
    )


def _sizes(text: str) -> tuple[int | None, int | None]:
    from leakscope.trace.settings import parse_size

    least, dash, most = text.partition("-")
    if not dash:
        most = least
    if not least and not most:
        raise UsageError(f"'{text[:40]}' is no range of sizes", hint="Write it as 4KiB-64KiB.")
    found = (parse_size(least) if least else None, parse_size(most) if most else None)
    if found[0] is not None and found[1] is not None and found[0] > found[1]:
        raise UsageError(f"'{text[:40]}' is no range of sizes", hint="The smaller one comes first.")
    return found


@contextlib.contextmanager
def _told_to_end() -> Iterator[list[bool]]:
    """Take Ctrl-C and SIGTERM for the end of the trace: what was seen until then is reported."""
    ended: list[bool] = []

    def note(_number: int, _frame: FrameType | None) -> None:
        ended.append(True)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _waiter(ended: list[bool]) -> Callable[[float], bool]:
    def wait(until: float) -> bool:
        while not ended:
            left = until - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, 0.1))
        return False

    return wait
