# SPDX-License-Identifier: Apache-2.0
# What the walks share: a folder to work in, and `look`, which runs a command as a user would,
# keeps its screen, and notes when the first answer was there.
set -u
walks=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${WALK_FOLDER:-$(mktemp -d)}
mkdir -p "$folder/screens"
cd "$folder"
number=0

# look WHAT COMMAND...: the screen is in $screen, the exit status in $status.
look() {
  local what=$1
  shift
  number=$((number + 1))
  screen=$folder/screens/$(printf '%d-%s' "$number" "$what").txt
  printf '\n$ %s\n' "$*"
  "$@" 2>&1 | python3 "$walks/clock.py" "$what" "$EPOCHREALTIME" "$screen" "$folder/times"
  status=${PIPESTATUS[0]}
  printf '%s\n' "$status" >"$screen.status"
  echo "[exit status $status]"
}

# The command that the last screen says to run next.
next_command() {
  python3 "$walks/clock.py" --next "$screen"
}

expect() {
  if [ "$status" != "$1" ]; then
    echo "$0: expected exit status $1, got $status" >&2
    exit 1
  fi
}
