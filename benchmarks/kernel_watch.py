#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a look of `leakscope kernel watch` costs on a kernel with many source lines.

    python benchmarks/kernel_watch.py [LINES]

Every line changes at every look, which no kernel does. Prints CPU milliseconds a look, and what
that is of one core at a look every ten seconds.
"""

import random
import statistics
import sys
import time

from leakscope.kernel import gather
from leakscope.proc.allocinfo import parse_allocinfo

LOOKS = 7


def allocinfo(lines):
    rows = [
        f"{random.randrange(4 << 20):12d} {random.randrange(9999):8d}"
        f" drivers/net/vendor{n % 97}/file{n}.c:{n % 3000 + 1} [mod{n % 97}] func:function_{n} \n"
        for n in range(lines)
    ]
    return "allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n" + "".join(rows)


def main():
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    texts = iter([allocinfo(lines) for _ in range(LOOKS)])
    gather.read_profiling = lambda: True
    gather.read_allocinfo = lambda: parse_allocinfo(next(texts))
    gatherer = gather.KernelGatherer(keep_fds=False)
    costs = []
    for _ in range(LOOKS):
        began = time.process_time()
        gatherer.gather()
        costs.append(time.process_time() - began)
    cost = statistics.median(costs[1:])
    print(f"{lines:,} lines: {cost * 1000:.0f} ms a look, {cost * 10:.2f} % of a core at 10 s")


if __name__ == "__main__":
    main()
