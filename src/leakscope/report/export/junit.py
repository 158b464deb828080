# SPDX-License-Identifier: Apache-2.0
"""JUnit's XML, as CI servers read it: a suite for each process, a failed case for each leak."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from leakscope.report.export._places import leaks, over_budget
from leakscope.report.export._samples import base_name, frame_name, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported

__all__ = ["write"]

# What XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the document."""
    top = ET.Element("testsuites", name="leakscope")
    totals = {"tests": 0, "failures": 0, "errors": 0}
    for one in every:
        suite = _suite(one, root)
        top.append(suite)
        for name in totals:
            totals[name] += int(suite.get(name, "0"))
    for name, value in totals.items():
        top.set(name, str(value))
    ET.indent(top)
    data: bytes = ET.tostring(top, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _suite(one: Exported, root: str) -> ET.Element:
    findings = one.findings
    seconds = f"{(findings.duration_ns or 0) / 1e9:.3f}"
    suite = ET.Element("testsuite", name=_text(one.label))
    program = _text(base_name(findings.process.exe or one.label))
    failures = 0
    for leak in leaks([one], root):
        name = frame_name(leak.finding.source) if leak.finding.source else leak.fingerprint
        case = _case(suite, program, f"{name} ({leak.fingerprint})")
        if leak.file is not None:
            case.set("file", _text(leak.file))
            case.set("line", str(leak.line))
        failure = ET.SubElement(
            case, "failure", message=_text(leak.title), type=leak.finding.verdict.value
        )
        stack = [f"  {frame}" for frame in leak.stack]
        failure.text = _text("\n".join([leak.message, *(one_line(line) for line in stack)]))
        failures += 1
    for error in findings.free_errors:
        case = _case(suite, program, f"{error.kind} by {error.function}")
        failure = ET.SubElement(case, "failure", message=_text(error.sentence), type="wrong free")
        failure.text = _text("\n".join(one_line(f"  {frame}") for frame in error.stack))
        failures += 1
    for text in over_budget([one]):
        case = _case(suite, program, f"budget: {text.partition(' holds')[0]}")
        ET.SubElement(case, "failure", message=_text(text), type="budget")
        failures += 1
    if not failures:
        case = _case(suite, program, "no leak")
        if findings.undecided:
            ET.SubElement(case, "skipped", message=_text(f"undecided: {findings.headline}"))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("time", seconds)
    return suite


def _case(suite: ET.Element, program: str, name: str) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", classname=f"leakscope.{program}", name=_text(name), time="0"
    )


def _text(text: str) -> str:
    return _FORBIDDEN.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
