# SPDX-License-Identifier: Apache-2.0
"""What a tool is told of a program, and what it answers: how to run it, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from leakscope.formats import read_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from leakscope.model.recordings import Recording

__all__ = ["COMPANION", "Exit", "Reader", "Setup", "Target", "join_options", "read_file"]

COMPANION = "companion"
"""The file in which the output of a tool that runs beside the program is."""


@dataclass(frozen=True, slots=True)
class Target:
    """A program that is to run under a tool, and what is wanted of it."""

    name: str  # as it was typed
    path: str  # the file that is executed
    image: str  # the ELF file that the kernel will load; the interpreter of a script
    needed: tuple[str, ...]  # libraries of `image`
    folder: Path  # private and empty, of plain characters: for what the tool writes
    environment: Mapping[str, str]
    children: bool = True  # also what the program starts
    sample: int | None = None  # mean bytes between samples
    depth: int | None = None  # frames of a stack
    tool_path: str | None = None  # where the tool is, when it is not where it usually is


@dataclass(frozen=True, slots=True)
class Exit:
    """How the process `pid` ended; None where that is not known."""

    pid: int
    exit_status: int | None = None
    killed_by: int | None = None


Reader: TypeAlias = "Callable[[Path, Exit], tuple[Recording, ...] | None]"


def read_file(path: Path, _: Exit) -> tuple[Recording, ...] | None:
    """Read a result as any file of another tool; None when it is none. Raises `RecordingError`."""
    return read_foreign(path)


@dataclass(frozen=True, slots=True)
class Setup:
    """How a program is run under a tool.

    `results` is a pattern of file names in the folder; where it has a group, that is the pid.
    """

    results: str
    command: tuple[str, ...] = ()  # stands before the program and its arguments
    preload: tuple[str, ...] = ()  # libraries, the first one first
    environment: Mapping[str, str] = field(default_factory=dict)
    companion: tuple[str, ...] = ()  # runs beside the program; {pid} stands for its number
    elsewhere: str | None = None  # a result out of the folder; {pid} stands for its process
    read: Reader = read_file
    log: str = r"log(?:\.(\d+))?"  # file names: what the tool says of itself
    notes: tuple[str, ...] = ()  # what the user should know although it works
    follows_children: bool = True
    silent: str | None = None
    """Why a program that ended well may have left no result, where that can be told."""
    without_file: Callable[[Exit], tuple[Recording, ...]] | None = None
    """Makes the recording of a tool that leaves no file."""


def join_options(theirs: str | None, ours: str, separator: str) -> str:
    """Return options of the environment, ours last: they win."""
    return f"{theirs}{separator}{ours}" if theirs else ours
