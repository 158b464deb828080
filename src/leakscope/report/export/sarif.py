# SPDX-License-Identifier: Apache-2.0
"""SARIF 2.1.0 as GitHub's code scanning and editors take it: a result for each leaking place.

Paths are relative to the root, fingerprints survive a rebuild, and the call stack is a code flow,
outermost frame first. GitHub keeps 5,000 results of an upload; no more are written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from leakscope.report.export._places import leaks, over_budget, relative_file, undecided
from leakscope.report.export._samples import base_name, encoded, frame_name, one_line, version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame
    from leakscope.model.free_errors import FreeError
    from leakscope.report.export import Exported
    from leakscope.report.export._places import Leak

__all__ = ["write"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_MOST_RESULTS = 5000
_MOST_FRAMES = 200
_RULES = {
    "lost-memory": (
        "LostMemory",
        "Nothing points to the memory any more",
        (
            "At the end of the run no register, stack, global variable or reachable block held a"
            " pointer to these blocks: nothing can free them."
        ),
    ),
    "leaking-memory": (
        "LeakingMemory",
        "Memory that is kept grows all the time",
        "Blocks from every part of the run are kept, and old ones are not freed.",
    ),
    "wrong-free": (
        "WrongFree",
        "Memory is freed in a way that is undefined",
        "A block was freed twice, by the wrong function, or was never allocated.",
    ),
}


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the document."""
    found = leaks(every, root)
    errors = [(one, each) for one in every for each in one.findings.free_errors]
    results = [_leak(leak, root) for leak in found] + [_error(each, root) for _, each in errors]
    told = [f"{label}: {findings.headline}" for label, findings in undecided(every)]
    told += [f"over budget: {text}" for text in over_budget(every)]
    if len(results) > _MOST_RESULTS:
        told.append(f"{len(results) - _MOST_RESULTS} more results are left out")
    driver: dict[str, Any] = {"name": "leakscope", "rules": _rules()}
    if version():
        driver["version"] = version()
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": "leakscope/"},
        "columnKind": "utf16CodeUnits",
        "originalUriBaseIds": {"SRCROOT": {"uri": f"file://{_quoted(root.rstrip('/'))}/"}},
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": one_line(text)}} for text in told
                ],
            }
        ],
        "results": results[:_MOST_RESULTS],
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return encoded(json.dumps(document, indent=1)) + b"\n"


def _rules() -> list[dict[str, Any]]:
    return [
        {
            "id": rule,
            "name": name,
            "shortDescription": {"text": short},
            "fullDescription": {"text": full},
            "help": {"text": f"{full} The code flow of a result is its call stack."},
            "defaultConfiguration": {"level": "error"},
            "properties": {"tags": ["memory", "reliability"], "precision": "very-high"},
        }
        for rule, (name, short, full) in _RULES.items()
    ]


def _leak(leak: Leak, root: str) -> dict[str, Any]:
    finding = leak.finding
    rule = "lost-memory" if finding.verdict.value == "lost" else "leaking-memory"
    return {
        "ruleId": rule,
        "ruleIndex": list(_RULES).index(rule),
        "level": "error",
        "message": {"text": f"{leak.title}. {leak.message}"},
        "locations": [_primary(leak.file, leak.line, finding.source, leak.stack)],
        "partialFingerprints": {"leakscopeStack/v1": leak.fingerprint},
        "codeFlows": _flow(leak.stack, root),
        "properties": {
            "leakBytes": leak.place.bytes,
            "leakBlocks": leak.place.count,
            "processes": len(leak.place.parts),
            "confidence": finding.confidence,
        },
    }


def _error(error: FreeError, root: str) -> dict[str, Any]:
    frames = [error.source, *error.stack]
    below = [f for f in frames if f is not None and f.file and relative_file(f.file, root)]
    frame = below[0] if below else None
    file = relative_file(frame.file, root) if frame is not None and frame.file else None
    line = frame.line if frame is not None and frame.line else 1
    where = "" if frame is None else f"{frame_name(frame)}:{file}"
    return {
        "ruleId": "wrong-free",
        "ruleIndex": list(_RULES).index("wrong-free"),
        "level": "error",
        "message": {"text": one_line(error.sentence)},
        "locations": [_primary(file, line, error.source, error.stack)],
        "partialFingerprints": {"leakscopeFree/v1": f"{error.kind}:{error.function}:{where}"},
        "codeFlows": _flow(error.stack, root),
    }


def _primary(
    file: str | None, line: int, source: Frame | None, stack: Sequence[Frame]
) -> dict[str, Any]:
    """Return the location of a result; GitHub refuses a result without a file.

    Where no frame lies below the root, that is the module, by its name alone.
    """
    frame = source or next(iter(stack), None)
    if file is None:
        module = None if frame is None else frame.module_path or frame.file
        file, line = base_name(module or "unknown") or "unknown", 1
    found: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": _quoted(file), "uriBaseId": "SRCROOT"},
            "region": {"startLine": line},
        }
    }
    if frame is not None:
        found["logicalLocations"] = [_logical(frame)]
    return found


def _logical(frame: Frame) -> dict[str, Any]:
    return {"fullyQualifiedName": frame_name(frame), "kind": "function"}


def _flow(stack: Sequence[Frame], root: str) -> list[dict[str, Any]]:
    frames = [frame for frame in stack if not frame.artificial][:_MOST_FRAMES]
    if not frames:
        return []
    steps = [{"location": _step(frame, root)} for frame in reversed(frames)]
    return [{"threadFlows": [{"locations": steps}]}]


def _step(frame: Frame, root: str) -> dict[str, Any]:
    if frame.file is not None:
        file = relative_file(frame.file, root)
        place = {"uri": _quoted(file), "uriBaseId": "SRCROOT"} if file else _absolute(frame.file)
    else:
        place = _absolute(frame.module_path or "unknown")
    physical: dict[str, Any] = {"artifactLocation": place}
    # A step without a line would be refused: the beginning of the file.
    physical["region"] = {"startLine": frame.line or 1}
    return {
        "physicalLocation": physical,
        "logicalLocations": [_logical(frame)],
        "message": {"text": frame_name(frame)},
    }


def _absolute(path: str) -> dict[str, str]:
    if path.startswith("/"):
        return {"uri": f"file://{_quoted(path)}"}
    return {"uri": _quoted(base_name(path)) or "unknown"}


def _quoted(path: str) -> str:
    return quote(one_line(path).encode("utf-8", "backslashreplace"), safe="/._-~+@,=")
