# SPDX-License-Identifier: Apache-2.0
"""What a watch of a virtual machine makes of looks that a collection or a busy machine disturbed."""

import numpy as np
import pytest

from leakscope.java import watching
from leakscope.model.series import Series, Subject

MIB = 1 << 20


def outside(values):
    times = np.arange(len(values), dtype=np.int64) * 250_000_000
    subject = Subject("java", "1@1", "x", 1)
    return Series(subject, "outside_heap", "bytes", times, np.array(values, np.float64) * MIB)


@pytest.mark.parametrize(
    ("values", "grown"),
    [
        ([*range(40, 100, 4), 95.5], 45),  # it fell at the last look, and grew all the same
        ([40, 60, 62, 62.1, *[62.2] * 12], 0),  # warm-up
        ([40] * 16, 0),
        ([40, 52] * 8, 0),
    ],
)
def test_growth_outside_the_heap_is_not_lost_by_one_fall(values, grown):
    assert watching._steady(outside(values)) >= grown * MIB
    assert (watching._steady(outside(values)) > 0) == (grown > 0)


def moments(**classes):
    return [
        watching._Moment(
            10.0 * n, {name: (10, size * MIB) for name, size in each.items()}, None, None, 1.0
        )
        for n, each in enumerate(
            [
                dict(zip(classes, sizes, strict=True))
                for sizes in zip(*classes.values(), strict=True)
            ]
        )
    ]


def test_gaps_that_a_collection_fills_are_no_growth():
    """They stand among the arrays of int in a histogram, or in classes of their own."""
    seen = moments(**{"int[]": (1, 2, 3, 4), "byte[]": (30, 30, 30, 30)})
    assert watching._classes(seen, 4.0 * MIB) == []
    assert [one.class_name for one in watching._classes(seen, 2.0 * MIB)] == ["int[]"]
    seen = moments(**{"jdk.internal.vm.FillerElement[]": (1, 20, 30, 40), "byte[]": (9, 9, 9, 9)})
    assert watching._classes(seen, 0.0) == []
