# SPDX-License-Identifier: Apache-2.0
"""`python -m leakscope`. Prefer the command `leakscope`: Python puts the current folder first here."""

from leakscope.proc.isolated import forget_current_folder

if __name__ == "__main__":
    forget_current_folder()

    from leakscope.cli import main

    raise SystemExit(main())
