# SPDX-License-Identifier: Apache-2.0
"""The page: text for everybody, data and the script that draws it, and a policy that allows no more."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING

from leakscope._native import path
from leakscope.report.html.encode import encode
from leakscope.report.html.text import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.answers import Answer

__all__ = ["to_html"]

_SCRIPT, _STYLE = "page.js", "page.css"
_PLAIN_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.3rem}table{border-collapse:collapse;margin:1rem 0}td{padding:.1rem .8rem .1rem 0}
caption{text-align:left;font-weight:bold}pre{overflow:auto}
"""
_MISSING = """
<p class="warning">This page is text alone: the leakscope that wrote it was built without the
package that draws it. An installed wheel has it; a checkout gets it with Node.js 18 and npm:
<code>apt-get install nodejs npm</code>, then <code>make native</code>.</p>
"""
_NO_SCRIPTS = (
    "<noscript><p>Plots, graph and table need scripts, which are part of this file.</p></noscript>"
)


def to_html(answers: Sequence[Answer], compare: tuple[int, int] | None = None) -> str:
    """Return the page on one or more answers.

    `compare` are the numbers of two of them that are to be compared, the earlier one first.
    """
    headline = _headline(answers) if compare is None else answers[compare[1]].headline
    script, style = _asset(_SCRIPT), _asset(_STYLE)
    body = as_text(answers, headline)
    if script is None or style is None or not answers:
        missing = _MISSING if script is None or style is None else ""
        head = _head(headline, _PLAIN_STYLE, None)
        parts = [
            head,
            missing,
            f"<main>{body or f'<h1>{escape(headline)}</h1>'}</main></body></html>",
        ]
        return "\n".join(parts) + "\n"
    parts = [
        _head(headline, style, script),
        _NO_SCRIPTS,
        f'<main id="text">{body}</main><div id="app" hidden></div>',
        f'<script type="application/octet-stream" id="data">{encode(answers, compare)}</script>',
        f"<script>{script}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _headline(answers: Sequence[Answer]) -> str:
    if len(answers) == 1:
        return answers[0].headline
    leaking = sum(answer.tone == "alarm" for answer in answers)
    return f"{leaking} of {len(answers)} processes leak" if answers else "no leak found"


def _head(title: str, style: str, script: str | None) -> str:
    scripts = f"script-src {_hash(script)}" if script is not None else "script-src 'none'"
    policy = (
        f"default-src 'none'; {scripts}; style-src {_hash(style)}; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>leakscope: {escape(title)}</title><style>{style}</style></head><body>"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _asset(name: str) -> str | None:
    """Return a part of the page as it was built with this leakscope; None: it was not."""
    try:
        return path(name).read_text(encoding="utf-8")
    except OSError:
        return None
