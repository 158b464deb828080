# SPDX-License-Identifier: Apache-2.0
"""Answers as the one block of data in a page: what frontend/src/data.ts reads.

A length, a JSON document and columns, each at a multiple of eight bytes, all little-endian; deflated
and in base64, so that no name in it can end the element that it stands in. A column is named by
its type, where it begins and how many values it has.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.model.answers import (
        AccountTable,
        Answer,
        FrameText,
        GaugeCourse,
        Lives,
        Profile,
        Result,
        Step,
    )
    from leakscope.model.holders import Holding

__all__ = ["encode"]

_TYPES = {"float64": "<f8", "float32": "<f4", "int32": "<i4", "uint8": "u1"}
_LEVEL = 1  # of compression: higher ones take three times as long for a tenth


class _Encoder:
    """Columns and strings that many parts of a page share."""

    def __init__(self) -> None:
        self.columns: list[bytes] = []
        self.size = 0
        self.strings: dict[str, int] = {}
        self.places: dict[FrameText, int] = {}

    def column(self, values: npt.ArrayLike, kind: str) -> list[int | str]:
        """Return the reference to a new column."""
        data = np.ascontiguousarray(values, _TYPES[kind]).tobytes()
        at = self.size
        padding = -len(data) % 8
        self.columns.append(data + bytes(padding))
        self.size += len(data) + padding
        return [kind, at, len(data) // np.dtype(_TYPES[kind]).itemsize]

    def string(self, text: str | None) -> int:
        """Return the number of a string, -1 for none."""
        return -1 if text is None else self.strings.setdefault(text, len(self.strings))

    def place(self, place: FrameText) -> int:
        """Return the number of a place."""
        return self.places.setdefault(place, len(self.places))

    def place_columns(self) -> dict[str, Any]:
        """Return the table of all places."""
        rows = [
            (
                self.string(place.function),
                self.string(place.file),
                place.line or 0,
                self.string(place.module),
                place.own | place.inlined << 1,
            )
            for place in self.places
        ]
        table = np.array(rows, np.int64).reshape(-1, 5).T
        names = ("function", "file", "line", "module", "flags")
        return {
            name: self.column(np.clip(each, -1, 2**31 - 1), "int32")
            for name, each in zip(names, table, strict=True)
        }


def encode(answers: Sequence[Answer], compare: tuple[int, int] | None = None) -> str:
    """Return the data of a page in base64.

    `compare` are the numbers of the answers that are compared, the earlier one first.
    """
    into = _Encoder()
    document: dict[str, Any] = {
        "version": 1,
        "answers": [_answer(answer, into) for answer in answers],
        "compare": compare,
    }
    document["places"] = into.place_columns()
    document["strings"] = list(into.strings)
    # What is no text, a half surrogate of a file's name, arrives as an escape.
    text = json.dumps(document, allow_nan=False).encode("ascii")
    text += b" " * (-(len(text) + 8) % 8)
    packed = zlib.compressobj(_LEVEL)
    parts = [packed.compress(len(text).to_bytes(8, "little") + text)]
    parts += [packed.compress(column) for column in into.columns]
    return base64.b64encode(b"".join([*parts, packed.flush()])).decode("ascii")


def _answer(answer: Answer, into: _Encoder) -> dict[str, Any]:
    return {
        "command": answer.command,
        "subject": answer.subject,
        "tone": answer.tone,
        "headline": answer.headline,
        "about": answer.about,
        "warnings": answer.warnings,
        "steps": [_step(step) for step in answer.steps],
        "accounts": [_account(account) for account in answer.accounts],
        "results": [_result(result, into) for result in answer.results],
        "leftOut": answer.left_out,
        "courses": [_course(course, into) for course in answer.courses],
        "coverage": answer.coverage,
        "profile": None if answer.profile is None else _profile(answer.profile, into),
    }


def _step(step: Step | None) -> dict[str, Any] | None:
    return None if step is None else {"text": step.text, "command": step.command}


def _account(account: AccountTable) -> dict[str, Any]:
    return {
        "title": account.title,
        "unit": account.unit,
        "total": account.total,
        "totalName": account.total_name,
        "rows": [[row.name, row.amount, row.what, row.tone] for row in account.rows],
    }


def _result(result: Result, into: _Encoder) -> dict[str, Any]:
    return {
        "key": result.key,
        "verdict": result.verdict,
        "tone": result.tone,
        "title": result.title,
        "where": result.where,
        "sentence": result.sentence,
        "amount": result.amount,
        "amountText": result.amount_text,
        "change": result.change,
        "count": result.count,
        "rate": _finite(result.rate),
        "remark": result.remark,
        "quiet": result.quiet,
        "step": _step(result.step),
        "evidence": [[each.text, each.supports] for each in result.evidence],
        "stacks": [
            {
                "title": stack.title,
                "places": [into.place(place) for place in stack.places],
                "source": stack.source,
            }
            for stack in result.stacks
        ],
        "source": result.source,
        "sourceLine": result.source_line,
        "site": result.site,
        "lives": None if result.lives is None else _lives(result.lives),
        "holders": [_holding(each) for each in result.holders],
        "lines": result.lines,
        "identities": result.identities,
    }


def _lives(lives: Lives) -> dict[str, Any]:
    return {
        "births": lives.births,
        "living": lives.ages_living,
        "dead": lives.ages_dead,
        "tickNs": lives.tick_ns,
        "lifetimeNs": lives.lifetime_ns,
    }


def _holding(holding: Holding) -> dict[str, Any]:
    return {
        "root": holding.root,
        "count": holding.count,
        "path": [[each.holder, each.offset, each.size, each.site] for each in holding.path],
    }


def _course(course: GaugeCourse, into: _Encoder) -> dict[str, Any]:
    return {
        "name": course.name,
        "subject": course.subject,
        "verdict": course.verdict,
        "tone": course.tone,
        "unit": course.unit,
        "times": into.column(course.times_ns, "float64"),
        "values": into.column(course.values, "float64"),
        "sentence": course.sentence,
        "step": _step(course.step),
        "cuts": course.cuts,
        "fit": course.fit,
        "limit": _finite(course.limit),
        "limitText": course.limit_text,
        "facts": course.facts,
    }


def _profile(profile: Profile, into: _Encoder) -> dict[str, Any]:
    numbers = np.array([into.place(place) for place in profile.places], np.int64)
    resident = profile.resident_bytes
    return {
        "parents": into.column(profile.parents, "int32"),
        "places": into.column(numbers[profile.place_of], "int32"),
        "sites": into.column(profile.numbers, "int32"),
        "nodes": into.column(profile.node_of, "int32"),
        "kindOf": into.column(profile.kind_of, "uint8"),
        "kinds": profile.kinds,
        "verdicts": into.column(profile.verdicts, "uint8"),
        "verdictNames": profile.verdict_names,
        "measures": {name: into.column(each, "float64") for name, each in profile.measures.items()},
        "times": into.column(profile.times_ns, "float64"),
        "live": into.column(profile.live_bytes, "float64"),
        "resident": None if resident is None else into.column(resident, "float64"),
        "courses": into.column(profile.courses.ravel(), "float32"),
        "courseOf": into.column(profile.course_of, "int32"),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
