# SPDX-License-Identifier: Apache-2.0
"""From addresses to functions, files and lines.

`Symbolizer` answers for the modules of a recording, `source_context` shows the lines. Both work
on files that nobody vouches for: they open regular files only, read within bounds, and use a
file only when it is the one the recording names.
"""

from leakscope.symbols._files import find_debug_file
from leakscope.symbols._operators import has_own_operators
from leakscope.symbols._source import source_context
from leakscope.symbols._symbolizer import Symbolizer
from leakscope.symbols._variables import find_variables

__all__ = [
    "Symbolizer",
    "find_debug_file",
    "find_variables",
    "has_own_operators",
    "source_context",
]
