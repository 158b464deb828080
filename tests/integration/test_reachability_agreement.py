# SPDX-License-Identifier: Apache-2.0
"""What leakscope calls lost at exit is what valgrind calls lost, block by block."""

from collections import Counter

import pytest

from integration.reachability_agreement import Agreement, compare, measure
from integration.valgrind_agreement import Outstanding


@pytest.mark.timeout(400)
def test_programs_of_debian_packages_and_our_own_cases():
    blocks = agree = 0
    seen = []
    for each in measure():
        assert each.false_lost == 0, f"{each.name}: {each.pairs}"
        assert each.missed == 0, f"{each.name}: {each.pairs}"
        blocks += each.blocks
        agree += each.agree
        seen.append(each.name)
    assert sum(name.startswith("reach_") for name in seen) >= 6
    assert len(seen) >= 18
    assert agree >= 0.99 * blocks, f"{agree} of {blocks}"


def test_a_lost_block_that_we_reach_is_missed():
    one, other = Outstanding(), Outstanding()
    key = (("app", 0x10),)
    one.kinds[key] = Counter({"DefinitelyLost": 2, "StillReachable": 1})
    other.kinds[key] = Counter({"DefinitelyLost": 1, "StillReachable": 2})
    found = compare("x", one, other)
    assert (found.blocks, found.agree, found.missed, found.false_lost) == (3, 2, 1, 0)


def test_a_reachable_block_called_lost_is_false():
    pairs = Counter({("StillReachable", "DefinitelyLost"): 1, ("DefinitelyLost",) * 2: 4})
    assert Agreement("x", pairs).false_lost == 1
