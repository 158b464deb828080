# SPDX-License-Identifier: Apache-2.0
"""Objects and their referrers as told, and what is refused; what is found, the lab proves."""

import pytest

from leakscope.cli import main
from leakscope.errors import TargetError
from leakscope.kernel.live import open_kernel_memory
from leakscope.model.kernel_objects import CacheObjects, KernelObject, Likeness, Referrer
from leakscope.report.ink import Ink
from leakscope.report.kernel_objects import render_cache, render_object

PLAIN = Ink(width=160, colour=False, unicode=False)


def an_object(*referrers, uncounted=(), more=False):
    return KernelObject(
        "/proc/kcore", "6.12.1", True, 0xFFFF888002D88000, "kmalloc-96", 96, referrers, uncounted, more
    )  # fmt: skip


def test_an_object_that_nobody_refers_to_is_lost():
    text = render_object(an_object(uncounted=(("in free memory", 2),)), PLAIN)
    assert "nothing refers to the object of kmalloc-96 at 0xffff888002d88000 (96 B)" in text
    assert "Words that do not count: 2 in free memory." in text
    assert "leakscope kernel scan --dump 0xffff888002d88000" in text


def test_referrers_are_told_with_what_they_lie_in():
    one = an_object(
        Referrer("variable", "table+0x8", 0xFFFFFFFF81000008, 0),
        Referrer("object", "dentry+0x10 of 0xffff88800aa00000", 0xFFFF88800AA00010, 24),
    )
    text = render_object(one, PLAIN)
    assert "2 words refer to the object" in text
    assert "the variable table+0x8" in text
    assert "an object of dentry+0x10 of 0xffff88800aa00000 (to +0x18)" in text
    assert not one.is_lost


def test_too_many_words_are_no_proof_that_nobody_refers():
    one = an_object(uncounted=(("in free memory", 4096),), more=True)
    assert not one.is_lost
    assert "lost" not in render_object(one, PLAIN)


def test_a_cache_is_told_by_what_its_objects_point_to():
    looks = (Likeness(("+0x10 \x1b[31msocket_file_ops",), 90, 0xFFFF888001000000), Likeness((), 10, 0xFFFF888001000400))  # fmt: skip
    cache = CacheObjects("dump", "6.12.1", "filp", ("names",), 256, 100, 120, 100, looks)
    text = render_cache(cache, PLAIN, "leakscope kernel objects --vmcore dump")
    assert "filp holds 100 objects of 256 B, 25.0 KiB; 90 of them point to" in text
    assert "\x1b" not in text
    assert "leakscope kernel objects --vmcore dump 0xffff888001000000" in text
    one = CacheObjects("dump", "6.12.1", "filp", (), 256, 1, 120, 1, (Likeness((), 1, 16),))
    assert "holds 1 object of 256 B, 256 B; it points to nothing" in render_cache(one, PLAIN, "x")
    empty = CacheObjects("dump", "6.12.1", "filp", (), 256, 0, 120, 0, ())
    assert "holds 0 objects" in render_cache(empty, PLAIN, "leakscope kernel objects")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\xff" * 500, b"KDUMP   "])  # fmt: skip
def test_a_file_that_is_no_dump_is_refused(tmp_path, content):
    path = tmp_path / "dump"
    path.write_bytes(content)
    with pytest.raises(TargetError, match=r"dump (cannot be read as|is no dump)"):
        open_kernel_memory(str(path))


def test_a_dump_that_is_not_there_and_an_address_that_is_none(capsys):
    assert main(["kernel", "objects", "filp", "--vmcore", "/nonexistent"]) == 2
    assert "/nonexistent cannot be read: No such file" in capsys.readouterr().err
    assert main(["kernel", "objects", "0xzz"]) == 2
    assert "'0xzz' is no address" in capsys.readouterr().err
