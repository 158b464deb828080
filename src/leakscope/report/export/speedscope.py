# SPDX-License-Identifier: Apache-2.0
"""A file of speedscope: a sampled profile for each process, whose weights are bytes held."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from leakscope.report.export._samples import encoded, frame_name, one_line, samples, version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported

__all__ = ["write"]

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the document; `root` says nothing here."""
    del root
    frames: dict[tuple[str, str | None, int | None], int] = {}
    profiles: dict[str, dict[str, Any]] = {}
    for one, sample in samples(every):
        profile = profiles.setdefault(one.label, {"samples": [], "weights": []})
        stack = [(frame_name(f), f.file, f.line) for f in reversed(sample.stack)]
        profile["samples"].append([frames.setdefault(key, len(frames)) for key in stack])
        profile["weights"].append(sample.held_bytes)
    document = {
        "$schema": _SCHEMA,
        "name": one_line(every[0].label) if every else "leakscope",
        "exporter": f"leakscope {version()}",
        "shared": {"frames": [_frame(*key) for key in frames]},
        "profiles": [
            {
                "type": "sampled",
                "name": one_line(f"{label}: bytes held"),
                "unit": "bytes",
                "startValue": 0,
                "endValue": sum(profile["weights"]),
                **profile,
            }
            for label, profile in profiles.items()
        ],
    }
    return encoded(json.dumps(document)) + b"\n"


def _frame(name: str, file: str | None, line: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name}
    if file is not None:
        found["file"] = one_line(file)
    if line:
        found["line"] = line
    return found
