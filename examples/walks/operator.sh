#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The operator with a pager: a machine loses memory, and nobody knows to what.
#
#   operator.sh [WATCH_TIME [FIND_TIME]]      20s and 30s are usual
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
gcc -g -O2 -o walk-daemon "$walks/daemon.c" || exit 1
./walk-daemon >ready &
daemon=$!
trap 'kill "$daemon" 2>/dev/null' EXIT
until [ -s ready ]; do sleep 0.1; done

# Where is the memory, and what grows?
look triage leakscope
expect 0

# How fast, and when is the limit reached?
look watch leakscope watch walk-daemon --for "${1:-20s}"
expect 3

# What is it, and who holds it? The screen before says how to ask.
look find $(next_command) --for "${2:-30s}"
expect 1

# Which line? As the screen says; nothing is restarted.
look lines $(next_command) --for "${2:-30s}"
expect 1
