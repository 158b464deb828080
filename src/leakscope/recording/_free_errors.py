# SPDX-License-Identifier: Apache-2.0
"""The list of wrong frees in a live recording, and what of such a list can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.model.free_errors import (
    FreeErrorKind,
    FreeFunction,
    FreeProof,
    RecordedFreeError,
)
from leakscope.recording import layout
from leakscope.recording._facts import FactError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.recording._header import Header
    from leakscope.recording._source import Source

__all__ = ["check_free_errors", "read_free_errors", "unseen_free_errors"]

_MOST = 1 << 62


def read_free_errors(
    source: Source, header: Header, sites: int, nodes: int
) -> tuple[RecordedFreeError, ...]:
    """Read the wrong frees; what makes no sense is left out, what points nowhere is not known."""
    offset = header["free_errors_offset"]
    count = min(header["free_error_count"], layout.MAX_FREE_ERRORS)
    end = offset + count * layout.FREE_ERROR_DTYPE.itemsize
    if not count or offset < header.heap_start or end > header["file_bytes"]:
        return ()
    found = []
    for row in source.array(layout.FREE_ERROR_DTYPE, offset, count):
        value = {name: int(row[name]) for name in layout.FREE_ERROR_DTYPE.names or ()}
        if not _is_sound(value["kind"], value["via"], value["proof"]) or not value["count"]:
            continue
        found.append(
            RecordedFreeError(
                kind=value["kind"],
                via=value["via"],
                proof=value["proof"],
                count=min(value["count"], _MOST),
                returned=min(value["returned"], _MOST),
                address=value["address"],
                size=min(value["size"], _MOST) if value["site"] else None,
                offset=min(value["offset"], _MOST),
                site=value["site"] if value["site"] < sites else 0,
                node=value["node"] if value["node"] < nodes else 0,
                first_node=value["first_node"] if value["first_node"] < nodes else 0,
                time_ns=min(int(value["tick"] * header.tick_ns), _MOST),
                tid=value["tid"],
            )
        )
    return tuple(found)


def unseen_free_errors(header: Header) -> list[str]:
    """Return a sentence for each reason why wrong frees may be missing."""
    found = []
    if lost := header["free_errors_lost"]:
        found.append(f"{lost:,} more wrong frees had no room in the recording")
    if unexamined := header["frees_unexamined"]:
        found.append(
            f"{unexamined:,} frees of blocks that were not recorded were not looked at: wrong ones"
            f" among them are not shown"
        )
    return found


def check_free_errors(errors: Iterable[RecordedFreeError], sites: int, nodes: int) -> None:
    """Raise `FactError` for a wrong free that makes no sense or points nowhere."""
    for each in errors:
        if (
            not _is_sound(each.kind, each.via, each.proof)
            or not 0 <= each.site < sites
            or not 0 <= each.node < nodes
            or not 0 <= each.first_node < nodes
            or min(each.count, each.returned, each.offset, each.time_ns, each.size or 0) < 0
        ):
            raise FactError("one of its wrong frees makes no sense")


def _is_sound(kind: int, via: int, proof: int) -> bool:
    return all(
        value in set(numbers)
        for value, numbers in ((kind, FreeErrorKind), (via, FreeFunction), (proof, FreeProof))
    )
