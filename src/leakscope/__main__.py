# SPDX-License-Identifier: Apache-2.0
"""`python -m leakscope`. Prefer the command `leakscope`: Python puts the current folder first here."""

# ruff: noqa: PTH116, PTH120 - pathlib is not loaded for this alone

import os
import sys


def _forget_current_folder() -> None:
    """Let nothing more be imported from the current folder, unless leakscope itself lies there."""
    if sys.flags.safe_path:
        return
    try:
        here = os.stat(".")
        ours = os.path.samestat(os.stat(f"{os.path.dirname(__file__)}/.."), here)
        if not ours and sys.path and os.path.samestat(os.stat(sys.path[0] or "."), here):
            del sys.path[0]
    except OSError:
        return  # one of them is not there: nothing can come from it


if __name__ == "__main__":
    _forget_current_folder()

    from leakscope.cli import main

    raise SystemExit(main())
