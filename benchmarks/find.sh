#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How long `leakscope find` takes for a daemon that leaks 1 MB/s and that nobody prepared.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'kill "$daemon" 2>/dev/null || true; rm -rf "$folder"' EXIT
g++ -g -O1 -pthread tests/programs/find/find_leaks.cc -o "$folder/daemon"
for way in lost held; do
  "$folder/daemon" $way >"$folder/out" &
  daemon=$!
  sleep 1
  began=$(date +%s.%N)
  leakscope find $daemon && status=0 || status=$?
  echo "$way: status $status after $(echo "$(date +%s.%N) $began" | awk '{printf "%.1f", $1 - $2}') s"
  kill $daemon
  wait $daemon 2>/dev/null || true
done
