#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The developer before a release: trace, read, mend, trace again.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
g++ -std=c++17 -g -O2 -o parser "$walks/parser.cc" || exit 1
look run leakscope run -- ./parser
expect 1

# The screen names a line, and the command that shows whole stacks.
look stacks $(next_command)
expect 1

g++ -std=c++17 -g -O2 -DFIXED -o parser "$walks/parser.cc" || exit 1
look mended leakscope run -- ./parser
expect 0
