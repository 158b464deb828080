# SPDX-License-Identifier: Apache-2.0
"""`leakscope suppress`: a suppression for a finding, in a syntax that other tools read as well."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope.cli._reading import add_reading_options
from leakscope.cli._sides import input_files, read_judged
from leakscope.cli._status import CLEAN, FAILED
from leakscope.cli._streams import require_output
from leakscope.cli._writing import check_outputs, write_private, write_text
from leakscope.errors import RecordingError, TargetError, UsageError
from leakscope.report.suppression import SYNTAXES, suppression_text
from leakscope.report.text import printable
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.errors import LeakscopeError
    from leakscope.judge.together import SharedPlace
    from leakscope.model.findings import Finding
    from leakscope.workflow.judging import JudgedInput

HELP = """\
Write suppressions for what leaks, to be read by --suppressions, LeakSanitizer or valgrind.

  leakscope suppress app.1234.leakscope --finding 1 --until 2027-03-01 --why 'ticket 42' -o app.supp

Leaks are numbered as the report does, heaviest first; without --finding there is one suppression
for each. After the day of --until it hides nothing any more, and reports say so.
Exit status: 0 written, 2 it could not be.
"""

_MOST_BYTES = 16 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("recordings", nargs="+", metavar="FILE|DIRECTORY|PID|NAME")
    parser.add_argument(
        "--finding",
        action="append",
        default=[],
        metavar="N|ID",
        help="the number of a leak in the report, or its id; repeatable (default: all)",
    )
    parser.add_argument(
        "--syntax",
        choices=SYNTAXES,
        default="lsan",
        help="lsan: a function anywhere on the stack; valgrind: the inner frames (default lsan)",
    )
    parser.add_argument(
        "--until", type=_date, metavar="DATE", help="the last day on which it is to hide anything"
    )
    parser.add_argument("--why", metavar="TEXT", help="a comment on the reason")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="add to FILE (default: the standard output)"
    )
    add_reading_options(parser.add_argument_group("reading"))


def run(args: argparse.Namespace) -> int:
    """Read, judge, choose, and write."""
    from leakscope.judge.together import leaking_places

    if args.output is None:
        require_output()
    else:
        check_outputs([args.output], input_files(args.recordings))
    failed: list[LeakscopeError] = []
    judged = _judged(args, failed)
    places = leaking_places([(one.label, one.findings) for one in judged])
    if not places:
        raise UsageError("nothing leaks there, so there is nothing to suppress")
    texts: dict[str, str] = {}  # by the rule: several stacks at one place may have the same
    for place in _chosen(places, args.finding):
        for finding in _at(place, judged):
            text = _text_of(finding, args)
            rule = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
            if rule not in texts:
                texts[rule] = text
                _tell_of_others(text, place, places, args)
    if args.output is None:
        write_text(sys.stdout, "\n".join(texts.values()))
    else:
        path = Path(args.output)
        before = _existing(path)
        gap = "\n" if before and not before.endswith("\n\n") else ""
        write_private(path, f"{before}{gap}" + "\n".join(texts.values()))
        name = printable(args.output)
        print(f"leakscope: {plural(len(texts), 'suppression')} added to {name}", file=sys.stderr)
    return FAILED if failed else CLEAN


def _judged(args: argparse.Namespace, failed: list[LeakscopeError]) -> list[JudgedInput]:
    try:
        return read_judged(args.recordings, args, failed)
    except TargetError as error:
        # After a recording, a number was hardly meant as that of a process.
        told = str(error).split()
        number = next((n for n in args.recordings[1:] if is_number(n) and n in told), None)
        if number is None:
            raise
        rest = shlex.join(each for each in args.recordings if each != number)
        hint = f"A leak is chosen with --finding: leakscope suppress {rest} --finding {number}"
        raise UsageError(str(error), hint=hint) from None


def _at(place: SharedPlace, judged: Sequence[JudgedInput]) -> list[Finding]:
    """Return all that leaks at a place, heaviest first, in any of the processes."""
    at = place.worst.finding.place
    found = [each for one in judged for each in one.findings.leaks if each.place == at]
    return sorted(found, key=lambda each: -each.leak_bytes)


def _text_of(finding: Finding, args: argparse.Namespace) -> str:
    text = suppression_text(finding, args.syntax, args.until, args.why)
    if text is None:
        raise UsageError(
            f"no suppression can name the leak {finding.fingerprint}: its function has no name, or"
            " one that the syntax cannot hold",
            hint="Name the others with --finding, build the program with symbols, or take a baseline:"
            " leakscope baseline --help",
        )
    return text


def _tell_of_others(
    text: str, place: SharedPlace, places: tuple[SharedPlace, ...], args: argparse.Namespace
) -> None:
    """Say what else a suppression hides: one on a function hides all that is called from it."""
    from leakscope.judge.suppressions import parse_suppressions

    rules = parse_suppressions(text, "it")
    others = [each for each in places if each is not place]
    hidden = [
        each
        for each in others
        if any(rule.matches(part.finding.stack) for part in each.parts for rule in rules)
    ]
    if hidden:
        size = bytes_text(sum(each.bytes for each in hidden))
        print(
            f"leakscope: {printable(rules[0].name)} also hides {plural(len(hidden), 'other leak')}"
            f" ({size})",
            file=sys.stderr,
        )
        if args.syntax == "lsan":
            print("  --syntax valgrind tells more of the stack.", file=sys.stderr)


def _chosen(places: tuple[SharedPlace, ...], wanted: list[str]) -> list[SharedPlace]:
    if not wanted:
        return list(places)
    found = []
    for word in wanted:
        if word.isascii() and word.isdigit() and len(word) < 10 and 0 < int(word) <= len(places):
            found.append(places[int(word) - 1])
            continue
        matching = [
            place
            for place in places
            if any(
                word in {part.finding.fingerprint, part.finding.stable_fingerprint}
                for part in place.parts
            )
        ]
        if not matching:
            count = plural(len(places), "leak")
            raise UsageError(
                f"there is no leak {word[:40]!r} among {count}",
                hint=f"Take a number from 1 to {len(places)}, or an id of the report.",
            )
        found += matching
    return found


def _existing(path: Path) -> str:
    """Return what is in a file already, "" where there is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RecordingError(f"{path} is larger than a file of suppressions can be")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path} is no text, so nothing is added to it") from error
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error


def _date(text: str) -> str:
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2027-03-01") from None
