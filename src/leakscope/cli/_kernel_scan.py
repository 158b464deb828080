# SPDX-License-Identifier: Apache-2.0
"""`leakscope kernel scan`: objects of the kernel that nothing points to, by kmemleak."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from leakscope.cli._output import add_report_options, report_recordings
from leakscope.cli._progress import Progress
from leakscope.cli._values import address_value
from leakscope.cli._writing import check_outputs, write_text
from leakscope.errors import LeakscopeError, TargetError, UsageError
from leakscope.words import plural

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from leakscope.kernel.kmemleak import Kmemleak
    from leakscope.model.recordings import Recording

HELP = """\
Say which objects of the kernel nothing points to any more, and which code allocated them.

kmemleak scans twice, more than 5 s apart, and only what both reports have with the same
checksum counts: what was on its way from one list to another is no leak. Objects of one
stack are one finding. Needs root and a kernel with CONFIG_DEBUG_KMEMLEAK; `leakscope
kernel` says what is missing. Pages, and what only a page refers to, kmemleak does not see:
`leakscope kernel watch` does.
With a control (--clear, --stack, --auto, --dump, --off) it does that and does not scan.
Exit status: 0 nothing lost, 1 lost objects, 2 could not do it.
"""

_WAIT_S = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        "--new-only",
        action="store_true",
        help="save the report, wait, and tell only what is lost from then on",
    )
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        help="with --new-only: how long to wait for new leaks, such as 30s, 5m (default 60s)",
    )
    parser.add_argument(
        "--vmlinux", metavar="FILE", help="the kernel's image with debug information, for lines"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="also write a recording to FILE")
    group = parser.add_argument_group("controls of kmemleak")
    group.add_argument(
        "--clear", action="store_true", help="save the report, then hide all that is in it"
    )
    group.add_argument("--stack", choices=("on", "off"), help="scan the stacks of tasks, or do not")
    group.add_argument(
        "--auto", metavar="on|off|TIME", help="the kernel's own scans: on, off, or how often"
    )
    group.add_argument("--dump", metavar="ADDRESS", help="tell what kmemleak knows of one object")
    group.add_argument("--off", action="store_true", help="switch kmemleak off until the next boot")
    group.add_argument(
        "--irreversible", action="store_true", help="confirm --off, which cannot be undone"
    )
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Scan twice and report, or pass a control on."""
    from leakscope.kernel.facts import Ability, sources
    from leakscope.kernel.kmemleak import Kmemleak
    from leakscope.kernel.mounts import open_debug_files

    _check(args)
    debug = open_debug_files()
    source = next(one for one in sources(debug) if one.name == "kmemleak")
    path = debug.path("kmemleak")
    if path is None or source.state == Ability.DENIED or (not source.works and not args.clear):
        enable = f"To have it: {source.enable}. " if source.enable else ""
        raise TargetError(
            f"kmemleak cannot be used: {source.why}",
            hint=f"{enable}Without it: leakscope kernel watch",
        )
    kmemleak = Kmemleak(path)
    if _controls(args):
        return _control(kmemleak, args)
    return _scan(kmemleak, args)


def _controls(args: argparse.Namespace) -> bool:
    return bool(args.clear or args.stack or args.auto or args.dump or args.off)


def _check(args: argparse.Namespace) -> None:
    """Refuse at once what makes no sense. Raises `UsageError`."""
    check_outputs([args.report_file, args.output])
    if args.off and not args.irreversible:
        raise UsageError(
            "--off switches kmemleak off until the next boot, and forgets all that it knows",
            hint="Add --irreversible if that is what you want; --auto off only stops its scans.",
        )
    if _controls(args) and args.new_only:
        raise UsageError("a control of kmemleak and --new-only do not go together")
    if args.duration is not None and not args.new_only:
        raise UsageError("--for belongs to --new-only", hint="leakscope kernel watch --for 1h")
    if args.dump is not None:
        address_value(args.dump)
    if args.auto is not None and args.auto not in ("on", "off"):
        _seconds(args.auto)


def _seconds(text: str) -> float:
    from leakscope.observe.asked import parse_duration

    return parse_duration(text)


def _control(kmemleak: Kmemleak, args: argparse.Namespace) -> int:
    if args.clear:
        write_text(sys.stdout, _clear(kmemleak))
    if args.stack:
        kmemleak.command(f"stack={args.stack}")
        write_text(sys.stdout, f"stacks of tasks are scanned: {args.stack}\n")
    if args.auto:
        plain = args.auto in ("on", "off")
        value = args.auto if plain else f"{max(1, round(_seconds(args.auto)))}"
        kmemleak.command(f"scan={value}")
        write_text(sys.stdout, f"kmemleak's own scans: {value}{'' if plain else ' s'}\n")
    if args.dump:
        from leakscope.report.text import printable

        said = kmemleak.dump(address_value(args.dump))
        text = "".join(f"{printable(line)}\n" for line in said)
        write_text(sys.stdout, text or "kmemleak said nothing of that address\n")
    if args.off:
        kmemleak.command("off")
        write_text(sys.stdout, "kmemleak is off until the next boot\n")
    return 0


def _clear(kmemleak: Kmemleak) -> str:
    """Save the report, clear it, and say what that means. Raises `TargetError` unless saved."""
    saved, count = _save(kmemleak)
    kmemleak.command("clear")
    if not count:
        return "leakscope: kmemleak's report was empty; it is clear\n"
    return (
        f"leakscope: {count:,} objects of kmemleak's report are saved in {saved} and now hidden:"
        " kmemleak does not report them again before the next boot, nor anything that a word left"
        " in them points to; to tell what is new without that: --new-only\n"
    )


def _save(kmemleak: Kmemleak) -> tuple[Path | None, int]:
    from leakscope.kernel.module_map import state_folder
    from leakscope.kernel.saving import save_report

    folder = state_folder()
    if folder is None:
        raise TargetError(
            "the report cannot be saved: there is no folder for it",
            hint="/run/leakscope has to be a folder that only root may write to.",
        )
    return save_report(kmemleak, folder)


def _scan(kmemleak: Kmemleak, args: argparse.Namespace) -> int:
    from leakscope.kernel.clock import read_ticks
    from leakscope.kernel.kmemleak import scan_twice
    from leakscope.kernel.lines import KernelLines
    from leakscope.kernel.lost import record_lost
    from leakscope.kernel.module_map import ModuleMap, state_folder

    folder = state_folder()
    known = ModuleMap.now(folder)
    notes: list[str] = []
    before = frozenset[int]()
    if args.new_only:
        wait = _WAIT_S if args.duration is None else _seconds(args.duration)
        kmemleak.command("scan")
        kmemleak.command("scan")  # what is lost already is in the report then
        before = kmemleak.reported()
        saved, count = _save(kmemleak)
        if saved is not None:
            notes.append(f"{plural(count, 'object')} of the report before are saved in {saved}")
        with Progress() as progress:
            progress.stage(f"waiting {wait:.0f} s for new leaks; Ctrl-C looks at once")
            try:
                time.sleep(wait)
            except KeyboardInterrupt:
                notes.append("the wait was cut short")
    with Progress() as progress:
        seen = scan_twice(kmemleak, known=before, name=known.meet, stage=progress.stage)
        progress.stage("looking up lines")
        lines = KernelLines(args.debug_dir, args.vmlinux, debuginfod=not args.no_debuginfod)
        places = lines.resolve(frame for group in seen.groups for frame in group.frames)
    if folder is not None:
        known.save(folder)
    recording = record_lost(seen, read_ticks(), places, [*notes, *lines.notes])
    return report_recordings([(_keep(recording, args.output, folder), recording)], args, sys.stdout)


def _keep(recording: Recording, output: str | None, folder: Path | None) -> str:
    """Write the recording where it was asked for, else where the last scan is kept; return where."""
    from leakscope.recording import packed

    if output is not None:
        packed.write(recording, output)
        return output
    if folder is None:
        return "the kernel"
    last = folder / "kernel-scan.leakscope"
    try:
        packed.write(recording, last)
    except LeakscopeError:  # asked for by nobody
        return "the kernel"
    return str(last)
