# SPDX-License-Identifier: Apache-2.0
"""Numbers, sizes, times, rates and confidences as text: each in one way, in the whole product."""

from __future__ import annotations

from leakscope.words.confidences import confidence_words
from leakscope.words.labels import file_part, part_label
from leakscope.words.numbers import (
    count_text,
    interval_text,
    number_text,
    percent_text,
    plural,
    share_text,
)
from leakscope.words.rates import rate_text, signed_rate
from leakscope.words.sizes import amount_text, bytes_text, signed_amount, typed_size
from leakscope.words.times import duration_text, seconds_text

__all__ = ["amount_text", "bytes_text", "confidence_words", "count_text", "duration_text"]
__all__ += ["file_part", "interval_text", "number_text", "part_label", "percent_text", "plural"]
__all__ += ["rate_text", "seconds_text", "share_text", "signed_amount", "signed_rate", "typed_size"]
