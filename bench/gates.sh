#!/bin/sh
# Builds and runs the gate programs, one per topic: rows of "name value goal ok|SHORT". Exits with 1 if any row falls short.
# usage: bench/gates.sh [PART_OF_A_NAME]
set -eu
cd "$(dirname "$0")/.."
cmake --preset release -DTUTTI_BUILD_BENCH=ON >/dev/null
failed=0
for source in bench/gates_*.cpp; do
  gate=$(basename "$source" .cpp)
  cmake --build --preset release --target "$gate" >/dev/null
  echo "# $gate"
  "build/release/bench/$gate" "$@" || failed=1
done
exit $failed
