# SPDX-License-Identifier: Apache-2.0
"""Commands, and those that have verbs of their own: each is a module, loaded when asked for.

Such a module has `HELP` (one paragraph), `configure(parser)` and `run(args) -> int`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["Command", "configure_verbs", "load_command", "run_verb"]


class Command(NamedTuple):
    """One verb: its name, the line that --help shows, the module that does it."""

    name: str
    line: str
    module: str


class _Module(Protocol):
    HELP: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def configure_verbs(
    parser: argparse.ArgumentParser, table: Sequence[Command], alone: str | None = None
) -> None:
    """Add the verbs, and the options of the one that is meant without a verb, `alone`.

    Where that is None, a verb has to be named.
    """
    verbs = parser.add_subparsers(
        dest="verb",
        metavar="VERB",
        title="verbs",
        required=alone is None,
        help=f"{alone} is meant where none is named" if alone is not None else None,
    )
    for verb in table:
        module = load_command(verb)
        below = verbs.add_parser(
            verb.name,
            help=verb.line,
            description=module.HELP,
        )
        module.configure(below)
        if verb.name == alone:
            module.configure(parser)


def run_verb(args: argparse.Namespace, table: Sequence[Command], alone: str | None = None) -> int:
    """Do what the verb says, and return the exit status."""
    name = args.verb or alone
    return load_command(next(verb for verb in table if verb.name == name)).run(args)


def load_command(command: Command) -> _Module:
    """Return the module that does it."""
    return cast("_Module", import_module(command.module))
