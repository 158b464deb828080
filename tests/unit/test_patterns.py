# SPDX-License-Identifier: Apache-2.0
"""Regular expressions that are compiled when they are first used."""

import copy
import re

import pytest

from leakscope._patterns import LatePattern


def test_it_does_what_a_compiled_one_does():
    late, now = LatePattern(r"(a)|b+"), re.compile(r"(a)|b+")
    for text in ("a", "bb", "xbbx", "", "ab"):
        for name in ("match", "search", "fullmatch"):
            found, wanted = getattr(late, name)(text), getattr(now, name)(text)
            assert (found and found.span()) == (wanted and wanted.span())
        assert late.sub("-", text) == now.sub("-", text)
        assert late.findall(text) == now.findall(text)


def test_it_is_compiled_once_and_not_before(monkeypatch):
    compiled = []
    compile_ = re.compile
    monkeypatch.setattr(re, "compile", lambda text: compiled.append(text) or compile_(text))
    late = LatePattern("a")
    assert compiled == []
    assert late.search("a")
    assert late.match("a")
    assert compiled == ["a"]


def test_what_it_does_not_have_is_missing():
    with pytest.raises(AttributeError):
        LatePattern("a").split("a")
    assert copy.copy(LatePattern("a")).search("a")
