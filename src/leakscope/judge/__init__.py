# SPDX-License-Identifier: Apache-2.0
"""The verdict engine: from evidence to findings. It reads the model and nothing else.

`judge` says for each allocation site of a recording whether it leaks, fills up, is a bounded
cache, warmed up, was allocated once or lives briefly, or that the data do not tell. How it
decides is explained in docs/verdicts.md.
"""

from leakscope.judge.engine import judge
from leakscope.judge.options import Options

__all__ = ["Options", "judge"]
