# SPDX-License-Identifier: Apache-2.0
"""Copy a screen to a file and the terminal, and note when its first answer was there.

clock.py WHAT BEGAN SCREEN TIMES   lines come from standard input
clock.py --next SCREEN             print the command that a screen says to run next
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

# A verdict, or how fast something grows.
ANSWER = re.compile(
    r"^leakscope: .*(?:leak|lost|loses|grow|in use)|^leakscope: [\d,]+ of |\+[\d.,]+ \w+/s",
    re.IGNORECASE,
)
_NEXT = re.compile(r"^\s*Next: (.*)$")


def next_command(screen: str) -> str | None:
    """Return the command of the first line that says what is next; None for a mere sentence."""
    lines = screen.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if (found := _NEXT.match(line)) is None:
            continue
        words = found[1]
        if words.startswith("leakscope "):
            return words
        if ": leakscope " in words:
            return words[words.index(": leakscope ") + 2 :]
        if words.endswith(":") and after.strip().startswith("leakscope "):
            return after.strip()
    return None


def main() -> None:
    """Do as the docstring of the file says."""
    if sys.argv[1] == "--next":
        print(next_command(Path(sys.argv[2]).read_text(encoding="utf-8")) or "")
        return
    what, began, screen, times = sys.argv[1:]
    first = None
    with Path(screen).open("w", encoding="utf-8") as copy:
        for line in sys.stdin:
            if first is None and ANSWER.search(line):
                first = time.time() - float(began)
            copy.write(line)
            sys.stdout.write(line)
            sys.stdout.flush()
    total = time.time() - float(began)
    with Path(times).open("a", encoding="utf-8") as table:
        table.write(f"{what}\t{total if first is None else first:.1f}\t{total:.1f}\n")


if __name__ == "__main__":
    main()
