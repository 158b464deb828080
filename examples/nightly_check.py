# SPDX-License-Identifier: Apache-2.0
"""A nightly check of a daemon, for cron or a systemd timer.

    python examples/nightly_check.py nginx --for 2h --keep /var/lib/leak-check

Watches the daemon, which costs it nothing. Only if something grows, it is scanned: it stands still
for a tenth of a second at most. What was found is kept as JSON and as text, and said by the status:
0 all is well, 1 it leaks, 2 it could not be looked at, 3 it grows and nobody knows yet.
"""

import argparse
import sys
from pathlib import Path

import leakscope


def main() -> int:
    """Check one daemon."""
    parser = argparse.ArgumentParser(description="Check whether a daemon leaks.")
    parser.add_argument("name", help="a program's name, or a pid")
    parser.add_argument("--for", dest="duration", default="2h", help="how long to watch (2h)")
    parser.add_argument("--keep", type=Path, default=Path(), help="where results are kept")
    args = parser.parse_args()
    try:
        return check(args.name, args.duration, args.keep)
    except leakscope.LeakscopeError as error:
        print(f"{error}\n{error.hint or ''}", file=sys.stderr)
        return 2


def check(name: str, duration: str, keep: Path) -> int:
    """Watch, scan when something grows, and keep what was found."""
    watched = leakscope.watch(name, duration=duration)
    (keep / "watch.json").write_text(watched.to_json())
    suspects = [cause.trend for cause in watched.leaks] + list(watched.growing)
    pids = {trend.series.subject.pid for trend in suspects} - {None}
    lost = 0
    for pid in sorted(pids):
        scan = leakscope.scan(pid, max_pause="0.1s")
        (keep / f"scan-{pid}.json").write_text(scan.to_json())
        print(scan.report())
        lost += scan.lost_bytes
    print(watched.report())
    if watched.leaks or lost:
        return 1
    return 3 if suspects else 0


if __name__ == "__main__":
    sys.exit(main())
