# SPDX-License-Identifier: Apache-2.0
"""Debug information read in Python by a process of its own, isolated from the folder it runs in.

The file may be anything, and pyelftools bounds neither time nor memory: so the reader is ended when
its time is over, and its address space is limited. What it had found by then counts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from leakscope.proc.isolated import module_command, module_environment
from leakscope.symbols._activation import Activation
from leakscope.symbols._dwarf import Dwarf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.proc.elf_file import ElfFile

__all__ = ["Answers", "ask"]

_MOST_MEMORY = 4 << 30
_DONE = "done"


class Answers(NamedTuple):
    """What was found, how long it took, and whether something is missing for lack of time."""

    found: dict[int, tuple[Activation, ...]]
    seconds: float
    gave_up: bool


def ask(
    file: ElfFile, questions: Sequence[tuple[int, Activation | None]], seconds: float
) -> Answers:
    """Return the activations at addresses of the file, with the innermost place where it is known.

    Takes at most so many seconds.
    """
    begun = time.monotonic()
    if seconds <= 0:
        return Answers({}, 0.0, gave_up=True)
    lines = [
        json.dumps([address, innermost and [innermost.file, innermost.line, innermost.column]])
        for address, innermost in questions
    ]
    reader = subprocess.Popen(
        module_command(__name__, file.handle),
        pass_fds=(file.fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=module_environment(),
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
    )
    try:
        output, _ = reader.communicate("\n".join(lines), timeout=seconds)
    except subprocess.TimeoutExpired:
        reader.kill()
        output, _ = reader.communicate()
    except BaseException:
        reader.kill()
        reader.communicate()
        raise
    found = {}
    done = False
    for line in (output or "").splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # cut off
        if answer == _DONE:
            done = True
            continue
        address, chain = answer
        found[address] = tuple([Activation(*each) for each in chain])
    return Answers(found, time.monotonic() - begun, gave_up=not done)


def main() -> None:
    """Answer the questions of standard input; a line each, and a last one when all were asked."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    dwarf = Dwarf(sys.argv[1])
    for line in sys.stdin.read().splitlines():
        address, known = json.loads(line)
        chain = dwarf.find(address, Activation(None, *known) if known else None)
        if chain:
            fields = [[each.name, each.file, each.line, each.column] for each in chain]
            _say([address, fields])
    if not dwarf.too_large:
        _say(_DONE)


def _say(what: object) -> None:
    os.write(1, f"{json.dumps(what)}\n".encode())


if __name__ == "__main__":
    main()
