# SPDX-License-Identifier: Apache-2.0
"""While a long file of another tool is read, a terminal sees how far it is."""

import io
import time

from leakscope._told import reading_told
from leakscope.cli._progress import Progress
from leakscope.formats import read_tables


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_how_far_it_is(tmp_path):
    (tmp_path / "long").write_text("MemTotal: 1 kB\nMemFree: 1 kB\n" + ("x" * 999 + "\n") * 4000)
    shares = []
    terminal = Terminal()
    with Progress(delay_s=0.0, stream=terminal) as progress:
        deadline = time.monotonic() + 20
        while not terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)

        def tell(path, share):
            shares.append(share)
            progress.share(path, share)

        with reading_told(tell):
            (look,) = read_tables(tmp_path / "long")
    assert look.total == 1024
    assert len(shares) >= 3
    assert shares == sorted(shares)
    assert "reading [#####" in terminal.getvalue()
    assert " % long" in terminal.getvalue()
    read_tables(tmp_path / "long")  # nobody is told any more
    assert len(shares) < 10
