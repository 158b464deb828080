# SPDX-License-Identifier: Apache-2.0
"""The verdict engine: from evidence to findings. It reads the model and nothing else.

`judge` says for each allocation site of a recording whether it leaks, fills up, is a bounded
cache, warmed up, was allocated once or lives briefly, or that the data do not tell. How it
decides is explained in docs/verdicts.md.
"""

from leakscope.judge.engine import judge
from leakscope.judge.free_errors import judge_free_errors
from leakscope.judge.options import Options
from leakscope.judge.suppressions import Suppression, load_suppressions

__all__ = ["Options", "Suppression", "judge", "judge_free_errors", "load_suppressions"]
