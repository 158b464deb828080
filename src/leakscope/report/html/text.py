# SPDX-License-Identifier: Apache-2.0
"""What a page says without scripts: verdict, accounts, findings and coverage, as plain HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from leakscope.words import bytes_text, count_text, percent_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.answers import AccountTable, Answer, FrameText, Result, Stack, Step

__all__ = ["answer_text", "as_text"]

_RESULTS = 50  # told in full without scripts
_ANSWERS = 20


def as_text(answers: Sequence[Answer], headline: str) -> str:
    """Return the body of a page without scripts."""
    parts = [answer_text(answer, alone=len(answers) == 1) for answer in answers[:_ANSWERS]]
    if len(answers) > 1:
        parts.insert(0, f"<h1>{escape(headline)}</h1>")
    if answers[_ANSWERS:]:
        parts.append(f"<p>And {len(answers) - _ANSWERS} more, shown with scripts.</p>")
    return "\n".join(parts)


def answer_text(answer: Answer, *, alone: bool = True) -> str:
    """Return one answer as HTML."""
    level = 1 if alone else 2
    parts = [f"<h{level} class={answer.tone}>{escape(answer.headline)}</h{level}>"]
    if not any(text.startswith(answer.subject) for text in answer.about):
        parts.append(f"<p>{escape(answer.subject)}</p>")
    parts += [f"<p>{escape(text)}</p>" for text in answer.about]
    parts += [f"<p class=warning>Warning: {escape(text)}</p>" for text in answer.warnings]
    parts += [_step(step) for step in answer.steps]
    parts += [_account(account) for account in answer.accounts]
    shown = [each for each in answer.results if each.quiet is None][:_RESULTS]
    if shown:
        parts.append(f"<h{level + 1}>Findings</h{level + 1}><ol>")
        parts += [_result(result) for result in shown]
        parts.append("</ol>")
    rest = len(answer.results) - len(shown) + answer.left_out
    if rest:
        parts.append(f"<p>{count_text(rest)} more, quiet or smaller, are shown with scripts.</p>")
    if answer.courses:
        parts.append(_courses(answer))
    parts.append("<dl>")
    parts += [f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in answer.coverage]
    parts.append("</dl>")
    return "\n".join(parts)


def _step(step: Step) -> str:
    return f"<p class=step>Next: {escape(step.text)}</p>"


def _account(account: AccountTable) -> str:
    is_bytes = account.unit == "bytes"
    rows = [
        f"<tr><td>{escape(row.name)}</td><td>{bytes_text(row.amount) if is_bytes else count_text(row.amount)}"
        f"</td><td>{percent_text(row.amount, account.total)}</td><td>{escape(row.what)}</td></tr>"
        for row in account.rows
    ]
    total = bytes_text(account.total) if is_bytes else count_text(account.total)
    foot = f"<tr><td>{escape(account.total_name)}</td><td>{total}</td><td></td><td></td></tr>"
    return (
        f"<table><caption>{escape(account.title)}</caption><tbody>{''.join(rows)}</tbody>"
        f"<tfoot>{foot}</tfoot></table>"
    )


def _result(result: Result) -> str:
    head = ", ".join(x for x in (result.amount_text, result.remark) if x)
    verdict = f"<strong class={result.tone}>{escape(result.verdict.upper())}</strong>"
    place = f"{verdict} {escape(result.title)} {escape(result.where)}"
    parts = [f"<li><p>{place}</p><p>{escape(head)}</p><p>{escape(result.sentence)}</p>"]
    if result.source:
        rows = [
            f"{'>' if number == result.source_line else ' '} {number:>5} {text}"
            for number, text in result.source
        ]
        parts.append(f"<pre>{escape(chr(10).join(rows))}</pre>")
    parts += [_stack(stack) for stack in result.stacks]
    signs = [f"<li>{'+' if e.supports else '-'} {escape(e.text)}</li>" for e in result.evidence]
    if signs:
        parts.append(f"<ul>{''.join(signs)}</ul>")
    parts += [f"<p>{escape(line)}</p>" for line in result.lines]
    if result.step is not None:
        command = f" <code>{escape(result.step.command)}</code>" if result.step.command else ""
        parts.append(f"<p class=step>Next: {escape(result.step.text)}{command}</p>")
    parts.append(f"<p class=dim>{escape(', '.join(result.identities))}</p></li>")
    return "".join(parts)


def _stack(stack: Stack) -> str:
    rows = [f"<li>{_place(place)}</li>" for place in stack.places]
    return f"<p>{escape(stack.title)}</p><ol class=stack>{''.join(rows)}</ol>"


def _place(place: FrameText) -> str:
    where = place.module or ""
    if place.file is not None:
        where = f"{place.file}:{place.line}" if place.line is not None else place.file
    return f"{escape(place.function)} <span class=dim>{escape(where)}</span>"


def _courses(answer: Answer) -> str:
    rows = [
        f"<tr><td>{escape(course.subject)}</td><td>{escape(course.name)}</td>"
        f"<td>{escape(course.verdict)}</td><td>{escape(course.sentence)}</td>"
        f"<td>{escape(course.limit_text)}</td></tr>"
        for course in answer.courses[:_RESULTS]
    ]
    more = len(answer.courses) - len(rows) + answer.left_out
    rest = f"<p>And {count_text(more)} more gauges.</p>" if more else ""
    return f"<table><caption>Gauges</caption><tbody>{''.join(rows)}</tbody></table>{rest}"
