# SPDX-License-Identifier: Apache-2.0
"""From a recording to findings: symbols, then the verdict engine, in one call.

No loop here runs over blocks. The addresses of all stacks that still hold memory are
looked up together, once; what the engine asks for beyond them is looked up when it asks.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from leakscope.judge import Options, judge
from leakscope.model.frames import Address, Code, Frame
from leakscope.model.recordings import (
    NODE_EXACT,
    NODE_STOPPED,
    NODE_TRUNCATED,
    NODE_UNADDRESSED,
)
from leakscope.model.tool_errors import FoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from leakscope.judge.gate import Gate
    from leakscope.judge.suppressions import Suppression
    from leakscope.model.answers import Profile
    from leakscope.model.findings import Findings
    from leakscope.model.frames import FrameName, Module
    from leakscope.model.free_errors import FreeError
    from leakscope.model.recordings import Recording
    from leakscope.symbols import Symbolizer

__all__ = ["Analyser", "analyse"]

_END = Frame(Address(None, 0), artificial=True)
"""Stands for the outer frames that a recording does not have."""


class Stacks:
    """The call stacks of one recording as frames, by site number.

    `open_symbolizer` is called when the first address is looked up. `frames` are those by node
    that an earlier reading of the same live recording found; new ones are added to them.
    """

    def __init__(
        self,
        recording: Recording,
        open_symbolizer: Callable[[], Symbolizer],
        frames: dict[int, tuple[Frame, ...]] | None = None,
    ) -> None:
        self._recording = recording
        self._open_symbolizer = open_symbolizer
        self._symbolizer: Symbolizer | None = None
        nodes = recording.nodes
        self._parents: list[int] = nodes["parent"].tolist()
        self._flags: list[int] = nodes["flags"].tolist()
        self._frames: dict[int, tuple[Frame, ...]] = {} if frames is None else frames

    def __call__(self, site: int) -> tuple[Frame, ...]:
        """Return the stack of `site`, innermost first, ending in a placeholder when cut."""
        return self.of_node(int(self._recording.sites["node"][site]))

    def of_node(self, leaf: int) -> tuple[Frame, ...]:
        """Return the stack that ends in a node of the recording, as by site."""
        path = self._path(leaf)
        if any(node not in self._frames for node in path):
            self._resolve(np.array([n for n in path if n not in self._frames]))
        found: list[Frame] = []
        for node in path:
            found += self._frames[node]
        if path and self._flags[path[-1]] & (NODE_TRUNCATED | NODE_STOPPED):
            found.append(_END)
        return tuple(found)

    def prepare(self, sites: npt.NDArray[np.integer]) -> None:
        """Look up everything on the stacks of `sites` in one go."""
        if not len(sites):
            return
        parents = self._recording.nodes["parent"].astype(np.int64)
        wanted = np.zeros(len(parents), dtype=bool)
        level = np.unique(self._recording.sites["node"][sites].astype(np.int64))
        level = level[(level > 0) & (level < len(parents))]
        while level.size:
            wanted[level] = True
            above = parents[level]
            above = above[(above > 0) & (above < level)]  # anything else is damage
            level = np.unique(above[~wanted[above]])
        if self._frames:
            wanted[[node for node in self._frames if node < len(wanted)]] = False
        if wanted.any():
            self._resolve(np.flatnonzero(wanted))

    def of_nodes(self, nodes: npt.NDArray[np.integer], most: int) -> dict[int, tuple[Frame, ...]]:
        """Return frames of nodes, each innermost first: what is known, and `most` of the others.

        Those are looked up in one go, the first of `nodes` first.
        """
        missing = [node for node in nodes.tolist() if node not in self._frames]
        if missing:
            self._resolve(np.array(missing[:most]))
        return self._frames

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the look-ups."""
        return () if self._symbolizer is None else tuple(self._symbolizer.notes)

    def _path(self, node: int) -> list[int]:
        path = []
        while 0 < node < len(self._parents):
            path.append(node)
            parent = self._parents[node]
            if parent >= node:
                break
            node = parent
        return path

    def _resolve(self, numbers: npt.NDArray[np.integer]) -> None:
        nodes = self._recording.nodes[numbers]
        modules = len(self._recording.modules)
        names = self._recording.names
        unnamed: dict[int, Address] = {}
        for number, module, offset, flags, name in zip(
            numbers.tolist(),
            nodes["module"].tolist(),
            nodes["offset"].tolist(),
            nodes["flags"].tolist(),
            nodes["name"].tolist(),
            strict=True,
        ):
            at = Address(
                module - 1 if 0 < module <= modules else None, offset, flags & NODE_EXACT != 0
            )
            if name:
                found = None if flags & NODE_UNADDRESSED else at
                self._frames[number] = (self._named(names[name - 1], found),)
            else:
                unnamed[number] = at
        if not unnamed:
            return
        if self._symbolizer is None:
            self._symbolizer = self._open_symbolizer()
        frames = self._symbolizer.resolve(list(unnamed.values()))
        for number, address in unnamed.items():
            self._frames[number] = frames[address]

    def _named(self, name: FrameName, address: Address | None) -> Frame:
        """Return a frame under the name that its source gave it."""
        module = None
        if address is not None and address.module is not None:
            module = self._recording.modules[address.module]
        return Frame(
            address,
            module_path=name.module_path or (module.path if module is not None else None),
            build_id=module.build_id if module is not None else None,
            function=name.function,
            symbol=name.symbol,
            file=name.file,
            line=name.line,
            column=name.column,
            inlined=name.inlined,
            class_name=name.class_name,
            interpreter=name.interpreter,
        )


class KeptSymbols:
    """What was looked up for one live recording, kept for the next reading of it.

    Its nodes and modules keep their numbers, because a live recording only grows. To be closed.
    """

    def __init__(self) -> None:
        self.frames: dict[int, tuple[Frame, ...]] = {}
        self._codes: dict[Frame, Code] = {}
        self._modules: tuple[Module, ...] = ()
        self._symbolizer: Symbolizer | None = None

    def symbolizer(self, modules: tuple[Module, ...], make: Callable[[], Symbolizer]) -> Symbolizer:
        """Return the one that is open, or another once modules were added."""
        if self._symbolizer is None or self._modules != modules:
            self.close()
            self._symbolizer, self._modules = make(), modules
        return self._symbolizer

    def code(self, frame: Frame, symbolizer: Callable[[], Symbolizer]) -> Code:
        """Return what is known of the function that a frame is in."""
        if frame not in self._codes:
            if frame.address is not None:  # so that its file is open
                symbolizer().resolve([frame.address])
            self._codes[frame] = symbolizer().code(frame)
        return self._codes[frame]

    def close(self) -> None:
        """Close all files. What was looked up stays."""
        if self._symbolizer is not None:
            self._symbolizer.close()
        self._symbolizer = None


class Analyser:
    """Symbols and suppressions that serve several recordings, one after the other."""

    def __init__(
        self,
        *,
        suppressions: Sequence[str | os.PathLike[str]] = (),
        debug_dirs: Sequence[str | os.PathLike[str]] = (),
        debuginfod: bool = True,
        min_bytes: int = 0,
        gate: Gate | None = None,
        most_findings: int | None = None,
        kept: KeptSymbols | None = None,
    ) -> None:
        """Prepare. `most_findings` sites are described, leaks first; `kept` is of one recording."""
        self._gate, self._kept = gate, kept
        self._suppressions: tuple[Suppression, ...] = ()
        if suppressions:
            from leakscope.judge.suppressions import load_suppressions

            self._suppressions = load_suppressions(suppressions)
        self._debug_dirs = [os.fspath(each) for each in debug_dirs]
        self._debuginfod = debuginfod
        self._options = Options(min_bytes=min_bytes)
        if most_findings is not None:
            self._options = replace(self._options, most_findings=most_findings)

    def analyse(self, recording: Recording) -> Findings:
        """Return the findings on one recording."""
        return self._analyse(recording, None)

    def analyse_all(self, recording: Recording) -> tuple[Findings, Profile | None]:
        """Return the findings, and what all call stacks held, for a page to show."""
        kept: list[Profile | None] = []

        def look(findings: Findings, stacks: Stacks) -> None:
            from leakscope._profile import profile_of

            kept.append(profile_of(recording, findings, stacks.of_nodes))

        return self._analyse(recording, look), kept[0]

    def _analyse(
        self, recording: Recording, look: Callable[[Findings, Stacks], None] | None
    ) -> Findings:
        kept = self._kept
        with contextlib.ExitStack() as opened:

            @cache
            def symbolizer() -> Symbolizer:
                if kept is not None:
                    return kept.symbolizer(recording.modules, lambda: self._symbolizer(recording))
                return opened.enter_context(self._symbolizer(recording))

            @cache
            def own_operators() -> bool:
                from leakscope.symbols import has_own_operators

                pid, authors = _whose(recording)
                return has_own_operators(recording.modules, pid=pid, authors=authors)

            def code(frame: Frame) -> Code:
                if frame.address is None or frame.address.module is None:
                    return Code()
                if kept is not None:
                    return kept.code(frame, symbolizer)
                return symbolizer().code(frame)

            stacks = Stacks(recording, symbolizer, None if kept is None else kept.frames)
            findings = judge(
                recording,
                stacks,
                self._suppressions,
                self._options,
                stacks.prepare,
                code,
                self._gate,
            )
            wrong: tuple[FreeError, ...] = ()
            doubts: tuple[str, ...] = ()
            if recording.free_errors:
                from leakscope.judge.free_errors import judge_free_errors

                wrong, doubts = judge_free_errors(recording, stacks, stacks.of_node, own_operators)
            errors = tuple(
                FoundError(each.kind, each.text, each.count, stacks.of_node(each.node))
                for each in recording.errors
            )
            notes = (*findings.notes, *doubts, *stacks.notes)
            if look is not None:  # while names can be looked up
                look(findings, stacks)
        if findings.blind is not None and not findings.leaks:
            headline = f"nothing is known of leaks: {findings.blind}"
            findings = replace(findings, headline=headline)
        return replace(findings, free_errors=wrong, errors=errors, notes=notes)

    def _symbolizer(self, recording: Recording) -> Symbolizer:
        from leakscope.symbols import Symbolizer  # here: a recording without blocks needs none

        pid, authors = _whose(recording)
        return Symbolizer(
            recording.modules,
            debug_dirs=self._debug_dirs,
            debuginfod=self._debuginfod,
            pid=pid,
            authors=authors,
        )


def _whose(recording: Recording) -> tuple[int | None, list[int]]:
    """Return the running process of a recording, and the users whose files may be read for it."""
    process = recording.process
    authors = [each for each in (recording.author, process.uid) if each is not None]
    return (process.pid if process.ended == "running" else None), authors


def analyse(
    recording: Recording,
    *,
    suppressions: Sequence[str | os.PathLike[str]] = (),
    debug_dirs: Sequence[str | os.PathLike[str]] = (),
    debuginfod: bool = True,
    min_bytes: int = 0,
) -> Findings:
    """Judge a recording: which allocation sites leak, with stack, line and evidence.

    `suppressions` are files in LeakSanitizer's or valgrind's syntax, `debug_dirs` further
    places for separate debug files, `min_bytes` leaves out sites that hold less. Raises
    `UsageError` for a suppression file that cannot be read.
    """
    analyser = Analyser(
        suppressions=suppressions,
        debug_dirs=debug_dirs,
        debuginfod=debuginfod,
        min_bytes=min_bytes,
    )
    return analyser.analyse(recording)
