# SPDX-License-Identifier: Apache-2.0
"""Answers as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

from leakscope.report.html.page import to_html

__all__ = ["to_html"]
