# SPDX-License-Identifier: Apache-2.0
"""redis, nginx and postgresql traced, sampled and scanned under load, beside the same alone."""

import pytest

from harm.comparison import MODES, compare
from harm.servers import SERVERS

RATIO = 1.5  # of the 99th percentile of latency, in the best of three tries


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.timeout(180)
def test_a_server_answers_as_it_does_alone(agent, tmp_path, name, mode):
    tmp_path.chmod(0o711)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o711)  # postgres runs as a user of its own
    found = compare(SERVERS[name], mode, tmp_path)
    assert found.differences == []
    assert found.requests > 50
    assert found.best <= RATIO, found.ratios
