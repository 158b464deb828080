# SPDX-License-Identifier: Apache-2.0
"""The parser of every command: what is wrong with its arguments is one sentence and a hint."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, NoReturn

from leakscope.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Parser"]

_SHOWN = 80  # characters of what the user typed
_CHOICE = re.compile(r"(?s)invalid choice: (.*) \(choose from (.*)\)\Z")
_VALUE = "expected one argument"
_MISSING = "the following arguments are required: "


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and keeps the lines of descriptions as written.

    `parse_args` raises `UsageError` for arguments that make no sense, where argparse would print
    the whole usage and exit; `SystemExit` for --help.
    """

    def __init__(
        self, prog: str, *, usage: str | None = None, description: str = "", epilog: str = ""
    ) -> None:
        super().__init__(
            prog,
            usage,
            description,
            epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return the arguments; what a verb does not know, its own parser refuses."""
        known, others = super().parse_known_args(args, namespace)
        if others:
            self._refuse(others)
        return known, others

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` for what argparse has to say."""
        option, _, why = message.removeprefix("argument ").partition(": ")
        choice = _CHOICE.match(why)
        if message.startswith(_MISSING):
            missing = message.removeprefix(_MISSING)
            if missing == "VERB":
                missing += f": one of {', '.join(self._verbs())}"
            self._end(f"{self.prog} needs {missing}")
        if choice is not None:
            self._choice(option, choice[1].strip("'\""), choice[2].replace("'", "").split(", "))
        if why == _VALUE:
            self._end(f"{option} needs a value")
        self._end(f"{option}: {why}" if why else message)

    def _choice(self, option: str, given: str, choices: list[str]) -> NoReturn:
        where = f"{option}: " if option.startswith("-") else ""
        text = f"{where}'{given[:_SHOWN]}' is none of {', '.join(choices)}"
        self._end(text, _near(given, choices))

    def _refuse(self, words: list[str]) -> NoReturn:
        word = next((word for word in words if word.startswith("-")), words[0])
        if not word.startswith("-"):
            self._end(f"'{word[:_SHOWN]}' is one argument too many")
        name = word.partition("=")[0][:_SHOWN]
        options = (option for action in self._actions for option in action.option_strings)
        known = {option.lstrip("-"): option for option in options}
        near = _near(name.lstrip("-"), known)
        self._end(f"there is no option {name}", [known[each] for each in near])

    def _verbs(self) -> list[str]:
        groups = (each for each in self._actions if each.dest == "verb")
        return [name for group in groups for name in group.choices or ()]

    def _end(self, text: str, near: Sequence[str] = ()) -> NoReturn:
        from leakscope.report.text import printable

        guess = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(printable(text), hint=f"{guess}`{self.prog} --help` tells what it takes.")


def _near(word: str, known: Iterable[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(word, list(known), n=1)
