# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel watch`: which code of the kernel takes more and more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.cli._writing import check_outputs
from leakscope.cli.watch import add_watching_options, watch_on
from leakscope.observe.asked import parse_distance, parse_duration

if TYPE_CHECKING:
    import argparse

    from leakscope.workflow.watching import Judgement

HELP = """\
Watch the kernel's memory over time, and say which of its code leaks.

Followed are source lines (/proc/allocinfo), caches of objects, large buffers, pages by stack
(page_owner), per-CPU memory and what no counter explains: as far as this kernel tells them,
which `leakscope kernel` says. With them descriptors, threads and mappings of programs, and
removed cgroups, because these keep kernel memory alive: then it is theirs. Caches that the
kernel gives back when memory is short are never called a leak.
A verdict takes 30 minutes of watching. How fast something grows it says from the second look on.
Exit status: 0 no leak, 1 a leak was found, 2 could not do it, 3 undecided: not enough data,
or something grows fast and that alone is no proof (1 with --fail-on growth).
"""

_SOONEST_S = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add_watching_options(parser)


def run(args: argparse.Namespace) -> int:
    """Watch, then say what was seen."""
    from leakscope.judge.growing import fast_growers
    from leakscope.kernel.gather import KernelGatherer
    from leakscope.kernel.module_map import ModuleMap, state_folder
    from leakscope.kernel.mounts import open_debug_files
    from leakscope.kernel.stacks import stacks_behind

    every = parse_distance(args.every, _SOONEST_S)
    length = None if args.duration is None else parse_duration(args.duration)
    check_outputs((args.report_file, args.html, args.record))
    if length is not None:
        every = min(every, max(length / 10, _SOONEST_S))
    debug = open_debug_files()
    folder = state_folder()
    if folder is not None:
        ModuleMap.now(folder).save(folder)
    args.targets, args.heap, args.again = [], False, "leakscope kernel watch"
    gatherer = KernelGatherer(debug=debug)

    def stacks(judged: Judgement) -> dict[str, list[str]]:
        leaks = [cause.trend for cause in judged.causes]
        return stacks_behind([*leaks, *fast_growers(judged.trends)], debug)

    return watch_on(gatherer, args, every, length, facts=stacks)
