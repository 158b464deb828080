# SPDX-License-Identifier: Apache-2.0
"""`python -m leakscope`."""

from leakscope.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
