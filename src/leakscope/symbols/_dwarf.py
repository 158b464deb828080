# SPDX-License-Identifier: Apache-2.0
"""Lines and inlined functions read in Python, by pyelftools: slower than drgn, and complete.

drgn (0.3) looks for the function at an address among those of compilation units and namespaces
only. The call operator of a lambda, a method of a local class, or with older compilers of Rust any
method lies deeper: there it answers with the symbol's name and the innermost line, and the lines
that led there are missing, often the only ones in the user's own code. And there is no drgn for
aarch64. Here a compilation unit is walked whole, with pyelftools for all but the walk itself.
Source: DWARF 5, sections 3.3, 6.2 and 7.5.
"""

from __future__ import annotations

import os.path
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leakscope.symbols._activation import Activation

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Dwarf"]

_MOST_BYTES = 1 << 29  # of debug information that is read into memory for this
_MOST_RANGES = 1 << 20  # in one list
_MOST_DEPTH = 64  # of functions inlined into one another
_WANTED = {"DW_TAG_subprogram": True, "DW_TAG_inlined_subroutine": False}
_UNITS = ("DW_TAG_compile_unit", "DW_TAG_skeleton_unit")

_FIXED = {
    "DW_FORM_data1": 1,
    "DW_FORM_ref1": 1,
    "DW_FORM_flag": 1,
    "DW_FORM_strx1": 1,
    "DW_FORM_addrx1": 1,
    "DW_FORM_data2": 2,
    "DW_FORM_ref2": 2,
    "DW_FORM_strx2": 2,
    "DW_FORM_addrx2": 2,
    "DW_FORM_strx3": 3,
    "DW_FORM_addrx3": 3,
    "DW_FORM_data4": 4,
    "DW_FORM_ref4": 4,
    "DW_FORM_ref_sup4": 4,
    "DW_FORM_strx4": 4,
    "DW_FORM_addrx4": 4,
    "DW_FORM_data8": 8,
    "DW_FORM_ref8": 8,
    "DW_FORM_ref_sig8": 8,
    "DW_FORM_ref_sup8": 8,
    "DW_FORM_data16": 16,
    "DW_FORM_flag_present": 0,
    "DW_FORM_implicit_const": 0,
}
_OFFSETS = {
    "DW_FORM_strp",
    "DW_FORM_line_strp",
    "DW_FORM_strp_sup",
    "DW_FORM_sec_offset",
    "DW_FORM_ref_addr",
    "DW_FORM_GNU_ref_alt",
    "DW_FORM_GNU_strp_alt",
}
_LEB = {
    "DW_FORM_udata",
    "DW_FORM_sdata",
    "DW_FORM_ref_udata",
    "DW_FORM_strx",
    "DW_FORM_addrx",
    "DW_FORM_loclistx",
    "DW_FORM_rnglistx",
    "DW_FORM_GNU_addr_index",
    "DW_FORM_GNU_str_index",
}
_BLOCKS = {"DW_FORM_block1": 1, "DW_FORM_block2": 2, "DW_FORM_block4": 4}
_LEB_BLOCKS = {"DW_FORM_block", "DW_FORM_exprloc"}


class Dwarf:
    """The debug information of the file at `path`.

    Nothing is read before the first question. Damage is no error: there is no answer then. But
    it may take any time and memory to find out: use `_dwarf_process`.
    """

    def __init__(self, path: str) -> None:
        self.too_large = False
        """Whether answers are missing because there is too much to read."""
        self._path = path
        self._dwarf: Any = None
        self._usable = True
        self._units: list[tuple[int, int, Any]] = []
        self._functions: dict[int, list[tuple[int, int, int]]] = {}
        self._rows: dict[int, list[_Row]] = {}

    def find(self, address: int, innermost: Activation | None = None) -> tuple[Activation, ...]:
        """Return the activations at `address`, innermost first; () when nothing is known.

        `innermost` has the file and line of the address itself, where they are known already.
        Raises MemoryError.
        """
        try:
            if self._dwarf is None and self._usable:
                self._usable = False
                self._dwarf = self._opened()
                self._usable = self._dwarf is not None
                self.too_large = not self._usable
                if self._usable:
                    self._units = self._all_units()
            return self._find(address, innermost) if self._usable else ()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001
            # Written by anyone: whatever is wrong with it, there is no answer.
            return ()

    def _opened(self) -> Any:
        from elftools.elf.elffile import ELFFile

        with Path(self._path).open("rb") as file:
            elf = ELFFile(file)
            size = sum(
                int(section.data_size)
                for section in elf.iter_sections()
                if section.name.startswith((".debug_", ".zdebug_", ".eh_frame"))
            )
            if size > _MOST_BYTES:
                return None
            return elf.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)

    def _find(self, address: int, innermost: Activation | None) -> tuple[Activation, ...]:
        unit = self._unit_at(address)
        if unit is None:
            return ()
        if innermost is None:
            innermost = self._place_at(unit, address)
        if unit.cu_offset not in self._functions:
            self._functions[unit.cu_offset] = []  # stays so when it is damaged
            self._functions[unit.cu_offset] = sorted(self._functions_of(unit))
        functions = self._functions[unit.cu_offset]
        at = bisect_right(functions, (address, 1 << 64, 0)) - 1
        if at < 0 or address >= functions[at][1]:
            return (innermost,) if innermost.line else ()
        chain = [unit.get_DIE_from_refaddr(functions[at][2])]
        chain += self._inlined(unit, functions[at][2], address)
        found = []
        file, line, column = innermost.file, innermost.line, innermost.column
        for die in reversed(chain):
            found.append(Activation(_name(die), file, line, column))
            file = self._file_of(unit, _value(die, "DW_AT_call_file"))
            line = _value(die, "DW_AT_call_line") or None
            column = _value(die, "DW_AT_call_column") or None
        return tuple(found)

    def _all_units(self) -> list[tuple[int, int, Any]]:
        units: list[tuple[int, int, Any]] = []
        for unit in self._dwarf.iter_CUs():
            try:
                top = unit.get_top_DIE()
                if top.tag in _UNITS:
                    spans = list(self._ranges(unit, top))
                    units += [(low, high, unit) for low, high in spans if 0 < low < high]
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001, S112
                continue  # one that is damaged must not cost the others
        return sorted(units, key=lambda each: each[:2])

    def _unit_at(self, address: int) -> Any:
        at = bisect_right(self._units, address, key=lambda each: each[0]) - 1
        return self._units[at][2] if at >= 0 and address < self._units[at][1] else None

    def _ranges(self, unit: Any, die: Any) -> Iterator[tuple[int, int]]:
        low, high = die.attributes.get("DW_AT_low_pc"), die.attributes.get("DW_AT_high_pc")
        if low is not None and high is not None:
            start = low.value
            yield start, high.value if high.form == "DW_FORM_addr" else start + high.value
            return
        ranges = die.attributes.get("DW_AT_ranges")
        if ranges is None:
            return
        top = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
        base = top.value if top is not None else 0
        if unit.header["version"] < 5:
            yield from self._old_list(unit, ranges.value, base)
            return
        for entry in self._dwarf.range_lists().get_range_list_at_offset(ranges.value, cu=unit):
            if hasattr(entry, "base_address"):
                base = entry.base_address
            elif getattr(entry, "is_absolute", False):
                yield entry.begin_offset, entry.end_offset
            else:
                yield entry.begin_offset + base, entry.end_offset + base

    def _old_list(self, unit: Any, offset: int, base: int) -> Iterator[tuple[int, int]]:
        width = unit.header["address_size"]
        stream = self._dwarf.debug_ranges_sec.stream
        for number in range(_MOST_RANGES):
            stream.seek(offset + 2 * width * number)
            pair = stream.read(2 * width)
            start = int.from_bytes(pair[:width], "little")
            end = int.from_bytes(pair[width:], "little")
            if len(pair) < 2 * width or (not start and not end):
                return
            if start == (1 << 8 * width) - 1:
                base = end
            else:
                yield base + start, base + end

    def _functions_of(self, unit: Any) -> Iterator[tuple[int, int, int]]:
        """Yield (start, end, offset) of each function with code, however deep it is defined."""
        for entry in self._entries(unit, unit.cu_die_offset):
            if not entry.is_function:
                continue
            span = self._span(unit, entry)
            spans = [span] if span is not None else self._ranges(unit, entry.decoded(unit))
            for low, high in spans:
                if 0 < low < high:
                    yield low, high, entry.offset

    def _span(self, unit: Any, entry: _Entry) -> tuple[int, int] | None:
        """Return where a function lies that is in one piece; without pyelftools, which is slow."""
        low: int | None = None
        high: int | None = None
        is_size = False
        at = entry.at
        for name, form, step in entry.plan.attributes:
            after = step(entry.data, at)
            if name == "DW_AT_low_pc":
                low = self._address(unit, form, entry.data[at:after])
            elif name == "DW_AT_high_pc":
                high = _number(form, entry.data[at:after])
                is_size = form != "DW_FORM_addr"
            at = after
        if low is None or high is None:
            return None
        return low, low + high if is_size else high

    def _address(self, unit: Any, form: str, raw: bytes) -> int | None:
        if form.startswith("DW_FORM_addrx"):
            index = _leb(raw, 0)[0] if form == "DW_FORM_addrx" else int.from_bytes(raw, "little")
            return int(self._dwarf.get_addr(unit, index))
        return _number(form, raw)

    def _inlined(self, unit: Any, function: int, address: int) -> list[Any]:
        """Return what is inlined at the address into the function there, outermost first."""
        found: list[Any] = []
        for entry in self._entries(unit, function):
            if entry.offset == function:
                continue
            if entry.depth <= 0 or len(found) == _MOST_DEPTH:
                break
            if entry.is_function:
                continue
            die = entry.decoded(unit)
            if any(low <= address < high for low, high in self._ranges(unit, die)):
                found.append(die)
        return found

    def _entries(self, unit: Any, start: int) -> Iterator[_Entry]:
        """Yield functions and inlined functions with code from the entry at `start` on.

        Most entries are types and variables; they are stepped over without being decoded. An
        entry of depth 0 or less, counted from the first one, ends the first one.
        """
        abbreviations = unit.get_abbrev_table()
        stream = self._dwarf.debug_info_sec.stream
        stream.seek(start)
        data = stream.read(unit.cu_offset + unit.size - start)
        plans: dict[int, _Plan] = {}
        at, depth, size = 0, 0, len(data)
        while at < size:
            offset = start + at
            code, at = _leb(data, at)
            if not code:
                depth -= 1
                if depth <= 0:
                    return
                continue
            plan = plans.get(code)
            if plan is None:
                plan = plans[code] = _plan(abbreviations.get_abbrev(code), unit)
            if plan.is_function is not None:
                yield _Entry(offset, depth, plan.is_function, plan, data, at)
            at += plan.lead
            for step in plan.steps:
                at = step(data, at)
            depth += plan.has_children

    def _place_at(self, unit: Any, address: int) -> Activation:
        if unit.cu_offset not in self._rows:
            self._rows[unit.cu_offset] = []
            self._rows[unit.cu_offset] = self._rows_of(unit)
        rows = self._rows[unit.cu_offset]
        at = bisect_right(rows, address, key=lambda row: row.address) - 1
        if at < 0 or not rows[at].runs:
            return Activation(None, None, None, None)
        row = rows[at]
        file = self._file_of(unit, row.file)
        return Activation(None, file, row.line or None, row.column or None)

    def _rows_of(self, unit: Any) -> list[_Row]:
        program = self._dwarf.line_program_for_CU(unit)
        if program is None:
            return []
        states = [entry.state for entry in program.get_entries() if entry.state is not None]
        rows: list[_Row] = []
        begin = 0
        for state in states:
            runs = not state.end_sequence
            rows.append(_Row(state.address, runs, state.file, state.line, state.column))
            if not runs:
                if not rows[begin].address:
                    del rows[begin:]  # of a function that the linker left out
                begin = len(rows)
        # Sequences are in no order, and one may begin where another ends; of the rows of one
        # address the last one counts.
        rows.sort(key=lambda row: row[:2])
        return rows

    def _file_of(self, unit: Any, number: int | None) -> str | None:
        program = self._dwarf.line_program_for_CU(unit)
        if number is None or program is None:
            return None
        header = program.header
        new = header["version"] >= 5
        if not new and not number:
            return None
        try:
            entry = header["file_entry"][number if new else number - 1]
            name = _text(entry.name)
            here = _text(unit.get_top_DIE().attributes["DW_AT_comp_dir"].value)
            folders = [_text(each) for each in header["include_directory"]]
            if not new:
                folders.insert(0, here)
            folder = folders[entry.dir_index]
        except (LookupError, AttributeError):
            return None
        if name is None or folder is None:
            return None
        base = folders[0] if entry.dir_index else ""
        return os.path.normpath(Path(base or "", folder, name))


class _Row(NamedTuple):
    """A row of the line table. `runs` is false where a sequence ends."""

    address: int
    runs: bool
    file: int
    line: int
    column: int


_Step = Callable[[bytes, int], int]  # from the position of an attribute to the next


class _Plan(NamedTuple):
    """How to step over an entry: so many bytes, then the steps."""

    is_function: bool | None  # a function with code; inlined, with code; None: neither
    has_children: bool
    lead: int
    steps: tuple[_Step, ...]
    attributes: tuple[tuple[str, str, _Step], ...]  # name, form and step of each one


class _Entry(NamedTuple):
    """A function. Its attributes begin at `at` in `data`."""

    offset: int
    depth: int
    is_function: bool
    plan: _Plan
    data: bytes
    at: int

    def decoded(self, unit: Any) -> Any:
        return unit.get_DIE_from_refaddr(self.offset)


def _text(raw: Any) -> str | None:
    """None for what is in a file that dwz made for several: pyelftools gives its position."""
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")
    return raw if isinstance(raw, str) else None


def _value(die: Any, name: str) -> int | None:
    attribute = die.attributes.get(name)
    return attribute.value if attribute is not None else None


def _name(die: Any) -> str | None:
    try:
        return _name_by_links(die)
    except Exception:  # noqa: BLE001
        return None  # in a file that dwz made for several, most of the time


def _name_by_links(die: Any) -> str | None:
    for _ in range(4):  # inlined → abstract instance → declaration
        attribute = die.attributes.get("DW_AT_name")
        if attribute is not None:
            return _text(attribute.value)
        for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
            if link in die.attributes:
                die = die.get_DIE_from_attribute(link)
                break
        else:
            return None
    return None


def _plan(abbreviation: Any, unit: Any) -> _Plan:
    header = unit.header
    specs = [(str(each.name), str(each.form)) for each in abbreviation["attr_spec"]]
    is_function = _WANTED.get(abbreviation["tag"])
    if {"DW_AT_low_pc", "DW_AT_ranges"}.isdisjoint(name for name, _ in specs):
        is_function = None
    lead = 0
    steps: list[_Step] = []
    attributes = []
    for name, form in specs:
        width = _width(
            form, unit.structs.dwarf_format // 8, header["address_size"], header["version"]
        )
        step = _stepper(form) if width is None else partial(_over, width)
        attributes.append((name, form, step))
        if width is None or steps:
            steps.append(step)
        else:
            lead += width
    return _Plan(is_function, abbreviation.has_children(), lead, tuple(steps), tuple(attributes))


def _number(form: str, raw: bytes) -> int | None:
    if form == "DW_FORM_udata":
        return _leb(raw, 0)[0]
    if form == "DW_FORM_addr" or form.startswith("DW_FORM_data"):
        return int.from_bytes(raw, "little")
    return None


def _width(form: str, offset_size: int, address_size: int, version: int) -> int | None:
    if form == "DW_FORM_addr" or (form == "DW_FORM_ref_addr" and version < 3):
        return address_size
    if form in _OFFSETS:
        return offset_size
    return _FIXED.get(form)


def _stepper(form: str) -> _Step:
    if form == "DW_FORM_string":
        return lambda data, at: data.index(0, at) + 1
    if form in _LEB:
        return lambda data, at: _leb(data, at)[1]
    if form in _LEB_BLOCKS:
        return _over_leb_block
    if form in _BLOCKS:
        width = _BLOCKS[form]
        return lambda data, at: at + width + int.from_bytes(data[at : at + width], "little")
    raise ValueError(f"unknown form {form}")


def _over(width: int, data: bytes, at: int) -> int:
    del data
    return at + width


def _over_leb_block(data: bytes, at: int) -> int:
    size, at = _leb(data, at)
    return at + size


def _leb(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value, shift = byte & 0x7F, 7
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits")
