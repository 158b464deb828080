#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# a usual start script: chooses an allocator for the server, and runs it
export LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2
./app
echo "server ended with $?"
