#!/bin/sh
# Builds and runs every program of gates: one line per figure, "name value goal ok|SHORT". Fails if any figure falls
# short. Arguments are handed on: parts of names, or --all. For a quiet machine.
set -u
cd "$(dirname "$0")/.."

cmake --preset release -DTUTTI_BUILD_BENCH=ON >/dev/null && cmake --build --preset release || exit 1
status=0
for program in build/release/bench/gates_*; do
  [ -f "$program" ] && [ -x "$program" ] || continue
  echo "== $program"
  "$program" "$@" || status=1
done
exit $status
