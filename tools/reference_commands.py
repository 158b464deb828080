# SPDX-License-Identifier: Apache-2.0
"""The commands as their parsers describe them, and the page that lists them."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from importlib import import_module

from leakscope.cli import COMMANDS, triage

WORDS = re.compile(r"%\((\w+)\)s|%%")


@dataclass(frozen=True)
class Option:
    """One option or argument."""

    names: tuple[str, ...]  # empty for an argument
    value: str  # what follows it, "" for a switch
    help: str
    choices: tuple[str, ...]
    group: str
    many: bool = False

    @property
    def files(self) -> bool:
        """Whether its value is a file or a directory."""
        return any(word in self.value for word in ("FILE", "DIR", "PATH", "CORE", "PROGRAM"))


@dataclass(frozen=True)
class Verb:
    """One command; `name` is empty for `leakscope` alone."""

    name: str
    line: str
    text: str
    usage: str
    options: tuple[Option, ...]

    @property
    def page(self) -> str:
        """The name of its man page."""
        return f"leakscope-{self.name.replace(' ', '-')}" if self.name else "leakscope"

    @property
    def call(self) -> str:
        """How it is called."""
        return f"leakscope {self.name}".strip()


def verbs() -> tuple[Verb, ...]:
    """Return `leakscope` alone, then each command."""
    alone = argparse.ArgumentParser(prog="leakscope", add_help=False)
    triage.configure(alone)
    alone.add_argument("--version", action="store_true", help="print the version and exit")
    found = [_verb("", "find the line of code that makes memory grow", triage.HELP, alone)]
    for command in COMMANDS:
        module = import_module(command.module)
        parser = argparse.ArgumentParser(prog=f"leakscope {command.name}", add_help=False)
        module.configure(parser)
        found.append(_verb(command.name, command.line, module.HELP, parser))
        for below in getattr(module, "SUBVERBS", ()):
            own = import_module(below.module)
            name = f"{command.name} {below.name}"
            parser = argparse.ArgumentParser(prog=f"leakscope {name}", add_help=False)
            own.configure(parser)
            found.append(_verb(name, below.line, own.HELP, parser))
    return tuple(found)


def commands_alone(found: tuple[Verb, ...]) -> tuple[Verb, ...]:
    """Return the commands for completion, each with the options of all verbs below it."""
    alone = []
    for verb in found:
        if " " in verb.name:
            continue
        known = {option.names for option in verb.options}
        below = (v for v in found if v.name.startswith(f"{verb.name} ") and verb.name)
        more = {o.names: o for v in below for o in v.options if o.names and o.names not in known}
        alone.append(replace(verb, options=(*verb.options, *more.values())))
    return tuple(alone)


def _verb(name: str, line: str, text: str, parser: argparse.ArgumentParser) -> Verb:
    groups = {
        id(action): group.title or ""
        for group in parser._action_groups  # noqa: SLF001 - argparse has no other way
        for action in group._group_actions  # noqa: SLF001
    }
    options = [
        _option(action, groups.get(id(action), ""))
        for action in parser._actions  # noqa: SLF001
        if action.help != argparse.SUPPRESS
    ]
    options.append(Option(("-h", "--help"), "", "show the help and exit", (), "options"))
    usage = parser.usage or " ".join(
        [
            f"leakscope {name}".strip(),
            "[OPTION...]",
            *(_argument(o) for o in options if not o.names),
        ]
    )
    return Verb(name, line, text.strip(), usage, tuple(options))


def _option(action: argparse.Action, group: str) -> Option:
    choices = tuple(map(str, action.choices or ()))
    value = action.metavar if isinstance(action.metavar, str) else ""
    if action.nargs == 0:
        value = ""
    elif not value:
        value = "|".join(choices) or action.dest.upper().replace("_", "-")
    known = {"default": action.default, "prog": "leakscope"}
    text = WORDS.sub(lambda m: str(known.get(m[1])) if m[1] else "%", action.help or "")
    plain = group if group != "positional arguments" else "arguments"
    return Option(
        tuple(action.option_strings), value, text, choices, plain, action.nargs in ("*", "+", "?")
    )


def _argument(option: Option) -> str:
    return f"[{option.value}...]" if option.many else option.value


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text, each on one line."""
    return [" ".join(part.split()) for part in text.split("\n\n")]


def by_group(verb: Verb) -> dict[str, list[Option]]:
    """Return the options of each group, arguments first."""
    groups: dict[str, list[Option]] = {}
    for option in sorted(verb.options, key=lambda o: bool(o.names)):
        groups.setdefault(option.group if option.names else "arguments", []).append(option)
    return groups


def commands_page(found: tuple[Verb, ...]) -> str:
    """Return docs/reference/commands.md."""
    lines = [
        "<!-- Generated by tools/gen_reference.py. Do not edit. -->",
        "# Commands",
        "",
        "Every command with all of its options, as `leakscope COMMAND --help` shows them.",
        "The same is installed as man pages: `man leakscope-run`.",
        "",
        "| command | what it does |",
        "|---|---|",
        *(f"| [`{v.call}`](#{_anchor(v)}) | {_cell(v.line)} |" for v in found),
    ]
    for verb in found:
        lines += ["", f"## {verb.call}", "", "```", verb.usage, "```"]
        for paragraph in paragraphs(verb.text):
            lines += ["", paragraph]
        for title, options in by_group(verb).items():
            lines += ["", f"**{title[:1].upper()}{title[1:]}**", "", "| | |", "|---|---|"]
            lines += [f"| {_shown(option)} | {_cell(option.help)} |" for option in options]
    return "\n".join(lines) + "\n"


def _anchor(verb: Verb) -> str:
    return verb.call.replace(" ", "-")


def _shown(option: Option) -> str:
    names = option.names or ("",)
    texts = [f"{name} {option.value}".strip() for name in names[-1:]]
    return ", ".join(f"`{_cell(text)}`" for text in (*names[:-1], *texts) if text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
