# SPDX-License-Identifier: Apache-2.0
"""An image keeps the memory of one moment while the process goes on."""

import platform

import pytest

from leakscope.target import image
from leakscope.target.areas import is_copied, read_areas
from leakscope.target.image import open_image
from leakscope.target.memory import Range
from leakscope.target.resident import Resident

TEXT = b"what is in its memory\0"
LONG = 10.0  # a pause that is long enough beside whatever else runs
METHODS = ["copied"] + (["forked"] if platform.machine() == "x86_64" else [])


@pytest.mark.parametrize("method", METHODS)
def test_the_image_stays_as_it_was_while_the_process_goes_on(program, method):
    with open_image(program.pid, max_pause_s=LONG, only=method) as image:
        assert image.method == method
        assert {t.tid for t in image.threads} >= {program.pid}
        assert len(image.threads) == 3
        before = image.read(program.counters, 16)
        while program.count() == before:
            pass
        assert image.read(program.counters, 16) == before
        assert image.read(program.text, len(TEXT)) == TEXT
        image.check()
        memory = Resident(image)
        assert memory.read(program.text, len(TEXT)) == TEXT
        assert memory.read(0, 8) == b""
    assert program.ends_well()


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_split_into_what_is_there(program, method):
    with open_image(program.pid, max_pause_s=LONG, only=method) as image:
        data = next(m for m in image.mappings if m.start <= program.text < m.end)
        inside, words = image.split([Range(data.start, data.end)])
        assert any(each.start <= program.text < each.end for each in inside)
        assert all(data.start <= each.start < each.end <= data.end for each in inside)
        assert list(words) == []


def test_what_is_the_same_as_in_a_file_need_not_be_copied(program):
    areas = read_areas(program.pid)
    code = next(a for a in areas if "x" in a.mapping.permissions and a.mapping.path.startswith("/"))
    data = next(a for a in areas if a.mapping.start <= program.text < a.mapping.end)
    kernels = next(a for a in areas if a.mapping.path == "[vdso]")
    assert code.to_copy == 0 < code.resident
    assert data.to_copy >= 4096
    assert not is_copied(kernels.mapping)
    assert sum(a.to_copy for a in areas) < sum(a.resident for a in areas)


@pytest.mark.parametrize(
    ("needed_s", "hint"),
    [
        (1.0, "--max-pause 1.6 lets it be stopped for that long."),
        (0.02, "try again when the machine is calmer, or --max-pause 0.2 allows more."),
    ],
)
def test_what_was_not_scanned_says_what_to_do_also_where_it_should_have_been_possible(
    needed_s, hint
):
    refused = {"copied": "its 9 bytes could not be copied within 0.1 s", "forked": "it changes"}
    error = image._no_image(7, {"needed_s": needed_s, "refused": refused}, 0.1)
    assert str(error).startswith("process 7 was not scanned, because")
    assert error.hint.endswith(hint)
