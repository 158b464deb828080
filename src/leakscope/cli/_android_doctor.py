# SPDX-License-Identifier: Apache-2.0
"""`leakscope android doctor`: what this device allows, and what is missing for the rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.report.text import printable

if TYPE_CHECKING:
    import argparse

    from leakscope.android.adb import Adb

HELP = """\
Say whether adb and a device are there, and which ways to a native heap dump it allows.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add_device_options(parser)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes that talks to a device."""
    parser.add_argument("--serial", metavar="SERIAL", help="the device, where there are several")
    parser.add_argument("--adb", default="adb", metavar="PROGRAM", help="adb itself (adb)")
    parser.add_argument(
        "--dry-run", action="store_true", help="only show every call of adb, and make none"
    )


def adb_of(args: argparse.Namespace) -> Adb:
    """Return the device that the arguments name; in a dry run its calls go to the output."""
    from leakscope.android.adb import Adb

    def told(line: str) -> None:
        print(printable(line), flush=True)

    if args.dry_run:
        return Adb(args.serial, dry_run=True, told=told, program=args.adb)
    return Adb(args.serial, program=args.adb)


def run(args: argparse.Namespace) -> int:
    """Say what is the case."""
    from leakscope.android.adb import devices
    from leakscope.errors import TargetError

    adb = adb_of(args)
    found = devices(adb)
    if args.dry_run:
        return _ways(adb)
    if not found:
        raise TargetError(
            "there is no device",
            hint="Connect one and allow debugging by USB; adb devices lists them.",
        )
    for device in found:
        print(f"device {printable(device.serial)}: {printable(device.state)}")
    if len(found) > 1 and args.serial is None:
        print("Name one: --serial SERIAL", file=sys.stderr)
        return 2
    return _ways(adb)


def _ways(adb: Adb) -> int:
    sdk, kind = adb.sdk, adb.get("ro.build.type")
    root = adb.is_root
    print(
        f"API level {sdk or 'unknown'}, build {printable(kind) or 'unknown'}, root: {'yes' if root else 'no'}"
    )
    needs_root = "yes" if root else "no: it takes root (adb root)"
    wrap = "yes" if not sdk or sdk >= 26 else f"no: it takes API level 26, and the device has {sdk}"
    if wrap == "yes" and not root and kind == "user":
        wrap = "only for apps that are debuggable"
    print(f"heap --app PACKAGE:  {wrap}")
    for way in ("--program NAME", "--zygote", "--all"):
        print(f"heap {way + ':':<16}{needs_root}")
    old = "" if not sdk or sdk >= 28 else " (before API level 28 without a dump at the end)"
    print(f"heap --shell CMD:    yes{old}")
    print("watch PACKAGE:       yes")
    return 0
